"""ONNX operators that move, repeat or choose numbers, and compute none."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from afpjax.network.onnx.constants import slices
from afpjax.network.onnx.elementwise import Operator, Value, known, plain, refuse_unless


def numbers(value: Any, what: str) -> list[int]:
    """A list among the operands: a shape, axes. Raises `ValueError` as `known`."""
    return [int(each) for each in known(value, what).reshape(-1)]


def concat(*operands: Value, axis: int) -> Value:
    return jnp.concatenate(operands, axis)


def expand(x: Value, shape: Any) -> Value:
    """Broadcast against a shape, which may be the smaller one."""
    return jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(numbers(shape, "shape"))))


def reshape(x: Value, shape: Any, *, allowzero: int = 0) -> Value:
    """A zero keeps the size at its place, unless `allowzero`."""
    sizes = numbers(shape, "shape")
    if not allowzero:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(x: Value, *, axis: int = 1) -> Value:
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def transpose(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    return jnp.transpose(x, perm)


def squeeze(x: Value, axes: Any = None) -> Value:
    return jnp.squeeze(x, None if axes is None else tuple(numbers(axes, "axes")))


def unsqueeze(x: Value, axes: Any) -> Value:
    return jnp.expand_dims(x, tuple(numbers(axes, "axes")))


def split(x: Value, sizes: Any = None, *, num_outputs: int, axis: int = 0) -> Sequence[Value]:
    """Into these sizes, or into equal parts of which the last may be smaller."""
    if sizes is not None:
        ends = np.cumsum(numbers(sizes, "sizes"))[:-1].tolist()
    else:
        whole = -(-x.shape[axis] // num_outputs)
        ends = list(range(whole, whole * num_outputs, whole))
    return jnp.split(jnp.asarray(x), ends, axis)


def cut(x: Value, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Value:
    lists = [
        None if each is None else numbers(each, what)
        for each, what in ((starts, "start"), (ends, "end"), (axes, "axes"), (steps, "steps"))
    ]
    return x[slices(x.shape, *lists)]


def tile(x: Value, repeats: Any) -> Value:
    return jnp.tile(x, numbers(repeats, "repeats"))


def pad(
    x: Value, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant"
) -> Value:
    """Pad, or cut where a number is negative; `pads` holds all beginnings, then all ends."""
    refuse_unless("mode", mode, "constant", "edge", "reflect", "wrap")
    width = np.zeros((x.ndim, 2), int)
    chosen = list(range(x.ndim)) if axes is None else numbers(axes, "axes")
    width[chosen] = known(pads, "padding").reshape(2, -1).T
    sides = zip(width.tolist(), x.shape, strict=True)
    kept = [slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in sides]
    extra = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
    return jnp.pad(x[tuple(kept)], np.maximum(width, 0).tolist(), mode, **extra)


def _from_start(indices: Value, size: int) -> Value:
    """Negative indices count from the end."""
    return jnp.where(indices < 0, indices + size, indices)


def gather(x: Value, indices: Value, *, axis: int = 0) -> Value:
    return jnp.take(x, _from_start(indices, x.shape[axis]), axis=axis, mode="clip")


def gather_elements(x: Value, indices: Value, *, axis: int = 0) -> Value:
    """At every place the number that lies as far along `axis` as the index says."""
    return jnp.take_along_axis(
        jnp.asarray(x)[_corner(x, indices, axis)], _from_start(indices, x.shape[axis]), axis
    )


def _corner(x: Value, indices: Value, axis: int) -> tuple[slice, ...]:
    """What indices of a smaller shape reach: all along `axis`, else the first places."""
    reach = [slice(size) for size in indices.shape]
    reach[axis] = slice(x.shape[axis])
    return tuple(reach)


def gather_nd(x: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    """Rows of indices point into the axes behind the batch's."""
    x, indices = jnp.asarray(x), jnp.asarray(indices)
    leading = [
        jnp.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim - 1)])
        for axis, size in enumerate(x.shape[:batch_dims])
    ]
    return x[(*leading, *jnp.moveaxis(indices, -1, 0))]


def scatter_nd(x: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Value:
    places = tuple(jnp.moveaxis(jnp.asarray(indices), -1, 0))
    return _put(x, places, updates, reduction)


def scatter_elements(
    x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
) -> Value:
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _from_start(indices, x.shape[axis])
    return _put(x, tuple(places), updates, reduction)


def _put(x: Value, places: tuple[Any, ...], updates: Value, reduction: str) -> Value:
    refuse_unless("reduction", reduction, "none", "add", "mul", "max", "min")
    at = jnp.asarray(x).at[places]
    ways = {"none": at.set, "add": at.add, "mul": at.multiply, "max": at.max, "min": at.min}
    return ways[reduction](updates)


def one_hot(indices: Value, depth: Any, values: Value, *, axis: int = -1) -> Value:
    """`values` holds the number for every other place, then the one for the index's."""
    size = int(known(depth, "depth").item())
    axis %= indices.ndim + 1
    places = jnp.arange(size).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    wanted = jnp.expand_dims(_from_start(indices, size), axis)
    return jnp.where(places == wanted.astype(places.dtype), values[1], values[0])


def triangle(x: Value, k: Any = None, *, upper: int = 1) -> Value:
    diagonal = 0 if k is None else int(known(k, "diagonal").item())
    return (jnp.triu if upper else jnp.tril)(x, diagonal)


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


OPERATORS: dict[str, Operator] = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": plain(expand),
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Pad": pad,
    "Reshape": reshape,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Slice": cut,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
