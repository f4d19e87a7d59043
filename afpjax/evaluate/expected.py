"""The expected metric under bit flips, with gradients by the flips' rates and by the parameters.

Masks are drawn at the rates, as everywhere, so what a mask does to the metric m is exact; how often
it is drawn is what rates change. With P the probability of a trial's mask,

    d E[m] / d rate = E[(m - b) · d log P / d rate],    log P = sum k log r + (n - k) log(1 - r)

for k of n bits flipped at the rate r (Williams, Machine Learning 8, 1992). The baseline b of an
image is the mean of its other trials (leave one out: Kool, van Hoof and Welling, 2019), so the
estimate is unbiased. A mask of activations concerns its own image alone, one of weights all of
them. Gradients by parameters and images pass straight through rounding, as in `Quantized`. Written
as a sum whose second part is 0 in value, so that `jax.grad`, `jit` and `vmap` need no rule:

    m + stop(m - b) · (log P - stop(log P))
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Float, Int, Num

from afpjax.faults import bits as draws
from afpjax.faults.inject import logits_of_trial
from afpjax.faults.spec import FaultSpec, Thresholds, keepers
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized, encoded

#: (logits [B, classes], targets) -> a number for each image [B], float32.
OfImages = Callable[[Array, Any], Float[Array, " B"]]


def expected_metric(
    metric: OfImages,
    quantized: Quantized,
    images: Num[Any, "B ..."],
    targets: Any,
    *,
    weight_rate: Any = 0.0,
    activation_rate: Any = 0.0,
    bits: Sequence[int] = (0, 1, 2, 3),
    key: Any = 0,
    trials: int = 32,
) -> Float[Array, ""]:
    """Mean of a metric over images and fault draws; differentiable by the rates.

    `metric(logits, targets)` gives a number for each image, float32 [B]; `targets` is whatever it
    takes. Rates are probabilities per bit, each one number, or [L] of the layers, or [L, bits] (0
    the first of `bits`); they may be traced: rates of devices are `rates[mapping]`, and what a
    protection leaves is a product. Masks are those of `Quantized(..., trial=k)` for k below
    `trials`, at least 2. A rate of exactly 0 or 1 gives no gradient (no mask shows what would
    change). The gradient's standard error falls with the root of `trials`, and grows with the
    number of bits that rates are of. Raises `InputError` for bits that the format does not have,
    layers that share a stored kernel, and shapes that do not fit.
    """
    layers, width = quantized.layers, quantized.format.width
    checks.whole("trials", trials, 2)
    faulty = tuple(checks.whole("bits", bit, 0, width - 1) for bit in bits)
    if not faulty or len(set(faulty)) < len(faulty):
        raise InputError(f"bits: {list(bits)} must be distinct positions, and one at least")
    if len(set(keepers("stored", layers).tolist())) < len(layers):
        raise InputError("quantized: layers that share a stored kernel have no rate of their own")
    images = jnp.asarray(checks.batch("images", images, quantized.program.image_shape))
    weights, inputs = (
        _by_layer(name, rate, (len(layers), len(faulty)))
        for name, rate in (("weight_rate", weight_rate), ("activation_rate", activation_rate))
    )
    spec, seed = FaultSpec("flip", faulty), draws.seed_words(key)
    limits = _threshold(weights), _threshold(inputs)
    indices = jnp.arange(len(images), dtype=jnp.uint32)
    network = encoded(quantized)

    def trial(number: Array) -> tuple[Array, Array]:
        logits = logits_of_trial(spec, network, images, indices, Thresholds(*limits), seed, number)
        of_images = metric(logits, targets)
        if of_images.shape != (len(images),):
            raise InputError(
                f"metric: gives {list(of_images.shape)}, not a number for each of {len(images)} "
                "images"
            )
        streams = draws.streams(seed, number, len(layers), draws.WEIGHTS)
        kernels = _flips(streams, [layer.kernel_shape for layer in layers], limits[0])

        def read(index: Array) -> Int[Array, "L bits"]:
            streams = draws.streams(seed, number, len(layers), draws.ACTIVATIONS, index)
            shapes = [layer.input_shape for layer in layers]
            return _flips(streams, shapes, limits[1])

        likely = _log_likelihood(kernels, [layer.weights for layer in layers], weights)
        reads = jax.vmap(read)(indices)
        each = jax.vmap(_log_likelihood, in_axes=(0, None, None))
        likely = likely + each(reads, [layer.inputs for layer in layers], inputs)
        return of_images.astype(jnp.float32), likely

    values, likely = lax.map(trial, jnp.arange(trials, dtype=jnp.uint32))  # [K, B] each
    others = (values.sum(axis=0, keepdims=True) - values) / (trials - 1)
    stop = lax.stop_gradient
    return jnp.mean(values + stop(values - others) * (likely - stop(likely)))


def _by_layer(name: str, rate: Any, shape: tuple[int, int]) -> Float[Array, "L bits"]:
    rates = jnp.asarray(rate, jnp.float32)
    if rates.ndim == 1:
        rates = rates[:, None]
    if rates.ndim > 2 or any(
        rates.shape[axis] not in (1, shape[axis]) for axis in range(rates.ndim)
    ):
        raise InputError(
            f"{name}: has the shape {list(jnp.shape(rate))}; give one number, [{shape[0]}] of the "
            f"layers, or [{shape[0]}, {shape[1]}] of layers and bits"
        )
    if not checks.is_traced(rates) and not ((rates >= 0) & (rates <= 1)).all():
        raise InputError(f"{name}: is outside [0, 1]; it is a probability")
    return jnp.broadcast_to(rates, shape)


def _threshold(rates: Float[Array, "L bits"]) -> Array:
    """As `bits.threshold`, of rates that may be traced: to a float32's 24 bits."""
    return jnp.round(lax.stop_gradient(rates) * np.float32(2.0**31)).astype(jnp.uint32)


def _flips(
    streams: Array, shapes: Sequence[tuple[int, ...]], thresholds: Array
) -> Int[Array, "L bits"]:
    """How many bits of each layer's operand flip, by position: the masks' own draws."""
    counts = []
    for number, shape in enumerate(shapes):
        own = draws.draws(streams[number], shape, thresholds.shape[1])
        hits = [
            (draw < thresholds[number, bit]).sum(dtype=jnp.int32) for bit, draw in enumerate(own)
        ]
        counts.append(jnp.stack(hits))
    return jnp.stack(counts)


def _log_likelihood(
    flips: Int[Array, "L bits"], elements: Sequence[int], rates: Float[Array, "L bits"]
) -> Float[Array, ""]:
    """log P of so many flips among the bits of so many elements; constant at rates 0 and 1."""
    count = flips.astype(jnp.float32)
    left = jnp.asarray(elements, jnp.float32)[:, None] - count
    open_ = (rates > 0) & (rates < 1)
    safe = jnp.where(open_, rates, jnp.float32(0.5))
    return jnp.where(open_, xlogy(count, safe) + xlog1py(left, -safe), 0.0).sum()
