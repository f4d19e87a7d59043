"""A budget of flips: at most B in the whole model, drawn without replacement."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults import bits
from afpjax.faults.spec import FaultSpec, Thresholds, keepers
from afpjax.network.layers import Layer


class WithinBudget(NamedTuple):
    """Thresholds within the budget: the weights' for the trial, the activations' per image."""

    weights: UInt32[Array, "L columns"]
    of_image: Callable[[Array], UInt32[Array, "L columns"]]


def within_budget(
    spec: FaultSpec, layers: Sequence[Layer], thresholds: Thresholds, seed: Array, trial: Array
) -> WithinBudget:
    """Scale all thresholds down by the one factor that keeps the flips within the budget.

    A site flips when its uniform u is below its rate p, so keeping those with u < c·p keeps a
    uniformly chosen subset, without replacement. The largest such c (to 2^-31) is found by
    bisection on the count of flips. The budget is split between weights and activations in
    proportion to their expected flips, so that neither depends on the batch of images.
    """
    weights, inputs = jnp.asarray(thresholds.weights), jnp.asarray(thresholds.activations)
    if spec.budget is None:
        return WithinBudget(weights, lambda _: inputs)
    expected = [
        _expected(spec, once(spec, layers, weights), [layer.weights for layer in layers]),
        _expected(spec, inputs, [layer.inputs for layer in layers]),
    ]
    share = expected[0] / jnp.maximum(expected[0] + expected[1], 1e-30)
    for_weights = jnp.round(share * spec.budget).astype(jnp.int32)

    def count(target: int, shapes: Sequence[tuple[int, ...]], image: Array | None = None):
        streams = bits.streams(seed, trial, len(shapes), target, image)

        def flips(scaled: Array) -> Int[Array, ""]:
            total = jnp.zeros((), jnp.int32)
            for number, shape in enumerate(shapes):
                total += bits.count_flips(
                    streams[number], shape, spec.bits, scaled[number], generator=spec.generator
                )
            return total

        return flips

    of_kernels = count(bits.WEIGHTS, [layer.kernel_shape for layer in layers])

    def kernels(scaled: Array) -> Int[Array, ""]:
        return of_kernels(once(spec, layers, scaled))

    budget = jnp.int32(spec.budget) - for_weights

    def of_image(image: Array) -> Array:
        read = count(bits.ACTIVATIONS, [layer.input_shape for layer in layers], image)
        return _largest_within(spec, read, inputs, budget)

    return WithinBudget(_largest_within(spec, kernels, weights, for_weights), of_image)


def once(
    spec: FaultSpec, layers: Sequence[Layer], thresholds: UInt32[Array, "L columns"]
) -> UInt32[Array, "L columns"]:
    """Thresholds of weights as they are to be counted: each stored bit once.

    A kernel that several calls share counts for the first of them, at the highest of their
    thresholds (lower ones strike a part of the same bits), and not for the others.
    """
    own = keepers(spec.shared, layers)
    if own.tolist() == list(range(len(layers))):
        return thresholds
    none = jnp.zeros_like(thresholds[0])
    return jnp.stack(
        [
            _highest(spec, thresholds[np.flatnonzero(own == number)])
            if own[number] == number
            else none
            for number in range(len(layers))
        ]
    )


def _highest(spec: FaultSpec, thresholds: UInt32[Array, "N columns"]) -> UInt32[Array, "columns"]:
    """The highest of thresholds, of one word or of two."""
    if not spec.rare:
        return thresholds.max(axis=0)
    first, second = jnp.split(thresholds, 2, axis=1)
    highest = first.max(axis=0)
    rest = jnp.where(first == highest[None], second, jnp.zeros((), jnp.uint32)).max(axis=0)
    return jnp.concatenate([highest, rest])


def rows_within_budget(
    spec: FaultSpec,
    layers: tuple[Layer, ...],
    thresholds: Thresholds,
    seed: Array,
    trials: UInt32[np.ndarray, "R"],
    images: int,
) -> tuple[UInt32[np.ndarray, "R L columns"], UInt32[np.ndarray, "R B L columns"]]:
    """Thresholds [R, L, columns] in the budget: weights' in each row's trial, images' reads'."""
    made = [
        _scaled(spec, layers, images, Thresholds(weights, inputs), seed, trial)
        for weights, inputs, trial in zip(*thresholds[:2], trials, strict=True)
    ]
    weights, inputs = (
        np.stack([np.asarray(each) for each in part]) for part in zip(*made, strict=True)
    )
    return weights, inputs


@partial(jax.jit, static_argnums=(0, 1, 2))
def _scaled(
    spec: FaultSpec,
    layers: tuple[Layer, ...],
    images: int,
    thresholds: Thresholds,
    seed: Array,
    trial: Array,
) -> tuple[Array, Array]:
    scaled = within_budget(spec, layers, thresholds, seed, trial)
    return scaled.weights, lax.map(scaled.of_image, jnp.arange(images, dtype=jnp.uint32))


def _expected(
    spec: FaultSpec, thresholds: UInt32[Array, "L columns"], sites: Sequence[int]
) -> Float[Array, ""]:
    rates = thresholds.astype(jnp.float32) / 2.0**31
    if spec.rare:
        first, second = jnp.split(rates, 2, axis=1)
        rates = first + second / 2.0**32
    return (rates.sum(axis=1) * jnp.asarray(sites, jnp.float32)).sum()


def _largest_within(
    spec: FaultSpec,
    count: Callable[[Array], Array],
    thresholds: UInt32[Array, "L columns"],
    budget: Array,
) -> UInt32[Array, "L columns"]:
    """`thresholds` scaled by the largest factor/2^31 whose count of flips is within the budget."""
    scaled = scale_both if spec.rare else scale

    def fits(factor: Array) -> Array:
        return count(scaled(thresholds, factor)) <= budget

    def halve(bit: Array, factor: Array) -> Array:
        higher = factor | (jnp.uint32(1) << (jnp.uint32(30) - bit.astype(jnp.uint32)))
        return jnp.where(fits(higher), higher, factor)

    whole = jnp.uint32(2**31)
    factor = lax.fori_loop(0, 31, halve, jnp.uint32(0))
    return scaled(thresholds, jnp.where(fits(whole), whole, factor))


def scale(thresholds: UInt32[Array, "*N"], factor: UInt32[Array, "*_"]) -> UInt32[Array, "*N"]:
    """thresholds · factor / 2^31, rounded down."""
    high, rest = _product(thresholds, factor)
    return (high << jnp.uint32(1)) | (rest >> jnp.uint32(31))


def scale_both(
    thresholds: UInt32[Array, "... columns"], factor: UInt32[Array, ""]
) -> UInt32[Array, "... columns"]:
    """The same for thresholds of two words (`bits.threshold`): 63 bits by 31, in words of 32."""
    first, second = jnp.split(thresholds, 2, axis=-1)
    (high, middle), (carried, low) = _product(first, factor), _product(second, factor)
    middle = middle + carried
    high = high + (middle < carried).astype(jnp.uint32)
    one, most = jnp.uint32(1), jnp.uint32(31)
    whole, rest = (high << one) | (middle >> most), (middle << one) | (low >> most)
    return jnp.concatenate([whole, rest], axis=-1)


def _product(
    thresholds: UInt32[Array, "*N"], factor: UInt32[Array, "*_"]
) -> tuple[UInt32[Array, "*N"], UInt32[Array, "*N"]]:
    """thresholds · factor as two words, the high one first: from 16-bit halves, no 64-bit product.

    `factor` is at most 2^31.
    """
    half = jnp.uint32(16)
    low = jnp.uint32(0xFFFF)
    a1, a0 = thresholds >> half, thresholds & low
    b1, b0 = factor >> half, factor & low
    cross = a1 * b0 + ((a0 * b0) >> half)  # < 2^32: a1, b0 < 2^16
    middle = a0 * b1 + (cross & low)  # < 2^32: b1 <= 2^15
    high = a1 * b1 + (cross >> half) + (middle >> half)
    rest = ((middle & low) << half) | ((a0 * b0) & low)
    return high, rest
