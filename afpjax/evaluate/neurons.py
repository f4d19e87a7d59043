"""Neurons that devices share out: each answers for some, from a read copy of its own, or is gone.

A neuron that is lost gives its substitute in place of what the layer makes, after the folded bias
and batch norm and before the activation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults.bits import copy_stream
from afpjax.faults.strike import Draws
from afpjax.network.interpreter import Hook
from afpjax.network.program import LayerCall, LayerParameters


def shared_out(
    draws: Draws,
    copy: Callable[[Any, Any], Hook],
    stream: UInt32[Array, "2"] | None,
    limits: UInt32[Array, "copies columns"],
    by: Int[Array, "C"],
    substitute: Float[Array, "C"],
) -> Hook:
    """The hook of a layer whose neuron n is computed from read copy `by[n]`, or lost (-1).

    `copy(stream, limits)` is the layer on one read copy. Copies are struck independently; the first
    meets what the only copy of an undistributed layer meets.
    """

    def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
        def made(number: int) -> Array:
            own = stream if stream is None else copy_stream(stream, number)
            return copy(own, limits[number])(call, value, parameters)

        every = range(draws.copies) if draws.bits else range(1)  # or all copies are alike
        answering = call.per_output(by.reshape(call.channels))
        first = made(0)
        lost = call.per_output(substitute.reshape(call.channels)).astype(first.dtype)
        output = jnp.where(answering >= 0, first, lost)
        for number in every[1:]:
            output = jnp.where(answering == number, made(number), output)
        return output

    return hook


def by_neuron(call: LayerCall, limits: UInt32[Array, "C columns"]) -> UInt32[Array, "columns ..."]:
    """Thresholds of every neuron's weights, laid out so that each column broadcasts over them."""

    def column(each: UInt32[Array, "C"]) -> Array:
        return call.per_kernel(each.reshape(call.channels))

    return jax.vmap(column, in_axes=1)(limits)
