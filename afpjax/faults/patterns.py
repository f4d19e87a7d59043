"""What each kind of fault does to a tensor of codes: drawn faults, and those at given places."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from afpjax.faults import bits
from afpjax.network.fixed_point import QFormat, change

if TYPE_CHECKING:
    from afpjax.faults.strike import Draws

_HOW = {"stuck-at-0": "clear", "stuck-at-1": "set", "zero": "clear", "lost": "clear"}
_ALL = np.int32(-1)
_SALT = 0x6C62272E


def struck(
    draws: "Draws",
    fmt: QFormat,
    codes: Float[Array, "..."],
    stream: UInt32[Array, "2"],
    limits: UInt32[Array, "columns ..."],
) -> Float[Array, "..."]:
    """The codes after the faults of one stream; all that is drawn fuses into this pass."""
    if draws.kind == "lost-last":
        return _held(codes, _lost(draws, codes.shape, stream, limits))
    return change(fmt, codes, _mask(draws, codes.shape, stream, limits), how_of(draws.kind))


def struck_at(
    how: str,
    fmt: QFormat,
    codes: Float[Array, "..."],
    elements: UInt32[Array, "n"],
    words: Int[Array, "n"],
) -> Float[Array, "..."]:
    """The codes with some bits of some elements (row-major, none twice) flipped, cleared or set.

    An element beyond the tensor is none: places are padded to a fixed number.
    """
    flat = codes.reshape(-1)
    found = flat.at[elements].get(mode="fill", fill_value=0)
    return flat.at[elements].set(change(fmt, found, words, how), mode="drop").reshape(codes.shape)


def how_of(kind: str) -> str:
    """What a kind of fault does to the bits that it strikes: one of `fixed_point.HOW`."""
    return _HOW.get(kind, "flip")


def _mask(draws: "Draws", shape: Sequence[int], stream: Array, limits: Array) -> Array:
    """int32: the bits of each element that are struck."""
    if draws.bitwise:
        return bits.flip_mask(stream, shape, draws.bits, limits, generator=draws.generator)
    if draws.kind == "lost":
        return jnp.where(_lost(draws, shape, stream, limits), _ALL, np.int32(0))
    hit, word = bits.draws(stream, shape, 2, generator=draws.generator)
    if draws.kind == "zero":
        word = jnp.broadcast_to(jnp.uint32(0xFFFFFFFF), word.shape)
    elif draws.kind == "burst":
        word = _run(draws, word)
    else:  # a draw's own low bits are those of a product: mixed once more, all are alike
        word = bits.mix(word ^ jnp.uint32(_SALT))
    hit = bits.below(stream, hit, 0, limits, 1, generator=draws.generator)
    return jnp.where(hit, lax.bitcast_convert_type(word, jnp.int32), np.int32(0))


def _run(draws: "Draws", word: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """`length` adjacent bits from a random one of those that leave room for them."""
    starts = len(draws.bits) - draws.length + 1
    start = ((word >> jnp.uint32(15)) * jnp.uint32(starts)) >> jnp.uint32(16)
    return jnp.uint32((1 << draws.length) - 1) << (start + jnp.uint32(draws.bits[0]))


def _lost(draws: "Draws", shape: Sequence[int], stream: Array, limits: Array) -> Bool[Array, "..."]:
    """Which elements were in a packet that did not arrive: `length` after one another each."""
    count = prod(shape)
    length = min(draws.length, count)
    (hit,) = bits.draws(stream, (-(-count // length),), 1, generator=draws.generator)
    hit = bits.below(stream, hit, 0, limits, 1, generator=draws.generator)
    lost = jnp.repeat(hit, length)  # of one length: no more than a broadcast
    return lost[:count].reshape(shape)


def _held(codes: Float[Array, "..."], lost: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Lost elements read as the last that arrived before them, row-major, zero if none did."""
    flat, gone = codes.reshape(-1), lost.reshape(-1)
    places = jnp.where(gone, np.int32(-1), jnp.arange(flat.size, dtype=jnp.int32))
    last = lax.cummax(places)
    held = jnp.where(last < 0, jnp.zeros((), codes.dtype), flat[jnp.maximum(last, 0)])
    return held.reshape(codes.shape)
