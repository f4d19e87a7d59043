"""Nothing that is read as data chooses which code runs: names planted everywhere stay names."""

# pyright: reportMissingImports=false
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from afpjax import __version__
from afpjax.command.store import RowStore
from afpjax.config.config import Config, load, to_toml
from afpjax.inputs.errors import InputError
from afpjax.models import weight_files
from afpjax.run import main

EVIL = "afpjax_evil"
NAME = f"{EVIL}:make"
SMALL = ("--model.classes", "4", "--model.image_size", "8", "--model.channels", "1")


class Bomb:
    """What pickle would make of it: an import of the planted module."""

    def __reduce__(self):
        return (__import__, (EVIL,))


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The current folder, with a module in it that leaves a trace when it is imported."""
    (tmp_path / f"{EVIL}.py").write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('exploded').touch()\n"
        "import jax.numpy as jnp\n"
        "def make():\n"
        "    return (lambda p, x: x.reshape(x.shape[0], -1) @ p), jnp.ones((64, 4), jnp.float32)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop(EVIL, None)
    yield tmp_path
    sys.modules.pop(EVIL, None)


def said(capsys, *words: str) -> str:
    """What the command says when it refuses."""
    assert main([*words, "--out", "run"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    return told.err


def nothing_ran(folder: Path) -> None:
    assert not (folder / "exploded").exists() and EVIL not in sys.modules


def experiment(folder: Path, **model: str) -> Path:
    text = to_toml(Config()).replace('name = "resnet18"', f'name = "{model["name"]}"')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(f"# Written by afpjax {__version__}. \n{text}")
    return folder / "config.toml"


def test_an_experiment_file_names_no_code(planted, capsys):
    path = experiment(planted, name=NAME)
    text = said(capsys, "profile", "--config", str(path))
    assert f"`{NAME}` is a function" in text and f"--model.name {NAME}" in text
    nothing_ran(planted)


def test_a_run_that_is_resumed_names_no_code(planted, capsys):
    experiment(planted / ".run.partial", name=NAME)
    assert "no file chooses which code runs" in said(capsys, "--resume")
    assert "no file chooses which code runs" in said(
        capsys, "--resume", "--model.name", "another:function"
    )
    nothing_ran(planted)


def test_an_export_names_no_code(planted, capsys):
    pytest.importorskip("ray")
    experiment(planted / "export", name=NAME)
    (planted / "export" / "manifest.json").write_text(json.dumps({"model": {"name": NAME}}))
    text = said(capsys, "serve", "--serve.export", "export")
    assert "no file chooses which code runs" in text
    nothing_ran(planted)


def test_the_person_at_the_command_line_names_code(planted, capsys):
    """The same name, said where it counts: then the planted module is the network."""
    path = experiment(planted, name=NAME)
    assert load(path, {"model.name": NAME}).model.name == NAME
    assert load(path, {"model.name": "resnet18"}).model.name == "resnet18"
    assert main(["profile", "--config", str(path), "--model.name", NAME, *SMALL]) == 0
    assert (planted / "exploded").exists()


@pytest.mark.parametrize("kind", ["devices", "link", "board", "trace", "table"])
def test_hardware_and_traces_name_no_code(planted, capsys, kind):
    home = Path(sys.modules["afpjax"].__file__ or "").parent / "hardware"
    device = (home / "devices" / "eyeriss.toml").read_text()
    (planted / "t.csv").write_text(f"Layer;Latency [ms];Energy [mJ]\n{NAME};1;1\n")
    files = {
        "devices": device.replace("row-stationary", NAME),
        "link": f'name = "{NAME}"\n',
        "board": f'name = "{NAME}"\n',
        "trace": f'description = "x"\n[[change]]\nstep = 1\ndevice = "{NAME}"\n',
        "table": device.replace('name = "eyeriss"', 'name = "a"\nlayer_table = "t.csv"'),
    }
    (planted / "f.toml").write_text(files[kind])
    option = {
        "devices": ("profile", "--platform.devices", "f.toml"),
        "link": ("profile", "--platform.link", "f.toml"),
        "board": ("distribute", "--distribute.board", "f.toml"),
        "trace": ("online", "--online.trace", "f.toml"),
        "table": ("profile", "--platform.devices", "f.toml"),
    }[kind]
    assert said(capsys, *option, "--model.name", "resnet18", "--model.width", "0.02")
    nothing_ran(planted)


@pytest.mark.parametrize("name", ["images.npz", "images.npy", "w.npz", "w.pth", "w.pt"])
def test_arrays_are_not_unpickled(planted, name):
    path = planted / name
    objects = np.array([Bomb(), 1], object)
    if name.endswith(".npz"):
        np.savez(path, allow_pickle=True, images=objects, labels=objects)
    elif name.endswith(".npy"):
        np.save(path, objects, allow_pickle=True)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"fc.weight": Bomb()}))
            archive.writestr("archive/version", "3")
    with pytest.raises(InputError):
        weight_files.read(path)
    nothing_ran(planted)


def test_a_store_is_not_unpickled(planted):
    with RowStore(planted / "s.sqlite") as rows:
        rows[b"key"] = pickle.dumps(Bomb())
    with RowStore(planted / "s.sqlite") as rows:
        assert rows[b"key"] == pickle.dumps(Bomb())
    nothing_ran(planted)
