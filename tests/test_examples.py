"""Every program of `examples/` runs as it stands, from an empty folder, and says something."""

import runpy
from pathlib import Path

import jax
import pytest

PROGRAMS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
LINES = 60


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands(program, tmp_path, monkeypatch, capsys):
    if "import torch" in program.read_text():
        pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.chdir(tmp_path)
    assert len(program.read_text().splitlines()) <= LINES
    with jax.numpy_dtype_promotion("standard"):  # as users have it; optax needs it
        runpy.run_path(str(program), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_there_are_examples():
    assert PROGRAMS
