"""A PyTorch module as a network: through PyTorch's own exporter to ONNX, and the table here."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from afpjax.inputs.errors import InputError, one_line
from afpjax.network.interpreter import Network
from afpjax.network.onnx.load import load_onnx

_OPSET = 17  # of the exporter that follows the module's calls
_MEND = "give a module with fixed shapes and without Python branches on its values"


def from_torch(module: Any, sample: Any, *, fold: bool = True) -> Network:
    """Trace a `torch.nn.Module` as it is, in evaluation mode; its layers keep the module's names.

    `sample`: one input or a batch as the module takes it, float [N, channels, rows, columns] or
    [N, features], a tensor or an array; only its shape counts. The network takes images as all of
    afpjax does, channels last: float32 [B, rows, columns, channels], or [B, features]. The module
    is left as it was. `fold` is `afpjax.trace`'s. Needs PyTorch (`pip install 'afpjax[torch]'`).
    Raises `InputError` for what is no module, a sample that it does not take, what PyTorch cannot
    export, and what `load_onnx` refuses.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module: needs a torch.nn.Module, got {type(module).__name__}")
    try:
        one = torch.as_tensor(sample, dtype=torch.float32)[:1]
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"sample: no array of numbers, [N, ...]: {one_line(error)}") from error
    with tempfile.TemporaryDirectory() as folder, _evaluating(module), torch.no_grad():
        path = Path(folder) / f"{type(module).__name__}.onnx"
        try:
            module(one)
        except Exception as error:  # whatever a module does with a shape that it does not take
            shape = list(one.shape)
            raise InputError(
                f"sample: the module does not take {shape}: {one_line(error)}"
            ) from error
        _export(torch, module, one, path)
        return load_onnx(path, fold=fold)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise InputError("module: PyTorch is not installed; pip install 'afpjax[torch]'") from error


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Every part in evaluation mode inside `with`, and each in its own mode afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _export(torch: Any, module: Any, one: Any, path: Path) -> None:
    """By the exporter that needs nothing else, or where it fails by the one that needs onnxscript.

    Both say much on standard output, which belongs to the caller.
    """
    problems = []
    for dynamo in (False, True):
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                redirect_stdout(StringIO()),
                redirect_stderr(StringIO()),
                _plain_attention(torch),
            ):
                torch.onnx.export(module, (one,), str(path), opset_version=_OPSET, dynamo=dynamo)
            return
        except Exception as error:
            problems.append(error)
    raise InputError(
        f"module: PyTorch cannot export {type(module).__name__} ({one_line(problems[0])}; the "
        f"other exporter: {one_line(problems[1])}); {_MEND}"
    ) from problems[0]


@contextmanager
def _plain_attention(torch: Any) -> Iterator[None]:
    """Attention as products and softmax: its fused kernel has no ONNX operator."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
