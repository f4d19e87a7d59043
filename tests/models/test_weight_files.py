"""Files of weights, of every kind that is read and every way in which they are bad."""

# pyright: reportMissingImports=false
import re
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from afpjax.inputs.errors import InputError
from afpjax.models import weight_files

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PARAMS = {"fc": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.array([0.5, 1.5, -2.0])}}
ARRAYS = {
    "fc.weight": np.array([[0, 3], [1, 4], [2, 5]], np.float32),
    "fc.bias": np.array([0.5, 1.5, -2.0], np.float32),
}


def assert_arrays(found, dtype: Any = np.float32):
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name].astype(np.float32), array)


def refusal(path):
    with pytest.raises(InputError) as caught:
        weight_files.read(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"model.weights: {path}")
    return text


class FakeTensor:
    """As much of torch.Tensor as is used; NumPy takes no bfloat16 from it, as from torch's."""

    def __init__(self, array, narrow=False):
        self.array, self.narrow = array, narrow

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def float(self):
        return FakeTensor(self.array.astype(np.float32))

    def detach(self):
        return self

    def numpy(self):
        if self.narrow:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.fixture
def torch_that_holds(monkeypatch):
    """Puts a torch in place whose `load` gives back, or raises, what the test says."""

    def place(held, version="2.13.0+cpu"):
        calls = []

        def load(file, **how):
            calls.append((Path(file.name), how))
            if isinstance(held, Exception):
                warnings.warn("torch is going to refuse this", stacklevel=1)
                raise held
            return held

        fake = SimpleNamespace(load=load, Tensor=FakeTensor, __version__=version)
        monkeypatch.setitem(sys.modules, "torch", fake)
        return calls

    return place


@pytest.mark.parametrize(
    ("suffix", "own_library"),
    [
        (".npz", np.load),
        (".safetensors", safetensors.numpy.load_file),
        (".SafeTensors", safetensors.numpy.load_file),
    ],
)
def test_what_is_written_comes_back_and_nothing_lies_beside_it(tmp_path, suffix, own_library):
    """The kernel is transposed on its way out: as memory lies, the numbers would be mixed up."""
    path = tmp_path / "deep" / f"weights{suffix}"
    weight_files.save(path, PARAMS)
    assert_arrays(weight_files.read(path))
    assert_arrays(dict(own_library(path)))
    assert list(path.parent.iterdir()) == [path]
    whole = path.read_bytes()
    for part in (0, 0.01, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert f"is no readable {suffix.lower()} file" in refusal(path)


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, name):
    path = tmp_path / name
    weight_files.save(path, PARAMS)
    before = path.read_bytes()

    def fails(arrays, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    def fails_too(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weight_files, "save_file", fails)
    monkeypatch.setattr(np, "savez", fails_too)
    with pytest.raises(KeyboardInterrupt):
        weight_files.save(path, PARAMS)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_weights_are_not_written_as_anything_else(tmp_path):
    with pytest.raises(InputError, match=r"a\.pth: weights are written as \.safetensors or \.npz"):
        weight_files.save(tmp_path / "a.pth", PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_of_every_width_that_numpy_has_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    for dtype in (jnp.bfloat16, np.float16, np.float64):
        safetensors.numpy.save_file({n: a.astype(dtype) for n, a in ARRAYS.items()}, path)
        assert_arrays(weight_files.read(path), dtype)
    safetensors.numpy.save_file({"a": np.ones(4, jnp.float8_e4m3fn)}, path)
    assert "is no readable .safetensors file" in refusal(path)


def test_the_name_that_dataparallel_adds_to_every_tensor_is_dropped(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({f"module.{n}": a for n, a in ARRAYS.items()}, path)
    assert_arrays(weight_files.read(path))
    some = {f"module.{n}": a for n, a in ARRAYS.items()} | {"other": np.ones(1, np.float32)}
    safetensors.numpy.save_file(some, path)
    assert set(weight_files.read(path)) == set(some)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "args": None},
        lambda state: {"model": OrderedDict((f"module.{n}", t) for n, t in state.items())},
    ],
)
def test_pytorch_files_are_read_through_torch_and_its_protection(tmp_path, torch_that_holds, wrap):
    path = tmp_path / "a.PTH"
    path.write_bytes(b"PK")
    state = OrderedDict((n, FakeTensor(a, narrow=True)) for n, a in ARRAYS.items())
    calls = torch_that_holds(wrap(state))
    assert_arrays(weight_files.read(path))
    assert calls == [(path, {"map_location": "cpu", "weights_only": True})]
    torch_that_holds({"bn1.num_batches_tracked": FakeTensor(np.array(7))})
    assert weight_files.read(path)["bn1.num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (RuntimeError("a\nb"), "is no whole PyTorch file of tensors alone .*RuntimeError"),
        (EOFError(), "is no whole PyTorch file of tensors alone .*EOFError"),
        ([1, 2], "is of type list, not a state dict; where it was made, save model.state_dict()"),
        ({"epoch": 3}, "`epoch` is of type int, not a tensor"),
        ({"state_dict": {"a": {}}}, "`a` is of type dict, not a tensor"),
        ({"a": FakeTensor(np.array(["x"]), narrow=True)}, "`a` is no plain array"),
    ],
)
def test_pytorch_files_of_anything_else_are_refused(tmp_path, torch_that_holds, held, message):
    (tmp_path / "a.pth").write_bytes(b"PK")
    torch_that_holds(held)
    assert re.search(message, refusal(tmp_path / "a.pth"))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_pointers_missing_files_folders_and_other_kinds_are_refused(tmp_path, monkeypatch, suffix):
    """Before torch is asked: it would only say that it cannot read a pointer."""
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / f"a{suffix}"
    assert "does not exist" in refusal(path)
    path.write_text(POINTER)
    assert "is a git-LFS pointer" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refusal(path)
    other = tmp_path / f"a{suffix}.gz"
    other.write_bytes(b"x")
    assert "that ends in .safetensors, .npz, .pth or .pt" in refusal(other)


def test_without_torch_a_pytorch_file_is_refused_with_the_way_to_convert_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pt").write_bytes(b"PK")
    text = refusal(tmp_path / "a.pt")
    assert "torch is not installed" in text and "weights_only=True" in text


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    """Nor those of an .npz file that is one pickle."""

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "a.npz", allow_pickle=True, weight=np.array([Bomb()], object))
    assert "is no readable .npz file of plain arrays" in refusal(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


def test_real_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch")
    state = {n: torch.from_numpy(a) for n, a in ARRAYS.items()}
    path = tmp_path / "a.pth"
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        assert_arrays(weight_files.read(path))
        whole = path.read_bytes()
        for part in (0, 10, len(whole) // 2, len(whole) - 5):
            path.write_bytes(whole[:part])
            assert "is no whole PyTorch file" in refusal(path)
    torch.save({"state_dict": {f"module.{n}": t.bfloat16() for n, t in state.items()}}, path)
    assert_arrays(weight_files.read(path))
    torch.save(torch.nn.Linear(2, 3), path)
    assert "UnpicklingError" in refusal(path)
