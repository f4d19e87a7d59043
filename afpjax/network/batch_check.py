"""Whether a traced network is the function that it was traced from, on a few images.

A trace is of one image. A function that mixes the images of a batch (batch norm by the batch's own
statistics, dropout drawn for a batch) is another function there, and nothing in the trace tells.
So the few images go through the function as one batch, and through the traced network each by
itself.

Both round, and in different orders. With unit roundoff u of the coarsest floating-point numbers in
the program, each of d layers adds a relative error of about u, independent of the others', so about
√d·u in the end: 32 u allows a thousand layers. In float32 that would be 2e-6, too strict for
networks that subtract what is nearly equal; 1e-3 of the largest logit is allowed there (trained and
random networks of 20 to 121 layers: at most 2e-6), and statistics of a batch change logits by
hundreds of times as much. Where that is exceeded, a network may still only be ill-conditioned (or
have steps, as quantised networks have): then the difference must also exceed `SPREAD` times what
rounding errors of the images themselves do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.interpreter import Network, execute
from afpjax.network.program import LayerCall, Program

IMAGES = 3
LEAST = 1e-3  # of the largest logit: what may differ in any case
LAYERS = 32.0  # unit roundoffs that many layers may add up to
SPREAD = 10.0
_WORDS = np.uint8  # integers that are pixels; others may be numbers of words, of which two are sure


def refuse_another(
    function: Callable[[Any, Array], Any], arrays: Any, network: Network, sample: Any
) -> None:
    """Raise `InputError` where `function(arrays, batch)` and the network disagree.

    `sample` is what the network was traced with: its first images are used, and where it has too
    few (or none: a `ShapeDtypeStruct`) others are drawn, the same ones every time. A function that
    takes one image only is held against the network on each. Images whose logits are not finite
    tell nothing.
    """
    images = few(sample)
    wanted, found = _both(function, arrays, network, images)
    known = np.asarray(np.isfinite(np.column_stack([wanted, found])).all(axis=1))
    if not known.any():
        return
    wanted, found = wanted[known], found[known]
    largest = np.abs(wanted).max()
    apart = np.abs(wanted - found).max()
    unit = roundoff(network.program)
    if apart <= max(LEAST, LAYERS * unit) * largest:
        return
    if apart <= SPREAD * _under_rounding(network, images, found, known, unit):
        return
    raise InputError(
        f"the network: in a batch of {len(images)} images its logits differ by {apart:.3g} (of at "
        f"most {largest:.3g}) from those of the images one by one, as it was traced; switch it to "
        "inference (batch norm by running statistics, no dropout), so that images of a batch are "
        "independent"
    )


def few(sample: Any) -> Num[np.ndarray, "B ..."]:
    """A few images: the sample's first, and others drawn from the same values."""
    dtype = jax.dtypes.canonicalize_dtype(sample.dtype)
    rng = np.random.default_rng(0)
    shape = (IMAGES, *sample.shape[1:])
    if isinstance(sample, jax.ShapeDtypeStruct) or len(sample) == 0:
        if jnp.issubdtype(dtype, jnp.floating):
            return np.asarray(rng.standard_normal(shape, np.float32), dtype)
        return rng.integers(0, 256 if dtype == _WORDS else 2, shape).astype(dtype)
    given = np.asarray(sample[:IMAGES])
    drawn = rng.choice(given.ravel(), (IMAGES - len(given), *sample.shape[1:]))
    return np.concatenate([given, drawn]).astype(dtype)


def roundoff(program: Program) -> float:
    """Unit roundoff of the coarsest floating-point numbers that are computed with."""
    found: list[Any] = [np.float32]
    for step in program.steps:
        if isinstance(step, LayerCall):
            found.append(step.dtype)
        else:
            found += [getattr(var.aval, "dtype", np.float32) for var in step.eqn.outvars]
    floats = [each for each in found if jnp.issubdtype(each, jnp.floating)]
    return max(float(jnp.finfo(each).eps) for each in floats) / 2


class _Both(NamedTuple):
    original: Float[np.ndarray, "B classes"]
    traced: Float[np.ndarray, "B classes"]


def _both(
    function: Callable[[Any, Array], Any], arrays: Any, network: Network, images: np.ndarray
) -> _Both:
    """Logits of all images at once by the function, and by the network, in one program.

    Image by image by the function too, where it takes no batch.
    """
    shape = (len(images), network.program.classes)

    def alone(arrays: Any, network: Network, images: Array) -> tuple[Any, Array]:
        original = jnp.concatenate([function(arrays, image[None]) for image in images])
        return original, _traced(network, images)

    def together(arrays: Any, network: Network, images: Array) -> tuple[Any, Array]:
        original = function(arrays, images)
        if original.shape != shape:
            raise ValueError("no batch")
        return original, _traced(network, images)

    given = arrays, network, jnp.asarray(images)
    # The traced network multiplies in full precision; a device's default may be coarser (TF32).
    with jax.default_matmul_precision("highest"):
        try:
            lowered = jax.jit(together).lower(*given)
        except Exception:  # whatever frameworks raise for a batch that does not fit
            lowered = jax.jit(alone).lower(*given)
    found = lowered.compile(compiler_options=_quickly())(*given)
    return _Both(*(np.asarray(each, np.float64) for each in found))


def _traced(network: Network, images: Array) -> Array:
    return jax.vmap(lambda image: execute(network.program, network.parameters, image))(images)


def _quickly() -> dict[str, Any]:
    """Options for a program that runs once: half of the time would go into optimising it."""
    return {**(compiler.options() or {}), "xla_backend_optimization_level": 0}


def _under_rounding(
    network: Network, images: np.ndarray, found: np.ndarray, known: np.ndarray, unit: float
) -> float:
    """The largest change of a logit where images are off by what rounding does to them."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        return 0.0
    signs = np.random.default_rng(1).choice([-1, 1], images.shape)
    moved = (images.astype(np.float64) * (1 + LAYERS * unit * signs)).astype(images.dtype)
    run = jax.jit(_traced, compiler_options=_quickly())
    again = np.asarray(run(network, jnp.asarray(moved)), np.float64)
    return float(np.abs(again[known] - found).max())
