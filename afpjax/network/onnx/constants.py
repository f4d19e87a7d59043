"""What a graph computes from its own tensors and shapes, in NumPy's 64-bit integers.

Every operator says how many elements it will make before it makes them, so that no file, however
small, fills memory: `Room` is what all of them together may make and read.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from math import ceil, prod
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

Attributes = Mapping[str, Any]
Arrays = Sequence[np.ndarray]


class Constant(NamedTuple):
    """An operator on NumPy arrays (None where an optional operand is left out).

    Both take the node's attributes and its operands: `size` gives the elements that `run` will
    make, from the operands' shapes and the settings among them.
    """

    size: Callable[..., int]
    run: Callable[..., Any]


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


def worked_out(
    constant: Constant, attributes: Attributes, operands: Sequence[np.ndarray | None], room: Room
) -> list[np.ndarray]:
    """A node's outputs. Raises `ValueError` where `room` does not suffice."""
    present = [each for each in operands if each is not None]
    narrow = any(each.dtype.itemsize <= 4 for each in present) or "value" in attributes
    elements = int(constant.size(attributes, *operands))
    if constant.run is _filled:
        room.repeat(elements)
    else:
        room.take(elements, 4 if narrow else 8, sum(each.size for each in present))
    with np.errstate(all="ignore"):
        made = constant.run(attributes, *operands)
    return [np.asarray(each) for each in (made if isinstance(made, list | tuple) else [made])]


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


def _largest(attributes: Attributes, *operands: np.ndarray | None) -> int:
    """No more than the operands together."""
    return sum(each.size for each in operands if each is not None)


def _broadcast(attributes: Attributes, *operands: np.ndarray | None) -> int:
    present = [each.shape for each in operands if each is not None]
    return prod(np.broadcast_shapes(*present))


def _elementwise(function: Callable[..., Any]) -> Constant:
    return Constant(_broadcast, lambda attributes, *operands: function(*operands))


def _variadic(function: Callable[[Any, Any], Any]) -> Constant:
    return Constant(_broadcast, lambda attributes, *operands: reduce(function, operands))


def _divided(a: np.ndarray, b: np.ndarray) -> Any:
    """Integers are cut towards zero."""
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise ValueError("it divides by zero")
    quotient = np.abs(a) // np.abs(b)
    return (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)


def _modulo(attributes: Attributes, a: np.ndarray, b: np.ndarray) -> Any:
    if a.dtype.kind != "f" and not np.all(b):
        raise ValueError("it divides by zero")
    return (np.fmod if attributes.get("fmod", 0) else np.mod)(a, b)


def _cast(attributes: Attributes, x: np.ndarray, like: np.ndarray | None = None) -> Any:
    if like is not None:
        return x.astype(like.dtype)
    wanted = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    if wanted.kind not in "biufV":
        raise ValueError(f"it makes {wanted} of numbers")
    return x.astype(wanted)


def _constant(attributes: Attributes) -> Any:
    (name, value), *_ = attributes.items()
    if name == "value":
        return tensor_value(value)
    kinds = {"value_float": np.float32, "value_floats": np.float32}
    kinds |= {"value_int": np.int64, "value_ints": np.int64}
    if name not in kinds:
        raise ValueError(f"its value is a {name.removeprefix('value_')}, no number")
    return np.asarray(value, kinds[name])


def _constant_size(attributes: Attributes) -> int:
    (value, *_) = attributes.values()
    return prod(value.dims) if isinstance(value, onnx.TensorProto) else np.size(value)


def _filled(attributes: Attributes, shape: np.ndarray) -> Any:
    value = attributes.get("value")
    one = np.zeros(1, np.float32) if value is None else tensor_value(value)
    return np.broadcast_to(one.reshape(()), _sizes(shape))


def _sizes(shape: np.ndarray) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape.reshape(-1))
    if any(size < 0 for size in sizes):
        raise ValueError(f"the shape {list(sizes)[:8]} does not exist")
    return sizes


def _expanded_shape(x: np.ndarray, shape: np.ndarray) -> tuple[int, ...]:
    return np.broadcast_shapes(x.shape, _sizes(shape))


def _count(attributes: Attributes, start: Any, limit: Any, delta: Any) -> int:
    span, step = limit.item() - start.item(), delta.item()
    return max(ceil(span / step), 0)


def _arange(attributes: Attributes, start: Any, limit: Any, delta: Any) -> Any:
    count = _count(attributes, start, limit, delta)
    return (start + np.arange(count, dtype=start.dtype) * delta).reshape(-1)


def _taken(attributes: Attributes, x: np.ndarray, indices: np.ndarray) -> int:
    axis = attributes.get("axis", 0)
    return indices.size * (x.size // max(x.shape[axis], 1))


def _gather_elements(attributes: Attributes, x: np.ndarray, indices: np.ndarray) -> Any:
    axis = attributes.get("axis", 0)
    return np.take_along_axis(x, indices, axis)


def _gather_nd(attributes: Attributes, x: np.ndarray, indices: np.ndarray) -> Any:
    if attributes.get("batch_dims", 0):
        raise ValueError("batch_dims are not supported here")
    return x[tuple(np.moveaxis(indices, -1, 0))]


def _gather_nd_size(attributes: Attributes, x: np.ndarray, indices: np.ndarray) -> int:
    depth = indices.shape[-1]
    return prod(indices.shape[:-1]) * prod(x.shape[depth:])


def _slice(
    attributes: Attributes,
    x: np.ndarray,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Any:
    lists = [
        attributes.get(name) if each is None else each.reshape(-1).tolist()
        for name, each in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps))
    ]
    return x[slices(x.shape, *lists)]


def slices(
    shape: Sequence[int],
    starts: Any,
    ends: Any,
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> tuple[slice, ...]:
    """What a Slice keeps of an array of this shape, by axis."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    chosen = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Going backwards, an end before the first element is no index.
        end = None if step < 0 and end < -shape[axis] else end
        chosen[axis] = slice(start, end, step)
    return tuple(chosen)


def _axes(attributes: Attributes, axes: Any) -> tuple[int, ...] | None:
    axes = attributes.get("axes") if axes is None else np.asarray(axes).reshape(-1)
    return None if axes is None else tuple(int(axis) for axis in axes)


def _squeeze(attributes: Attributes, x: np.ndarray, axes: Any = None) -> Any:
    return np.squeeze(x, _axes(attributes, axes))


def _unsqueeze(attributes: Attributes, x: np.ndarray, axes: Any = None) -> Any:
    return np.expand_dims(x, _axes(attributes, axes) or ())


def _reshape(attributes: Attributes, x: np.ndarray, shape: np.ndarray) -> Any:
    sizes = [int(size) for size in shape.reshape(-1)]
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(attributes: Attributes, x: np.ndarray) -> Any:
    axis = attributes.get("axis", 1)
    return x.reshape(prod(x.shape[:axis]), -1)


def _transpose(attributes: Attributes, x: np.ndarray) -> Any:
    return x.transpose(attributes.get("perm"))


def _split(attributes: Attributes, x: np.ndarray, sizes: Any = None) -> list[np.ndarray]:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split") if sizes is None else sizes.reshape(-1).tolist()
    if sizes is None:
        count = attributes["num_outputs"]
        whole = -(-x.shape[axis] // count)
        return np.split(x, range(whole, whole * count, whole), axis)
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)


def _reduction(function: Callable[..., Any]) -> Constant:
    def run(attributes: Attributes, x: np.ndarray, axes: Any = None) -> Any:
        over = _axes(attributes, axes)
        if not over and attributes.get("noop_with_empty_axes", 0):
            return x
        keep = bool(attributes.get("keepdims", 1))
        return function(x, axis=over or None, keepdims=keep).astype(x.dtype)

    return Constant(lambda attributes, x, axes=None: 1, run)


def _chosen(function: Callable[..., Any]) -> Constant:
    """ArgMax and ArgMin: the first of equals, or the last where asked."""

    def run(attributes: Attributes, x: np.ndarray) -> Any:
        axis, last = attributes.get("axis", 0), attributes.get("select_last_index", 0)
        found = function(np.flip(x, axis) if last else x, axis=axis)
        found = x.shape[axis] - 1 - found if last else found
        return np.expand_dims(found, axis) if attributes.get("keepdims", 1) else found

    return Constant(lambda attributes, x: x.size, run)


def _cumulated(attributes: Attributes, x: np.ndarray, axis: np.ndarray) -> Any:
    if attributes.get("exclusive", 0) or attributes.get("reverse", 0):
        raise ValueError("exclusive and reversed sums are not supported here")
    return np.cumsum(x, int(axis.item()), x.dtype)


def _triangle(attributes: Attributes, x: np.ndarray, k: Any = None) -> Any:
    return (np.triu if attributes.get("upper", 1) else np.tril)(x, 0 if k is None else int(k))


def _scatter_nd(attributes: Attributes, x: np.ndarray, indices: Any, updates: Any) -> Any:
    if attributes.get("reduction", "none") != "none":
        raise ValueError("only plain scattering is supported here")
    made = x.copy()
    made[tuple(np.moveaxis(indices, -1, 0))] = updates
    return made


def _scatter(attributes: Attributes, x: np.ndarray, indices: Any, updates: Any) -> Any:
    if attributes.get("reduction", "none") != "none":
        raise ValueError("only plain scattering is supported here")
    made = x.copy()
    np.put_along_axis(made, indices, updates, attributes.get("axis", 0))
    return made


def _tiled(attributes: Attributes, x: np.ndarray, repeats: np.ndarray) -> int:
    return x.size * prod(_sizes(repeats))


def per_axis(array: Any, attributes: Attributes, shape: tuple[int, ...]) -> Any:
    """A scale or zero point, laid out to broadcast against what it quantises.

    One for all, one for each place along `axis`, or one for each block of `block_size` along it.
    """
    if array.size == 1:
        return array.reshape(())
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if block:
        return array.repeat(block, axis)[tuple(slice(size) for size in shape)]
    return array.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


def _dequantised(
    attributes: Attributes, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None
) -> Any:
    codes = x.astype(np.float64)
    if zero is not None:
        codes = codes - per_axis(zero, attributes, x.shape).astype(np.float64)
    # The difference is exact, the product rounds once: as in float32.
    return codes.astype(np.float32) * per_axis(scale, attributes, x.shape).astype(np.float32)


def code_range(zero: Any, attributes: Attributes) -> tuple[float, float, np.dtype]:
    """The least and the largest code that QuantizeLinear makes, and their dtype."""
    kind = attributes.get("output_dtype", 0)
    dtype = np.dtype(np.uint8) if zero is None else np.dtype(zero.dtype)
    if zero is None and kind:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    try:
        ends = ml_dtypes.iinfo(dtype)
    except ValueError:
        raise ValueError(f"codes of {dtype} are not supported, only integers") from None
    return float(ends.min), float(ends.max), dtype


def _quantised(
    attributes: Attributes, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None
) -> Any:
    low, high, dtype = code_range(zero, attributes)
    codes = np.rint(x.astype(np.float32) / per_axis(scale, attributes, x.shape))
    if zero is not None:
        codes = codes + per_axis(zero, attributes, x.shape).astype(np.float32)
    return np.clip(codes, low, high).astype(dtype)


CONSTANTS: dict[str, Constant] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "ArgMax": _chosen(np.argmax),
    "ArgMin": _chosen(np.argmin),
    "Cast": Constant(_largest, _cast),
    "CastLike": Constant(_largest, _cast),
    "Ceil": _elementwise(np.ceil),
    "Clip": Constant(
        _broadcast,
        lambda attributes, x, low=None, high=None: np.clip(x, low, high) if x.size else x,
    ),
    "Concat": Constant(
        _largest, lambda attributes, *operands: np.concatenate(operands, attributes["axis"])
    ),
    "Constant": Constant(_constant_size, _constant),
    "ConstantOfShape": Constant(lambda attributes, shape: prod(_sizes(shape)), _filled),
    "Cos": _elementwise(np.cos),
    "CumSum": Constant(_largest, _cumulated),
    "DequantizeLinear": Constant(lambda attributes, x, *others: x.size, _dequantised),
    "Div": _elementwise(_divided),
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": Constant(
        lambda attributes, x, shape: prod(_expanded_shape(x, shape)),
        lambda attributes, x, shape: np.broadcast_to(x, _expanded_shape(x, shape)),
    ),
    "Flatten": Constant(_largest, _flatten),
    "Floor": _elementwise(np.floor),
    "Gather": Constant(
        _taken, lambda attributes, x, indices: np.take(x, indices, attributes.get("axis", 0))
    ),
    "GatherElements": Constant(lambda attributes, x, indices: indices.size, _gather_elements),
    "GatherND": Constant(_gather_nd_size, _gather_nd),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": _elementwise(np.asarray),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Log": _elementwise(np.log),
    "Max": _variadic(np.maximum),
    "Min": _variadic(np.minimum),
    "Mod": Constant(_broadcast, _modulo),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "NonZero": Constant(
        lambda attributes, x: x.size * max(x.ndim, 1), lambda attributes, x: np.array(np.nonzero(x))
    ),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(lambda x, y: np.power(x, y).astype(x.dtype)),
    "QuantizeLinear": Constant(lambda attributes, x, *others: x.size, _quantised),
    "Range": Constant(_count, _arange),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Reshape": Constant(lambda attributes, x, shape: x.size, _reshape),
    "Round": _elementwise(np.rint),
    "ScatterElements": Constant(_largest, _scatter),
    "ScatterND": Constant(_largest, _scatter_nd),
    "Shape": Constant(
        lambda attributes, x: x.ndim,
        lambda attributes, x: np.array(
            x.shape[attributes.get("start", 0) : attributes.get("end", x.ndim)], np.int64
        ),
    ),
    "Sign": _elementwise(np.sign),
    "Sin": _elementwise(np.sin),
    "Size": Constant(lambda attributes, x: 1, lambda attributes, x: np.array(x.size, np.int64)),
    "Slice": Constant(_largest, _slice),
    "Split": Constant(_largest, _split),
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": Constant(_largest, _squeeze),
    "Sub": _elementwise(np.subtract),
    "Sum": _variadic(np.add),
    "Tile": Constant(_tiled, lambda attributes, x, repeats: np.tile(x, tuple(_sizes(repeats)))),
    "Transpose": Constant(_largest, _transpose),
    "Trilu": Constant(lambda attributes, x, k=None: x.size, _triangle),
    "Unsqueeze": Constant(_largest, _unsqueeze),
    "Where": _elementwise(np.where),
    "Xor": _elementwise(np.logical_xor),
}
