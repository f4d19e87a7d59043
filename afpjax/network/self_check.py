"""Whether a backend computes what it is told: small integers, held against NumPy's, once.

Compilers and their libraries have been wrong without a word (jax-ml/jax#39103 on CPUs,
openxla/xla#49123 on GPUs), where sizes are odd or large above all. The first time that a backend
is used with some options, a few products, convolutions and reductions run on it, as networks run
and as JAX runs what is not a network's. Every number stays below 2^24, so that float32 holds it
whatever the order of a sum, and NumPy's float64 is exact integer arithmetic.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.backend import get_backend
from jaxtyping import Array, Float

from afpjax.inputs.errors import InputError
from afpjax.inputs.files import DIGEST, cache_folder, read_text
from afpjax.network import compiler
from afpjax.network.start import LEFT_TO_YNNPACK, PRODUCTS_ALONE, SUMS_ONLY, jaxlib_version
from afpjax.network.units import BY_IMAGES, BYTE, TWO_PARTS, Linear, bind, multiply

Numbers = Float[np.ndarray, "..."]


class Check(NamedTuple):
    """Something that a backend has to get right."""

    name: str
    function: Callable[..., Array]
    arguments: tuple[Numbers, ...]
    expected: Numbers


class Convolution(NamedTuple):
    """A convolution [B, H, W, I] by [h, w, I / groups, O]."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


def check() -> None:
    """Raise `InputError` where this process's backend is wrong; nothing where it was right before.

    What was right is remembered in the cache folder, where that can be written.
    """
    _checked(compiler.units())


@lru_cache(maxsize=4)
def _checked(units: str) -> None:
    settings = {name: os.environ.get(name) for name in ("XLA_FLAGS", *SUMS_ONLY)}
    device, backend = jax.local_devices()[0], get_backend()
    own = (jaxlib_version(), backend.platform, backend.platform_version, device.device_kind)
    options, convolutions = compiler.options(), compiler.options(convolutions=True)
    where = repr((own, options, convolutions, units, settings))  # tells it from other backends
    remembered = cache_folder() / "checked" / hashlib.sha256(where.encode()).hexdigest()
    try:
        if read_text(remembered, "cache", DIGEST) == where:
            return
    except InputError:  # it cannot be read: not remembered
        pass
    of_all = _of_all()
    of_networks = _of_networks(units)
    _refuse_wrong([*of_networks, *_of_bytes(units), *of_all], options, "the options of networks")
    if convolutions != options:
        _refuse_wrong(of_networks, convolutions, "the options of some convolutions")
    _refuse_wrong(of_all, None, "JAX's own options")
    _remember(remembered, where)


def _refuse_wrong(trials: Sequence[Check], options: dict[str, Any] | None, how: str) -> None:
    """Run all of them in one program."""
    functions = [trial.function for trial in trials]

    def run(arguments: tuple[tuple[Array, ...], ...]) -> tuple[Array, ...]:
        return tuple(f(*own) for f, own in zip(functions, arguments, strict=True))

    arguments = tuple(trial.arguments for trial in trials)
    results = jax.jit(run).lower(arguments).compile(compiler_options=options)(arguments)
    for trial, numbers in zip(trials, results, strict=True):
        if not np.array_equal(numbers, trial.expected):
            wrong = np.mean(np.asarray(numbers) != trial.expected)
            remedy = " and ".join(f"{name}={value}" for name, value in SUMS_ONLY.items())
            if jax.default_backend() == "cpu":
                remedy = f"XLA_FLAGS=--{LEFT_TO_YNNPACK}={PRODUCTS_ALONE}"
            raise InputError(
                f"JAX: {trial.name}: {wrong:.2g} of the numbers are wrong on this "
                f"{jax.default_backend()} with jaxlib {jaxlib_version()} and {how}; import afpjax "
                f"before JAX is used, set {remedy}, or use another jaxlib or device"
            )


def _of_networks(units: str) -> list[Check]:
    """What layers of integer codes need, in sizes that no tile divides."""
    rng = np.random.default_rng(1)
    windows = {
        (3, 29, 31, 48): ((3, 3, 67), Convolution(padding=1)),
        (2, 33, 31, 12): ((5, 5, 10), Convolution(2, 2, groups=2)),
        (2, 23, 27, 34): ((3, 3, 34), Convolution(2, 2, 2, groups=34)),
    }
    units = "bfloat16" if units == "bfloat16" else "float32"  # what int8 leaves is float32's
    return [
        trial
        for bits in (8, 16)
        for trial in (
            _product(rng, units, bits, (131, 517, 261)),
            *(_convolution(rng, units, bits, images, *own) for images, own in windows.items()),
        )
    ]


def _of_bytes(units: str) -> list[Check]:
    """What layers on int8 units need beside that: codes of the largest magnitudes above all, which
    instructions that sum in 16 bits get wrong."""
    if units not in ("int8", compiler.BY_LAYER):
        return []
    rng = np.random.default_rng(4)
    windows = {
        (3, 17, 19, 19): ((3, 3, 67), Convolution(padding=1)),
        (2, 17, 19, 131): ((3, 3, 33), Convolution(2, 2, 2)),
    }
    kinds = [BYTE]
    if units == "int8":  # by layer, groups and wider codes stay on float32 units
        windows[2, 33, 31, 12] = (5, 5, 10), Convolution(2, 2, groups=2)
        kinds.append(TWO_PARTS)
    trials = [
        trial
        for bits in kinds
        for trial in (
            _of_extremes(rng, "int8", bits, (131, 517, 261)),
            *(_convolution(rng, "int8", bits, images, *own) for images, own in windows.items()),
        )
    ]
    if units == compiler.BY_LAYER:
        trials.append(_of_extremes(rng, BY_IMAGES, BYTE, (1, 517, 261)))
    return trials


def _of_all() -> list[Check]:
    """A product that a reduction follows, and reductions."""
    rng = np.random.default_rng(2)
    square, rows, wide = _codes(rng, 3, 3, 3), _codes(rng, 3, 32_783, 3), _codes(rng, 3, 31, 16_411)
    product = Check(
        "a matrix-vector product of each of 32,783 rows, then a sum",
        jax.vmap(lambda row, by: jnp.square(by @ row).sum(), in_axes=(0, None)),
        (rows, square),
        np.square(rows @ square.T).sum(axis=1),
    )
    reductions = [
        Check(f"the {name} of 31 x 16,411 numbers", partial(ours, axis=1), (wide,), numpys(wide, 1))
        for name, ours, numpys in (
            ("sum", jnp.sum, np.sum),
            ("maximum", jnp.max, np.max),
            ("largest place", jnp.argmax, np.argmax),
        )
    ]
    return [product, *reductions, Check("their total", jnp.sum, (wide,), wide.sum())]


def _product(rng: np.random.Generator, units: str, bits: int, sizes: tuple[int, int, int]) -> Check:
    rows, inner, columns = sizes
    return _of_product(units, bits, *_operands(rng, bits, inner, (rows, inner), (inner, columns)))


def _of_extremes(
    rng: np.random.Generator, units: str, bits: int, sizes: tuple[int, int, int]
) -> Check:
    """The largest codes of either sign, and a sum of nothing but the largest."""
    rows, inner, columns = sizes
    largest = 2.0 ** (bits - 1) - 1
    left, right = (
        rng.choice(np.array([-largest - 1, largest], np.float32), shape)
        for shape in ((rows, inner), (inner, columns))
    )
    left[0], right[:, 0] = largest, largest
    return _of_product(units, bits, left, right)


def _of_product(units: str, bits: int, left: Numbers, right: Numbers) -> Check:
    (rows, inner), columns = left.shape, right.shape[1]
    return Check(
        f"a matrix product of {rows} x {inner} x {columns} codes of {bits} bits on {units} units",
        partial(multiply, _as_layers_do(lax.dot, left, right), bits=bits, units=units),
        (left, right),
        (left @ right.astype(np.float64)).astype(np.float32),
    )


def _convolution(
    rng: np.random.Generator,
    units: str,
    bits: int,
    images: tuple[int, int, int, int],
    kernel: tuple[int, int, int],
    window: Convolution,
) -> Check:
    height, width, outputs = kernel
    depth = images[3] // window.groups
    image, weights = _operands(
        rng, bits, height * width * depth, images, (height, width, depth, outputs)
    )

    def linear(a: Array, b: Array) -> Array:
        return lax.conv_general_dilated(
            a,
            b,
            (window.stride,) * 2,
            [(window.padding, window.padding)] * 2,
            rhs_dilation=(window.dilation,) * 2,
            feature_group_count=window.groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return Check(
        f"a convolution of codes of {bits} bits on {units} units ({window})",
        partial(multiply, _as_layers_do(linear, image, weights), bits=bits, units=units),
        (image, weights),
        _convolved(image, weights, window).astype(np.float32),
    )


def _as_layers_do(linear: Linear, left: Numbers, right: Numbers) -> Linear:
    """A product of these shapes, put to the backend as a layer's is."""
    (said,) = jax.make_jaxpr(linear)(left, right).eqns
    return partial(bind, said.primitive, said.params)


def _convolved(
    image: Numbers, kernel: Numbers, window: Convolution
) -> Float[np.ndarray, "B H W O"]:
    """The sum over groups and taps, in float64."""
    stride, padding, dilation, groups = window
    padded = np.pad(image, [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)]).astype(np.float64)
    extent = [
        (size - (taps - 1) * dilation - 1) // stride * stride + 1
        for size, taps in zip(padded.shape[1:3], kernel.shape, strict=False)
    ]
    total = np.zeros(())
    for y, x in np.ndindex(*kernel.shape[:2]):
        top, left = y * dilation, x * dilation
        seen = padded[:, top : top + extent[0] : stride, left : left + extent[1] : stride]
        parts = np.split(seen, groups, axis=3), np.split(kernel[y, x], groups, axis=1)
        total = total + np.concatenate([a @ b for a, b in zip(*parts, strict=True)], axis=3)
    return total


def _operands(
    rng: np.random.Generator, bits: int, terms: int, left: tuple[int, ...], right: tuple[int, ...]
) -> tuple[Numbers, Numbers]:
    """Codes of all bits on the left, and on the right as large as `terms` products can take."""
    largest = 2 ** (bits - 1) - 1
    other = max(1, min(largest, 2**24 // (terms * largest)))
    return _codes(rng, largest, *left), _codes(rng, other, *right)


def _codes(rng: np.random.Generator, largest: int, *shape: int) -> Numbers:
    return rng.integers(-largest, largest + 1, shape).astype(np.float32)


def _remember(file: Path, text: str) -> None:
    """Write a file whole, or not at all where the folder cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(number, "w") as out:
            out.write(text)
        os.replace(name, file)
    except OSError:
        return
