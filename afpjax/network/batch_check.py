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
from typing import Any

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
_PIXELS = np.uint8  # integers that are pixels; others may number words, of which two are sure


def refuse_dependent_images(
    function: Callable[[Any, Array], Any], arrays: Any, network: Network, sample: Any
) -> None:
    """Raise `InputError` where `function(arrays, batch)` and the network disagree.

    `sample` is what the network was traced with: its first images are used, and where it has too
    few (or none: a `ShapeDtypeStruct`) others are drawn, the same ones every time. A function that
    takes one image only is held against the network on each. Images whose logits are not finite
    tell nothing.
    """
    images = few_images(sample)
    original, traced = _logits(function, arrays, network, images)
    known = np.isfinite(np.column_stack([original, traced])).all(axis=1)
    if not known.any():
        return
    original, traced = original[known], traced[known]
    largest, apart = np.abs(original).max(), np.abs(original - traced).max()
    unit = roundoff(network.program)
    if apart <= max(LEAST, LAYERS * unit) * largest:
        return
    if jnp.issubdtype(images.dtype, jnp.floating):
        # How far logits move where images are off by what rounding does to them.
        signs = np.random.default_rng(1).choice([-1, 1], images.shape)
        moved = (images.astype(np.float64) * (1 + LAYERS * unit * signs)).astype(images.dtype)
        run = jax.jit(_one_by_one, compiler_options=_quick())
        again = np.asarray(run(network, jnp.asarray(moved)), np.float64)[known]
        if apart <= SPREAD * np.abs(again - traced).max():
            return
    raise InputError(
        f"the network: in a batch of {len(images)} images its logits differ by {apart:.3g} (of at "
        f"most {largest:.3g}) from those of the images one by one, as it was traced; switch it to "
        "inference (batch norm by running statistics, no dropout), so that images of a batch are "
        "independent"
    )


def few_images(sample: Any) -> Num[np.ndarray, "B ..."]:
    """A few images: the sample's first, and others drawn from the same values."""
    dtype = jax.dtypes.canonicalize_dtype(sample.dtype)
    rng = np.random.default_rng(0)
    shape = (IMAGES, *sample.shape[1:])
    if isinstance(sample, jax.ShapeDtypeStruct) or len(sample) == 0:
        if jnp.issubdtype(dtype, jnp.floating):
            return np.asarray(rng.standard_normal(shape, np.float32), dtype)
        return rng.integers(0, 256 if dtype == _PIXELS else 2, shape).astype(dtype)
    first = np.asarray(sample[:IMAGES])
    drawn = rng.choice(first.ravel(), (IMAGES - len(first), *sample.shape[1:]))
    return np.concatenate([first, drawn]).astype(dtype)


def roundoff(program: Program) -> float:
    """Unit roundoff of the coarsest floating-point numbers that are computed with."""
    dtypes: list[Any] = [np.float32]
    for step in program.steps:
        if isinstance(step, LayerCall):
            dtypes.append(step.dtype)
        else:
            dtypes += [getattr(var.aval, "dtype", np.float32) for var in step.eqn.outvars]
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max(float(jnp.finfo(dtype).eps) for dtype in floats) / 2


def _logits(
    function: Callable[[Any, Array], Any], arrays: Any, network: Network, images: np.ndarray
) -> list[Float[np.ndarray, "B classes"]]:
    """Logits of all images at once by the function, and one by one by the network, in one program.

    Image by image by the function too, where it takes no batch.
    """
    shape = (len(images), network.program.classes)

    def alone(arrays: Any, network: Network, images: Array) -> tuple[Any, Array]:
        original = jnp.concatenate([function(arrays, image[None]) for image in images])
        return original, _one_by_one(network, images)

    def together(arrays: Any, network: Network, images: Array) -> tuple[Any, Array]:
        original = function(arrays, images)
        if original.shape != shape:
            raise ValueError("no batch")
        return original, _one_by_one(network, images)

    arguments = arrays, network, jnp.asarray(images)
    # The traced network multiplies in full precision; a device's default may be coarser (TF32).
    with jax.default_matmul_precision("highest"):
        try:
            lowered = jax.jit(together).lower(*arguments)
        except Exception:  # whatever frameworks raise for a batch that does not fit
            lowered = jax.jit(alone).lower(*arguments)
    both = lowered.compile(compiler_options=_quick())(*arguments)
    return [np.asarray(logits, np.float64) for logits in both]


def _one_by_one(network: Network, images: Array) -> Array:
    return jax.vmap(lambda image: execute(network.program, network.parameters, image))(images)


def _quick() -> dict[str, Any]:
    """Options for a program that runs once: half of the time would go into optimising it."""
    return {**(compiler.options() or {}), "xla_backend_optimization_level": 0}
