"""Bad files and settings, given to the command: one line that says what to mend, and no traces."""

# pyright: reportMissingImports=false
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from PIL import Image

from afpjax.models import create, save
from afpjax.models.zoo import params_of
from afpjax.run import main

from ..network.onnx.onnx_files import N, classifier, made

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
ONNX = ("--model.name", "net.onnx")
ZOO = ("--model.name", "resnet18", "--model.width", "0.02")
WEIGHTS = (*ZOO, "--model.weights")
FOLDER = ("--data.name", "folder", "--data.path", "photographs")
#: The smallest experiment there is; a case changes one thing in it, by a later option.
GOOD = (
    *("importance", "--out", "run", "--model.classes", "5", "--model.image_size", "9"),
    *("--data.name", "npz", "--data.path", "images.npz"),
)


class Case(NamedTuple):
    words: tuple[str, ...]
    message: str  # how the line goes on after "afpjax: error: ", as a regular expression
    file: str = ""  # where given, a file that `change` makes another one of
    change: bytes | float = 0.0  # what is in it instead, or which share of it is left


TWO_CHANNELS = ("--model.channels", "2", "--data.path", "two-channels.npz")
ANOTHER_COUNT = r"model\.weights: \S+ does not fit `resnet18`, 6 classes.* is for 5 classes"
CASES = {
    "an ONNX file cut short": Case(ONNX, r".*net\.onnx is no whole ONNX model", "net.onnx", 0.5),
    "an ONNX file without layers": Case(
        ("--model.name", "layerless.onnx"), "the ONNX file: .* has no convolution or dense layer"
    ),
    "an ONNX file for three channels, images of two": Case(
        (*ONNX, *TWO_CHANNELS), ".* takes images of 9 x 9 x 3, these are 9 x 9 x 2"
    ),
    "an ONNX file for other classes": Case(
        (*ONNX, "--model.classes", "6"), "model.classes: 6, but the network tells 5 classes apart"
    ),
    "a pointer for PyTorch weights": Case(
        (*WEIGHTS, "five.pth"), "model.weights: five.pth is a git-LFS pointer", "five.pth", POINTER
    ),
    "weights cut short": Case(
        (*WEIGHTS, "five.safetensors"),
        r"model\.weights: five\.safetensors is no readable",
        "five.safetensors",
        0.7,
    ),
    "weights for other classes": Case(
        (*WEIGHTS, "five.npz", "--model.classes", "6"), ANOTHER_COUNT
    ),
    "weights that are data": Case(
        (*WEIGHTS, "images.npz"), "model.weights: .*missing: .*; unknown: `images`, `labels`"
    ),
    "a zoo network, images of two channels": Case(
        (*ZOO, *TWO_CHANNELS, "--data.train_path", "two-channels.npz"),
        "`resnet18` reads images of 9 x 9 x 3, these are 9 x 9 x 2",
    ),
    "images of two channels for a network of three": Case(
        (*ONNX, "--data.path", "two-channels.npz"),
        "data.path: two-channels.npz: images have 2 channels, the network reads 3",
    ),
    "an npz of images cut short": Case(
        ONNX, r"data\.path: images\.npz is no readable \.npz file", "images.npz", 0.7
    ),
    "a label too large": Case(
        (*ONNX, "--data.path", "label-5.npz"),
        r"data\.path: label-5\.npz: labels: label 5 is not in 0\.\.4",
    ),
    "an image cut short": Case(
        (*ONNX, *FOLDER),
        r"data\.path: photographs/a/0\.png is no readable image",
        "photographs/a/0.png",
        0.5,
    ),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    """The files of a good experiment, and a few bad ones."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 9, 9, 3), np.uint8), np.arange(8) % 5
    np.savez(folder / "images.npz", images=images, labels=labels)
    np.savez(folder / "two-channels.npz", images=images[..., :2], labels=labels)
    np.savez(folder / "label-5.npz", images=images, labels=labels + (labels == 4))
    onnx.save(classifier(), folder / "net.onnx")
    pooled = [N("GlobalAveragePool", ["x"], ["p"]), N("Flatten", ["p"], ["y"])]
    onnx.save(made(pooled, {}), folder / "layerless.onnx")
    params = params_of(create("resnet18", classes=5, width=0.02, seed=0))
    save(folder / "five.npz", params)
    save(folder / "five.safetensors", params)
    (folder / "five.pth").write_bytes(b"PK")
    for number, name in enumerate("abcde"):
        (folder / "photographs" / name).mkdir(parents=True)
        Image.fromarray(images[number]).save(folder / "photographs" / name / "0.png")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def here(tmp_path, monkeypatch, originals) -> Path:
    """A current folder with the files, and every cache elsewhere."""
    folder = tmp_path / "here"
    for name, content in originals.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    return folder


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, case):
    if case.file:
        whole = (here / case.file).read_bytes()
        kept = case.change
        bad = kept if isinstance(kept, bytes) else whole[: int(kept * len(whole))]
        (here / case.file).write_bytes(bad)
    before = everything(here)
    assert main([*GOOD, *case.words]) == 2
    out = capsys.readouterr()
    assert re.match(f"afpjax: error: {case.message}", out.err)
    assert out.err.count("\n") == 1 and out.err.endswith("\n") and out.out == ""
    assert everything(here) == before


@pytest.mark.in_ci("ONNX", "folder")
@pytest.mark.parametrize(
    "words",
    [ONNX, (*WEIGHTS, "five.npz"), (*WEIGHTS, "five.safetensors"), (*ONNX, *FOLDER)],
    ids=["ONNX", "npz weights", "safetensors weights", "folder"],
)
def test_the_same_experiments_run_where_nothing_is_wrong(here, words):
    """Else each refusal above might have another cause than the one it is named for."""
    assert main([*GOOD, *words]) == 0
    assert (here / "run" / "result.json").is_file()
