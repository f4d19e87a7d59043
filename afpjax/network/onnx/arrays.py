"""ONNX operators that move, repeat or choose numbers, and compute none."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from afpjax.network.onnx.elementwise import (
    Operator,
    Value,
    known,
    namespace,
    numbers,
    plain,
    refuse_unless,
)


def reshape(x: Value, shape: Any, *, allowzero: int = 0) -> Value:
    """A zero keeps the size at its place, unless `allowzero`."""
    sizes = numbers(shape, "shape")
    if not allowzero:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def chosen_axes(among: Any, axes: Sequence[int] | None) -> tuple[int, ...] | None:
    """Axes, an operand since operator set 13 and an attribute before; None where none are given."""
    if among is not None:
        return tuple(numbers(among, "axes"))
    return None if axes is None else tuple(axes)


def squeeze(x: Value, among: Any = None, *, axes: Sequence[int] | None = None) -> Value:
    return namespace(x).squeeze(x, chosen_axes(among, axes))


def unsqueeze(x: Value, among: Any = None, *, axes: Sequence[int] | None = None) -> Value:
    return namespace(x).expand_dims(x, chosen_axes(among, axes) or ())


def split(
    x: Value,
    sizes: Any = None,
    *,
    num_outputs: int,
    axis: int = 0,
    split: Sequence[int] | None = None,
) -> Sequence[Value]:
    """Into these sizes, or into equal parts of which the last may be smaller."""
    if sizes is not None or split is not None:
        parts = split if sizes is None else numbers(sizes, "sizes")
        return namespace(x).split(x, np.cumsum(np.asarray(parts))[:-1].tolist(), axis)
    whole = -(-x.shape[axis] // num_outputs)
    return namespace(x).split(x, list(range(whole, whole * num_outputs, whole)), axis)


def cut(
    x: Value,
    start: Any = None,
    end: Any = None,
    among: Any = None,
    step: Any = None,
    *,
    starts: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
) -> Value:
    """Slice: by operands, before operator set 10 by attributes."""
    low = starts if start is None else numbers(start, "start")
    high = ends if end is None else numbers(end, "end")
    if low is None or high is None:
        raise ValueError("it does not say where to start and end")
    along = chosen_axes(among, axes)
    along = range(len(low)) if along is None else along
    strides = [1] * len(low) if step is None else numbers(step, "steps")
    kept = [slice(None)] * x.ndim
    for first, last, axis, stride in zip(low, high, along, strides, strict=True):
        # Going backwards, an end before the first element is no index.
        beyond = stride < 0 and last < -x.shape[axis]
        kept[axis] = slice(first, None if beyond else last, stride)
    return x[tuple(kept)]


def pad(
    x: Value, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant"
) -> Value:
    """Pad, or cut where a number is negative; `pads` holds all beginnings, then all ends."""
    refuse_unless("mode", mode, "constant", "edge", "reflect", "wrap")
    width = np.zeros((x.ndim, 2), int)
    width[list(range(x.ndim)) if axes is None else numbers(axes, "axes")] = (
        known(pads, "padding").reshape(2, -1).T
    )
    sides = zip(width.tolist(), x.shape, strict=True)
    kept = [slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in sides]
    extra = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
    return jnp.pad(x[tuple(kept)], np.maximum(width, 0).tolist(), mode, **extra)


def _from_start(indices: Value, size: int) -> Value:
    """Negative indices count from the end."""
    return namespace(indices).where(indices < 0, indices + size, indices)


def gather(x: Value, indices: Value, *, axis: int = 0) -> Value:
    """Indices beyond the end are refused of constants, and the last one's in a network."""
    if namespace(x, indices) is np:
        return np.take(x, indices, axis)
    return jnp.take(x, _from_start(indices, x.shape[axis]), axis=axis, mode="clip")


def gather_elements(x: Value, indices: Value, *, axis: int = 0) -> Value:
    """At every place the number that lies as far along `axis` as the index says."""
    xp = namespace(x, indices)
    reach = [slice(size) for size in indices.shape]
    reach[axis] = slice(x.shape[axis])
    return xp.take_along_axis(
        xp.asarray(x)[tuple(reach)], _from_start(indices, x.shape[axis]), axis
    )


def gather_nd(x: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    """Rows of indices point into the axes behind the batch's."""
    xp = namespace(x, indices)
    leading = [
        np.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim - 1)])
        for axis, size in enumerate(x.shape[:batch_dims])
    ]
    return xp.asarray(x)[(*leading, *xp.moveaxis(indices, -1, 0))]


def scatter_nd(x: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Value:
    places = tuple(namespace(indices).moveaxis(indices, -1, 0))
    return _put(x, places, updates, reduction)


def scatter_elements(
    x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> Value:
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _from_start(indices, x.shape[axis])
    return _put(x, tuple(places), updates, reduction)


def _put(x: Value, places: tuple[Any, ...], updates: Value, reduction: str) -> Value:
    refuse_unless("reduction", reduction, "none", "add", "mul", "max", "min")
    if namespace(x, updates, *places) is jnp:
        at = jnp.asarray(x).at[places]
        ways = {"none": at.set, "add": at.add, "mul": at.multiply, "max": at.max, "min": at.min}
        return ways[reduction](updates)
    made = x.copy()
    functions = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
    if reduction in functions:
        functions[reduction].at(made, places, updates)
    else:
        made[places] = updates
    return made


def one_hot(indices: Value, depth: Any, values: Value, *, axis: int = -1) -> Value:
    """`values` holds the number for every other place, then the one for the index's."""
    size = int(known(depth, "depth").item())
    axis %= indices.ndim + 1
    places = jnp.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    wanted = jnp.expand_dims(_from_start(indices, size), axis)
    return jnp.where(places == wanted.astype(places.dtype), values[1], values[0])


def triangle(x: Value, k: Any = None, *, upper: int = 1) -> Value:
    diagonal = 0 if k is None else int(known(k, "diagonal").item())
    return getattr(namespace(x), "triu" if upper else "tril")(x, diagonal)


def space_to_depth(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Move blocks of pixels into channels: block first ("DCR"), or channel first ("CRD")."""
    refuse_unless("mode", mode, "DCR", "CRD")
    batch, channels, rows, columns = x.shape
    y = x.reshape(batch, channels, rows // blocksize, blocksize, columns // blocksize, blocksize)
    y = y.transpose((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return y.reshape(batch, -1, rows // blocksize, columns // blocksize)


def depth_to_space(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """Move channels into blocks of pixels, the inverse of `space_to_depth`."""
    refuse_unless("mode", mode, "DCR", "CRD")
    batch, channels, rows, columns = x.shape
    kept = channels // blocksize**2
    split_up = (blocksize, blocksize, kept) if mode == "DCR" else (kept, blocksize, blocksize)
    y = x.reshape(batch, *split_up, rows, columns)
    y = y.transpose((0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3))
    return y.reshape(batch, kept, rows * blocksize, columns * blocksize)


NUMPY: dict[str, Operator] = {
    "Concat": lambda *operands, axis: namespace(*operands).concatenate(operands, axis),
    "Expand": plain(  # against a shape, which may be the smaller one
        lambda x, shape: namespace(x).broadcast_to(
            x, np.broadcast_shapes(x.shape, tuple(numbers(shape, "shape")))
        )
    ),
    "Flatten": lambda x, *, axis=1: x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:])),
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Reshape": reshape,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Slice": cut,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": plain(lambda x, repeats: namespace(x).tile(x, numbers(repeats, "repeats"))),
    "Transpose": lambda x, *, perm=None: namespace(x).transpose(x, perm),
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
JAX: dict[str, Operator] = {
    "DepthToSpace": depth_to_space,
    "OneHot": one_hot,
    "Pad": pad,
    "SpaceToDepth": space_to_depth,
}
