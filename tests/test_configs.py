"""The experiment files that ship with afpjax: each says what it needs, and runs where that is."""

# pyright: reportMissingImports=false
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afpjax.config import config as configuration
from afpjax.config.config import find_file, shipped
from afpjax.models import create, save
from afpjax.models.zoo import params_of
from afpjax.run import main

PAPER = [name for name in shipped() if name.startswith("afarepart-")]
LOST = [f"robustdice-{each}" for each in ("alexnet", "vgg16bn", "convnext")]
SHARED = ["resnet20-cifar10", "resnet18trunk-tinyimagenet", "squeezenet-imagenet-sample"]
SHARED_LOST = [f"robustdice-{name}" for name in SHARED]
CAMPAIGNS = ["campaign-resnet20-cifar10", "published-resnet20-cifar10"]
NETWORKS = ("alexnet", "squeezenet", "resnet18")
#: The smallest search there is.
QUICK = (
    *("--search.population", "4", "--search.generations", "1", "--search.images", "8"),
    *("--search.held_out", "8", "--search.final_trials", "2", "--faults.trials", "1"),
)


def options(name: str) -> tuple[str, ...]:
    return ("--config", name, "--model.width", "0.05")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder that the experiment files are told of, and another to run in."""
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AFPJAX_DATA", str(tmp_path / "data"))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path / "data"


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def tiny_imagenet(folder: Path, classes: int = 200) -> None:
    """As it is distributed, with one training image and no more than 20 others."""
    wnids = [f"n{number:08d}" for number in range(classes)]
    for number, wnid in enumerate(wnids):
        picture(folder / "train" / wnid / "images" / f"{wnid}_0.png", number)
    lines = [f"val_{number}.png\t{wnids[number * 7]}\t0\t0\t9\t9" for number in range(20)]
    for number in range(20):
        picture(folder / "val" / "images" / f"val_{number}.png", 1000 + number)
    (folder / "wnids.txt").write_text("\n".join(wnids))
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines))


def random_weights(path: Path, name: str, classes: int) -> str:
    save(path, params_of(create(name, classes=classes, width=0.05, seed=0)))
    return str(path)


def test_the_papers_tables_and_the_small_ones_are_there():
    expected = {f"afarepart-{each}{form}" for each in NETWORKS for form in ("", "-int8")}
    assert {*PAPER} == expected
    expected |= {*LOST, *SHARED, *SHARED_LOST, *CAMPAIGNS, "digits", "digits-int8"}
    assert {*shipped()} == expected


@pytest.mark.parametrize("name", shipped())
def test_a_file_opens_with_what_it_shows_and_the_command(name):
    text = find_file(name).read_text()
    assert text.startswith("# ") and f"python -m afpjax.run --config {name}\n" in text


@pytest.mark.parametrize("name", [*PAPER, *LOST, *SHARED, *SHARED_LOST, *CAMPAIGNS])
def test_without_the_data_a_file_says_what_to_set(name, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("AFPJAX_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "--config", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "AFPJAX_DATA, which is not set; set it to the folder" in line and "or give --" in line
    monkeypatch.setenv("AFPJAX_DATA", str(tmp_path))
    assert main(["--config", name]) == 2  # whatever its job is, before anything is trained
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PAPER)
def test_afareparts_files_are_its_setting(name):
    config = configuration.load(find_file(name), {"data.path": "x"})
    assert config.data.name == "tiny-imagenet" and config.model.classes == 200
    assert config.faults.bits == (0, 1, 2, 3)
    assert isinstance(config.faults.layers[0], int)
    width = (8, "channel") if name.endswith("-int8") else (16, "global")
    assert (config.format.bits, config.format.scale) == width
    if width[0] == 16:
        assert config.format.frac == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_afareparts_files_run_on_a_tiny_imagenet_folder(name, place, tmp_path):
    tiny_imagenet(place / "tiny-imagenet-200")
    zoo_name = configuration.load(find_file(name)).model.name
    weights = random_weights(tmp_path / "w.safetensors", zoo_name, 200)
    few = ["--importance.images", "4", "--importance.exact_passes", "0", "--out", "here"]
    assert main(["importance", *options(name), "--model.weights", weights, *few]) == 0
    result = json.loads(Path("here/result.json").read_text())
    assert result["layers"] and result["model"]["name"] == zoo_name


@pytest.mark.slow
def test_an_afarepart_file_trains_and_partitions(place):
    tiny_imagenet(place / "tiny-imagenet-200")
    words = [*options("afarepart-squeezenet"), *QUICK, "--train.epochs", "1", "--out", "here"]
    assert main(words) == 0
    result = json.loads(Path("here/result.json").read_text())
    assert {row["tool"] for row in result["table"]} == {"cnnparted", "fault-unaware", "afarepart"}
    struck = tomllib.loads(Path("here/config.toml").read_text())["faults"]["layers"]
    assert struck == [7]


@pytest.mark.parametrize("name", LOST)
def test_robustdices_files_are_its_setting(name):
    config = configuration.load(find_file(name), {"data.path": "x", "model.weights": "y"})
    assert (config.run.job, config.format.kind) == ("distribute", "float32")
    assert config.distribute.devices == (4, 3, 2) and config.distribute.normalise == "minmax"
    assert config.distribute.scores == ("l1", "taylor", "jsd")
    assert config.distribute.substitute == "zero" and not config.distribute.lost


@pytest.mark.slow
@pytest.mark.parametrize("name", LOST)
def test_robustdices_files_run_on_imagenets_folders(name, place):
    for number in range(8):
        picture(place / "imagenet" / f"n{number % 4:08d}" / f"{number}.png", number)
    zoo_name = configuration.load(find_file(name)).model.name
    random_weights(place / f"{zoo_name}.safetensors", zoo_name, 4)
    words = ["--config", name, "--model.width", "0.05", "--model.classes", "4", "--out", "here"]
    few = ["--distribute.curve", "0.5", "--distribute.devices", "3", "--importance.exact_passes"]
    assert main([*words, *few, "0", "--search.images", "4", "--search.held_out", "4"]) == 0
    result = json.loads(Path("here/result.json").read_text())
    assert {row["method"] for row in result["methods"]} >= {"robustdice", "lop", "cdc"}


@pytest.mark.parametrize("name", LOST[:1])  # the others run in `slow`
def test_robustdices_files_are_profiled_on_imagenets_folders(name, place):
    for number in range(4):
        picture(place / "imagenet" / f"n{number:08d}" / "a.png", number)
    zoo_name = configuration.load(find_file(name)).model.name
    random_weights(place / f"{zoo_name}.safetensors", zoo_name, 4)
    words = ["profile", *options(name), "--model.classes", "4", "--out", "here"]
    assert main(words) == 0
    assert json.loads(Path("here/result.json").read_text())["costs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_the_small_files_run_on_the_shared_data(name, shared_data, place, monkeypatch):
    monkeypatch.setenv("AFPJAX_DATA", str(shared_data))
    assert main(["--config", name, *QUICK, "--out", "here"]) == 0
    result = json.loads(Path("here/result.json").read_text())
    assert result["clean"]["float_accuracy"] > 0.2
