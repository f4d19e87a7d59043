"""Number formats whose bits can flip: fixed point of 4 to 16 bits, float32 and bfloat16.

A fixed-point value is an integer code times a step; `quantized.py` says how layers compute on
codes, and how exactly.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from afpjax.inputs.checks import choice, whole
from afpjax.inputs.errors import InputError

KINDS = ("fixed", "float32", "bfloat16")
SCALES = ("global", "tensor", "channel")
STEPS = ("power-of-two", "maximum")
HOW = ("flip", "clear", "set")  # what a fault does to bits
SMALLEST = 2.0**-40  # steps are those of a tensor with at least this largest magnitude
_WIDTH = {"float32": 32, "bfloat16": 16}


@dataclass(frozen=True)
class QFormat:
    """How weights and every layer's input are stored.

    Fixed point is two's complement with `bits` bits, saturating when a value is quantised and
    never when a bit flips. `scale="global"`: one step of 2^-`frac` for everything.
    `"tensor"` / `"channel"`: a step per tensor, or per output channel of the weights (inputs stay
    per tensor), from calibration: `step="maximum"` is max|x| / (2^(bits-1) - 1),
    `"power-of-two"` the least power of two that is no smaller. Raises `InputError` where that makes
    no sense.
    """

    bits: int = 16
    frac: int = 8
    kind: str = "fixed"
    scale: str = "global"
    step: str = "power-of-two"

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("scale", SCALES), ("step", STEPS)):
            choice(f"format.{name}", getattr(self, name), allowed)
        bits, frac = whole("format.bits", self.bits), whole("format.frac", self.frac)
        if self.kind == "fixed" and bits not in range(4, 17):
            raise InputError(f"format.bits: {bits} is outside 4 to 16; choose a width there")
        if self.kind == "fixed" and self.scale == "global" and not -16 <= frac < bits:
            raise InputError(
                f"format.frac: {frac} fraction bits do not fit a signed number of {bits} bits; "
                f"give -16 to {bits - 1}"
            )

    @property
    def width(self) -> int:
        """Bits of one stored value: the positions that may flip are 0 (lowest) to width - 1."""
        return _WIDTH.get(self.kind, self.bits)

    @property
    def short(self) -> str:
        """`Q8.8`, `16 bits, a scale per tensor`, or the name of a float format."""
        if self.kind != "fixed":
            return self.kind
        if self.scale == "global":
            return f"Q{self.bits - self.frac}.{self.frac}"
        return f"{self.bits} bits, a scale per {self.scale}"

    @property
    def needs_calibration(self) -> bool:
        """Whether steps follow from what the network meets in calibration images."""
        return self.kind == "fixed" and self.scale != "global"

    @property
    def largest(self) -> int:
        """The largest fixed-point code."""
        return 2 ** (self.bits - 1) - 1

    def step_for(self, largest: Float[Any, "..."]) -> Float[np.ndarray, "..."]:
        """Steps (float32) for tensors whose largest magnitudes are given (any shape)."""
        if self.kind != "fixed":
            return np.ones_like(largest, np.float32)
        if self.scale == "global":
            return np.full_like(largest, 2.0**-self.frac, np.float32)
        # Where training has shrunk a channel to nothing: a product of two steps must stay a normal
        # float32, and a flipped bit there harmless.
        steps = np.maximum(largest, SMALLEST).astype(np.float64) / self.largest
        if self.step == "power-of-two":
            steps = 2.0 ** np.ceil(np.log2(steps) - 1e-12)
        return np.asarray(steps, np.float32)


def encode(
    fmt: QFormat, values: Float[Array, "..."], step: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Codes of `values` as float32 (fixed), or the values as the float format holds them.

    Rounds half to even (of the float32 product with 1 / step) and saturates. The gradient is
    straight-through: that of `values / step`, zero where the code saturates. `step` broadcasts
    against `values`.
    """
    if fmt.kind == "float32":
        return values
    if fmt.kind == "bfloat16":
        return _to_bfloat16(values)
    # XLA turns some divisions into this product; written out, codes are the same in every program.
    return _round(values * (1 / step), float(-fmt.largest - 1), float(fmt.largest))


def round_through(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round half to even; the gradient passes through unchanged (straight-through)."""
    return _round(values, -np.inf, np.inf)


def change(
    fmt: QFormat, codes: Float[Array, "..."], mask: Int[Array, "..."], how: str = "flip"
) -> Float[Array, "..."]:
    """Flip, clear or set the bits of `mask` (int32, broadcast) in the stored words of `codes`.

    `how` is one of `HOW`. Fixed point: two's complement of `fmt.bits` bits, wrapping as memory
    does. The gradient passes through unchanged (straight-through).
    """
    return _change(fmt, how, codes, mask)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _round(values: Array, low: float, high: float) -> Array:
    return jnp.clip(jnp.round(values), low, high)


@_round.defjvp
def _round_jvp(low: float, high: float, primals, tangents):
    (values,), (tangent,) = primals, tangents
    inside = (values >= low) & (values <= high)
    return _round(values, low, high), jnp.where(inside, tangent, jnp.zeros_like(tangent))


@jax.custom_jvp
def _to_bfloat16(values: Array) -> Array:
    return values.astype(jnp.bfloat16).astype(jnp.float32)


@_to_bfloat16.defjvp
def _to_bfloat16_jvp(primals, tangents):
    return _to_bfloat16(*primals), tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _change(fmt: QFormat, how: str, codes: Array, mask: Array) -> Array:
    if fmt.kind == "float32":
        return _reinterpret(_words(how, _reinterpret(codes, jnp.int32), mask), jnp.float32)
    if fmt.kind == "bfloat16":
        words = _reinterpret(codes.astype(jnp.bfloat16), jnp.int16)
        faulty = _words(how, words, mask.astype(jnp.int16))
        return _reinterpret(faulty, jnp.bfloat16).astype(jnp.float32)
    unused = 32 - fmt.bits
    faulty = _words(how, codes.astype(jnp.int32), mask) << unused >> unused  # extend the sign bit
    return faulty.astype(jnp.float32)


@_change.defjvp
def _change_jvp(fmt: QFormat, how: str, primals, tangents):
    faulty = _change(fmt, how, *primals)
    return faulty, jnp.broadcast_to(tangents[0], faulty.shape)


def _words(how: str, words: Array, mask: Array) -> Array:
    if how == "flip":
        return words ^ mask
    return words | mask if how == "set" else words & ~mask


def _reinterpret(words: Array, dtype: type) -> Array:
    return lax.bitcast_convert_type(words, dtype)
