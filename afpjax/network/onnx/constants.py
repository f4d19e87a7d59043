"""Operators of constants alone, and how much a graph may make of its own tensors and shapes.

How many elements an operator will make is told before it makes them, so that no file, however
small, fills memory: `Room` is what all of them together may make and read.
"""

from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import numpy_helper

from afpjax.network.flatten import inner_jaxpr
from afpjax.network.onnx.elementwise import Operator, plain


class Room:
    """Bytes that constants may still fill, and elements that they may still be worked out from.

    `held` are the bytes of the file's own tensors: a graph may widen and rearrange these a few
    times. One number, many times over, takes no memory until it is used, and may stand for the
    weights of the largest published classifiers.
    """

    def __init__(self, held: int) -> None:
        self.bytes = 128 * 2**20 + 8 * held
        self.repeated = 160 * 10**6  # elements
        self.work = 2**30 + 64 * held

    def take(self, elements: int, width: int, work: int) -> None:
        """Raises `ValueError` where there is no more room."""
        self.bytes -= elements * width
        self.work -= elements + work
        self._refuse()

    def repeat(self, elements: int) -> None:
        """For an array that is one number."""
        self.repeated -= elements
        self._refuse()

    def _refuse(self) -> None:
        if min(self.bytes, self.repeated, self.work) < 0:
            raise ValueError(
                "it would fill memory with constants, beyond what the file itself holds; export "
                "the network with its constants folded"
            )


def elements(op: str, attributes: dict[str, Any], operands: Sequence[np.ndarray | None]) -> int:
    """How many an operator in NumPy makes at most, from shapes and settings.

    Those without an entry in `SIZES` broadcast their operands, or rearrange what they have.
    """
    if op in SIZES:
        return int(SIZES[op](attributes, *operands))
    shapes = [operand.shape for operand in operands if operand is not None]
    try:
        return prod(np.broadcast_shapes(*shapes))
    except ValueError:
        return sum(map(prod, shapes))


def work_of(function: Callable[..., Any], *arrays: Any) -> tuple[int, int]:
    """Elements that `function` makes, those on its way included, and its multiplications."""
    return _work(jax.make_jaxpr(function)(*arrays).jaxpr)


def _work(jaxpr: Any) -> tuple[int, int]:
    made = work = 0
    for eqn in jaxpr.eqns:
        inner = inner_jaxpr(eqn)
        if inner is not None:
            more, multiplied = _work(getattr(inner, "jaxpr", inner))
        else:
            more = sum(prod(getattr(var.aval, "shape", ())) for var in eqn.outvars)
            multiplied = more * _products(eqn)
        made, work = made + more, work + multiplied
    return made, work


def _products(eqn: core.JaxprEqn) -> int:
    """Multiplications, or elements read, for each element that an equation makes."""
    shapes: list[Any] = [getattr(var.aval, "shape", ()) for var in eqn.invars]
    if eqn.primitive.name == "dot_general":
        (axes, _), _ = eqn.params["dimension_numbers"]
        return prod(shapes[0][axis] for axis in axes)
    if eqn.primitive.name == "conv_general_dilated":
        neurons = eqn.params["dimension_numbers"].rhs_spec[0]
        return prod(shapes[1]) // max(shapes[1][neurons], 1)
    return prod(eqn.params.get("window_dimensions", ()))


def tensor_value(tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor as an array. Raises `ValueError` for one that holds no plain numbers."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("a tensor lies in a file of its own, which is not read here")
    if tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        raise ValueError(f"a tensor of the shape {list(tensor.dims)} does not exist")
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "biufV" or array.dtype == object:
        raise ValueError(f"a tensor holds {array.dtype}, not numbers")
    return array


def constant(
    *,
    value: onnx.TensorProto | None = None,
    value_float: Any = None,
    value_floats: Any = None,
    value_int: Any = None,
    value_ints: Any = None,
) -> np.ndarray:
    if value is not None:
        return tensor_value(value)
    floats = value_floats if value_float is None else value_float
    if floats is not None:
        return np.asarray(floats, np.float32)
    return np.asarray(value_ints if value_int is None else value_int, np.int64)


def filled(shape: np.ndarray, *, value: onnx.TensorProto | None = None) -> np.ndarray:
    """One number many times over, which takes no memory."""
    one = np.zeros(1, np.float32) if value is None else tensor_value(value)
    return np.broadcast_to(one.reshape(()), _sizes(shape))


def shape_of(x: np.ndarray, *, start: int = 0, end: int | None = None) -> np.ndarray:
    return np.array(x.shape[start:end], np.int64)


def arange(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    count = _count(start, limit, delta)
    return (start + np.arange(count, dtype=start.dtype) * delta).reshape(-1)


def _count(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> int:
    return max(ceil((limit.item() - start.item()) / delta.item()), 0)


def _sizes(shape: np.ndarray) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape.reshape(-1))
    if any(size < 0 for size in sizes):
        raise ValueError(f"the shape {list(sizes)[:8]} does not exist")
    return sizes


def _size_of_constant(attributes: dict[str, Any]) -> int:
    (value, *_) = attributes.values()
    return prod(value.dims) if isinstance(value, onnx.TensorProto) else np.size(value)


def _gathered(attributes: dict[str, Any], x: np.ndarray, indices: np.ndarray) -> int:
    return indices.size * (x.size // max(x.shape[attributes.get("axis", 0)], 1))


CONSTANTS: dict[str, Operator] = {
    "Constant": constant,
    "ConstantOfShape": filled,
    "NonZero": plain(lambda x: np.array(np.nonzero(x))),
    "Range": plain(arange),
    "Shape": shape_of,
    "Size": plain(lambda x: np.array(x.size, np.int64)),
}
SIZES: dict[str, Callable[..., int]] = {
    "Concat": lambda attributes, *operands: sum(operand.size for operand in operands),
    "Constant": _size_of_constant,
    "ConstantOfShape": lambda attributes, shape: prod(_sizes(shape)),
    "Expand": lambda attributes, x, shape: prod(np.broadcast_shapes(x.shape, _sizes(shape))),
    "Gather": _gathered,
    "GatherElements": lambda attributes, x, indices: indices.size,
    "GatherND": lambda attributes, x, indices: (
        prod(indices.shape[:-1]) * prod(x.shape[indices.shape[-1] :])
    ),
    "NonZero": lambda attributes, x: x.size * max(x.ndim, 1),
    "Range": lambda attributes, *operands: _count(*operands),
    "Shape": lambda attributes, x: x.ndim,
    "Size": lambda attributes, x: 1,
    "Tile": lambda attributes, x, repeats: x.size * prod(_sizes(repeats)),
}
