"""What one weight multiplies: the inputs that a layer reads with it, output by output.

A layer's sums are linear in its kernel. Where one weight w at a time changes to w', a sum T of its
neuron becomes (T - w·x) + w'·x, with x the input that the weight meets there: as many products as
the neuron has outputs, where the layer has as many for each of its weights. In codes, as float32:
the first difference is the sum of the other products, so both steps are exact, and what comes out
is the sum with w', bit for bit, where Σ|x·w| and Σ|x·w'| are at most 2^24 (`quantized.py`); beyond,
two roundings more.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt32

from afpjax.network.program import LayerCall


def has_taps(call: LayerCall) -> bool:
    """Whether `exchange` knows the layer: a matrix product, or a convolution of one batch."""
    return call.params.get("batch_group_count", 1) == 1


def exchange(
    call: LayerCall,
    codes: Float[Array, "..."],
    total: Float[Array, "..."],
    element: UInt32[Array, ""],
    old: Float[Array, ""],
    new: Float[Array, ""],
) -> Float[Array, "..."]:
    """A layer's sums `total` of `codes` with weight `element` (row-major) `new` in place of `old`.

    An element beyond the kernel must have equal `old` and `new`.
    """
    place = _coordinates(element, call.layer.kernel_shape)
    convolves = call.primitive.name == "conv_general_dilated"
    meet = _of_convolution if convolves else _of_product
    inputs, own = meet(call, codes, place, total.shape)
    # A gather of few numbers, read by all neurons: made once, not in the pass over all outputs.
    inputs = lax.optimization_barrier(inputs)
    nothing = jnp.zeros((), total.dtype)
    without = total - jnp.where(own, old * inputs, nothing)
    return without + jnp.where(own, new * inputs, nothing)


def _coordinates(element: UInt32[Array, ""], shape: Sequence[int]) -> list[Int32[Array, ""]]:
    place, rest = [], element.astype(jnp.int32)
    for size in reversed(shape):
        place.append(rest % size)
        rest = rest // size
    return place[::-1]


def _at(axes: dict[int, Any], shape: Sequence[int]) -> Bool[Array, "..."]:
    """Where an array of a shape has these coordinates on some of its axes; the others are 1."""
    own: Any = jnp.ones((1,) * len(shape), bool)
    for axis, place in axes.items():
        wide = [size if n == axis else 1 for n, size in enumerate(shape)]
        own = own & (lax.broadcasted_iota(jnp.int32, wide, axis) == place)
    return own


def _of_convolution(
    call: LayerCall, image: Array, place: Sequence[Array], shape: Sequence[int]
) -> tuple[Array, Array]:
    params, numbers = call.params, call.params["dimension_numbers"]
    neuron, channel, *taps = (place[axis] for axis in numbers.rhs_spec)
    neurons, channels, *_ = (call.layer.kernel_shape[axis] for axis in numbers.rhs_spec)
    channel = neuron // (neurons // params["feature_group_count"]) * channels + channel
    batch, feature, *spatial = numbers.lhs_spec
    padding = [(0, 0, 0)] * image.ndim
    start: list[Any] = [jnp.int32(0)] * image.ndim
    size, strides = list(image.shape), [1] * image.ndim
    start[feature], size[feature] = channel, 1
    every = (spatial, params["padding"], params["lhs_dilation"], taps, params["rhs_dilation"])
    outputs = [shape[axis] for axis in numbers.out_spec[2:]]
    for (axis, (low, high), apart, tap, dilation), stride, count in zip(
        zip(*every, strict=True), params["window_strides"], outputs, strict=True
    ):
        padding[axis] = low, high, apart - 1
        start[axis], strides[axis] = tap * dilation, stride
        size[axis] = (count - 1) * stride + 1
    padded = lax.pad(image, jnp.zeros((), image.dtype), padding)
    inputs = lax.slice(lax.dynamic_slice(padded, start, size), [0] * len(size), size, strides)
    order = [0] * image.ndim
    for read, written in zip((batch, feature, *spatial), numbers.out_spec, strict=True):
        order[written] = read
    return jnp.transpose(inputs, order), _at({numbers.out_spec[1]: neuron}, shape)


def _of_product(
    call: LayerCall, image: Array, place: Sequence[Array], shape: Sequence[int]
) -> tuple[Array, Array]:
    contracted, batched = call.params["dimension_numbers"]
    of_kernel = call.kernel_operand
    of_image = 1 - of_kernel
    start: list[Any] = [jnp.int32(0)] * image.ndim
    size = list(image.shape)
    for pairs in (contracted, batched):
        for read, weight in zip(pairs[of_image], pairs[of_kernel], strict=True):
            start[read], size[read] = place[weight], 1
    inputs = lax.dynamic_slice(image, start, size)
    fixed = {*contracted[of_image], *batched[of_image]}
    kept = [length for axis, length in enumerate(image.shape) if axis not in fixed]
    taken = {*contracted[of_kernel], *batched[of_kernel]}
    neurons = [axis for axis in range(len(place)) if axis not in taken]
    first = len(batched[0])
    at = {axis: place[weight] for axis, weight in enumerate(batched[of_kernel])}
    # Free axes stand in the order of the operands.
    before = first + (len(kept) if of_kernel == 1 else 0)
    at |= {before + number: place[weight] for number, weight in enumerate(neurons)}
    ones = [1] * len(neurons)
    free = [*kept, *ones] if of_kernel == 1 else [*ones, *kept]
    return inputs.reshape([1] * first + free), _at(at, shape)
