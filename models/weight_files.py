"""Files of trained weights: PyTorch state dicts as `.safetensors`, `.npz` and `.pth`."""

import os
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from afpjax.inputs.array_files import read_npz
from afpjax.inputs.errors import InputError, listed, one_line
from afpjax.inputs.files import MIB, Kind, opened, understood

from .state_dict import Params, state_dict

_SETTING = "model.weights"
# Where training scripts put the state dict in what they save.
_WRAPPERS = ("state_dict", "model")
_SAFETENSORS = Kind(".safetensors file", 16 * 1024 * MIB)
_MOST_HEADER = 8 * MIB
_TORCH = Kind("PyTorch file", 16 * 1024 * MIB)
# Before, `weights_only=True` could be made to run a file's code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)
_PARALLEL = "module."  # what torch's DataParallel puts before every name


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file by name, each in the width that the file has.

    `.npz`, `.safetensors`, and `.pth` or `.pt` where torch is installed; nothing is unpickled but
    by `torch.load(weights_only=True)`. A state dict under `state_dict` or `model` is found, and
    DataParallel's `module.` before every name is dropped. Raises `InputError` for a file that is
    missing, damaged, of another kind or a git-LFS pointer, and for one that holds anything else.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{_SETTING}: {path} is no file of weights; name a PyTorch state dict that ends in "
            f"{listed(_READERS)}"
        )
    tensors = reader(path)
    if tensors and all(name.startswith(_PARALLEL) for name in tensors):
        return {name.removeprefix(_PARALLEL): array for name, array in tensors.items()}
    return tensors


def save(path: Path, params: Params) -> None:
    """Write weights as `read` finds them; whole or not at all, even when killed.

    `path` ends in `.safetensors` or `.npz`; raises `InputError` for another suffix.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"{path}: weights are written as {listed(_WRITERS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer(made, state_dict(params))
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    return read_npz(path, _SETTING)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with opened(path, _SETTING, _SAFETENSORS) as file, understood(path, _SETTING, _SAFETENSORS):
        header = int.from_bytes(file.read(8), "little")
        if header > _MOST_HEADER:  # safetensors takes 100 MB, which as objects are gigabytes
            raise ValueError(f"its header has {header:,} bytes")
        with safe_open(path, framework="numpy") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    with opened(path, _SETTING, _TORCH) as file:
        torch = _safe_torch(path)
        try:
            with warnings.catch_warnings(action="ignore"):  # of what it then refuses
                held = torch.load(file, map_location="cpu", weights_only=True)
        # A damaged file makes torch raise nearly anything. Its words are left out: they are many,
        # and advise to load the file without the protection.
        except Exception as error:
            raise InputError(
                f"{_SETTING}: {path} is no whole PyTorch file of tensors alone (torch.load with "
                f"weights_only=True: {type(error).__name__}); where it was made, save "
                "model.state_dict() and nothing else"
            ) from error
    tensors = _unwrapped(path, held).items()
    return {str(name): _array(torch, f"{path}: `{name}`", each) for name, each in tensors}


def _safe_torch(path: Path) -> Any:
    """PyTorch, in a version that runs no code that a file brings."""
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        raise InputError(
            f"{_SETTING}: {path} is a PyTorch file and torch is not installed here; where it is, "
            "read the file with torch.load(FILE, weights_only=True) and write it again with "
            "safetensors.torch.save_file as .safetensors, or its arrays with numpy.savez as .npz"
        ) from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE_TORCH:
        raise InputError(
            f"{_SETTING}: {path} is a PyTorch file, and torch {torch.__version__} may run code "
            "that such a file brings; install 2.6 or later, or write it again as .safetensors"
        )
    return torch


def _unwrapped(path: Path, held: Any) -> Mapping[Any, Any]:
    """The state dict in what a training script saved."""
    if isinstance(held, Mapping):
        inner = (held[name] for name in _WRAPPERS if isinstance(held.get(name), Mapping))
        return next(inner, held)
    raise InputError(
        f"{_SETTING}: {path} is of type {type(held).__name__}, not a state dict; "
        "where it was made, save model.state_dict()"
    )


def _array(torch: Any, where: str, tensor: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor):
        raise InputError(
            f"{_SETTING}: {where} is of type {type(tensor).__name__}, not a tensor; "
            f"a state dict holds tensors only, by itself or under {listed(_WRAPPERS)}"
        )
    try:
        # NumPy has no bfloat16 that torch knows of.
        return (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, or without values
        raise InputError(f"{_SETTING}: {where} is no plain array ({one_line(error)})") from error


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # It writes memory as it lies, whatever the strides.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
}
_WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
