"""Bernoulli bit masks from a counter hash: a pure function of where a bit is, never stored.

A *stream* (two 32-bit words) stands for (seed, trial, layer, target, image). Bit b of element i of
a tensor flips when its 31-bit uniform draw u(stream, i, b) is below the rate's threshold, so that
one draw serves every device and every rate: flips at a lower rate are among those at a higher one.

    x    = mix(i xor stream[0])                   once per element, a bijection of the counter
    u(b) = (x · MULTIPLIERS[b] + word(stream[1], b)) / 2    once per bit, modulo 2^32

`mix` is Wellons' "triple32" (2018), three multiply-xorshift rounds. A bit's draw costs one product
more: over all x the draws of several bits are the points of a rank-1 lattice (Niederreiter
1992, chapter 5), shifted by the stream, which fill the cube more evenly than independent points do,
and a mixed counter picks points of it at random. Two streams whose first words differ in less than
the tensor's size have the same points in another order and with another shift. All is elementwise:
XLA fuses it into the pass that uses the mask. Elements beyond 2^32 take a carry word; no index ever
passes through a float. Threefry (Salmon et al., SC 2011) can stand in: `generator="threefry"`.

A rate below `RARE` is no multiple of 2^-31 to speak of. Where there are such rates, thresholds have
a second word, 32 bits more, and an element whose draw is equal to the first word flips when another
draw is below the second: a comparison of 63 bits, whose first 31 are those of all other rates.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Num, UInt32

from afpjax.inputs import checks

WEIGHTS, ACTIVATIONS, LINK = 0, 1, 2  # targets
DRAWS = 2  # raise it whenever a seed's draws change: weights learnt under others are not reused
_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio: multiples of it lie far apart
_COUNTERS = 2**32
RARE = 2.0**-18  # rates below have thresholds of two words; others are off by 2^-14 of them at most
_SECOND = 0x8F4D2E1B  # tells second draws from first ones
# Found by random search, in this order, so that the dual lattices of any two, three or four of them
# have no short vectors: the product of a vector's non-zero entries is at least 2e7, 4e5 and 2e4
# among the first eight (1e5 of the first four), 2e7, 4e4 and 1,500 among the first sixteen, 6e6,
# 8,000 and 500 among all. A box's share of the points differs from its volume by the sum, over the
# dual lattice's vectors, of terms of at most 1 / (pi^d · the product of the d non-zero entries).
MULTIPLIERS = (
    0x79690975, 0x2A337357, 0x2FEF107B, 0xF70ABB35, 0xFE5DEFE9, 0x9FDED21D, 0xB494D689, 0x94269B57,
    0xBE1EDEFD, 0x6ED5FF7B, 0xAF29109D, 0xEA2177D9, 0x76104A9F, 0x314320AB, 0x62DAFF17, 0x44A70507,
    0x7F2E6911, 0x7FC92593, 0xFECEE737, 0x996D1B61, 0x2C1FB521, 0x262A1567, 0xA8519A5B, 0xBAD28E0D,
    0x986A6865, 0xC10A152D, 0x37269C23, 0x68323FE3, 0xEA59A911, 0xBD619203, 0xDFD83D69, 0xF3FBE985,
)  # fmt: skip


def threshold(
    rates: Num[np.ndarray, "*N"], *, rare: bool = False
) -> UInt32[np.ndarray, "*thresholds"]:
    """Rates in [0, 1] as thresholds of 31-bit draws, to the nearest 2^-31; 1 always flips.

    With `rare`, two words for each: the last axis has all first words, then all second ones. What
    is below `RARE` is met to the nearest 2^-63, and what is not has a second word of 0.
    """
    rates = np.asarray(rates, np.float64)
    first = np.round(rates * 2.0**31).astype(np.uint32)
    if not rare:
        return first
    words = np.round(np.where(rates < RARE, rates, 0) * 2.0**63).astype(np.uint64)
    first = np.where(rates < RARE, words >> np.uint64(32), first)
    return np.concatenate([first, words % np.uint64(_COUNTERS)], axis=-1).astype(np.uint32)


def any_rare(rates: Num[np.ndarray, "*N"]) -> bool:
    """Whether thresholds of these rates need two words."""
    rates = np.asarray(rates)
    return bool(((rates > 0) & (rates < RARE)).any())


def seed_words(key: Any) -> UInt32[Array, "2"]:
    """Two words from a `jax.random.key`, old-style key data or an integer seed of up to 64 bits."""
    key = checks.key("key", key)
    if isinstance(key, int | np.integer):
        low, high = int(key) % _COUNTERS, int(key) // _COUNTERS % _COUNTERS
        return jnp.asarray([low, high], jnp.uint32)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    words = jnp.ravel(key).astype(jnp.uint32)
    # Longer keys (rbg has four words) are folded; a traced scalar seed is padded.
    return words[:2] + words[2:4].sum() if words.size >= 2 else jnp.append(words, jnp.uint32(0))


def as_key(key: Any) -> Array:
    """A key to split: `jax.random.key`'s own, and of an integer seed that which it stands for."""
    key = checks.key("key", key)
    if isinstance(key, int | np.integer):
        return jax.random.wrap_key_data(seed_words(key)[::-1], impl="threefry2x32")
    return key


def stream(
    seed: UInt32[Array, "2"],
    *,
    trial: UInt32[Array, "..."],
    layer: UInt32[Array, "..."],
    target: int | UInt32[Array, "..."],
    image: UInt32[Array, "..."] | None = None,
) -> UInt32[Array, "... 2"]:
    """The two words of a stream; numbers broadcast against each other."""
    image = jnp.zeros((), jnp.uint32) if image is None else image
    words = jnp.broadcast_arrays(trial, layer, jnp.asarray(target, jnp.uint32), image)
    words = jnp.stack([word.astype(jnp.uint32) for word in words])
    return _exchanged(seed, words)


@partial(jax.jit, inline=True)
def _exchanged(seed: UInt32[Array, "2"], words: UInt32[Array, "4 ..."]) -> UInt32[Array, "... 2"]:
    """A Feistel-like exchange: both words depend on every number so far."""
    salts = jnp.asarray([number * _GOLDEN % _COUNTERS for number in range(1, 5)], jnp.uint32)
    start = tuple(jnp.broadcast_to(word, words.shape[1:]) for word in (seed[0], seed[1]))

    def exchange(number: Any, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        first, second = pair
        return second, first ^ mix(mix(second + words[number]) + salts[number])

    def written_out(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        for number in range(4):
            pair = exchange(number, pair)
        return pair

    # Written out, XLA (jaxlib 0.10, CPU) never ends compiling it for two layers of 16 images; on
    # others it is one kernel, where a loop is dozens.
    looped = partial(lax.fori_loop, 0, 4, exchange)
    first, second = lax.platform_dependent(start, cpu=looped, default=written_out)
    return jnp.stack([mix(first ^ second), mix(second + jnp.uint32(_GOLDEN))], axis=-1)


def copy_stream(stream: UInt32[Array, "2"], copy: int) -> UInt32[Array, "2"]:
    """The stream of one of several read copies; the first has that of a copy that is alone."""
    if not copy:
        return stream
    salt = jnp.uint32(copy * _GOLDEN % _COUNTERS)
    return jnp.stack([mix(stream[0] ^ salt), mix(stream[1] + salt)])


def streams(
    seed: UInt32[Array, "2"],
    trial: UInt32[Array, ""],
    layers: int,
    target: int,
    image: UInt32[Array, ""] | None = None,
) -> UInt32[Array, "L 2"]:
    """The streams of all layers at once: one small elementwise program, not one for each layer."""
    numbers = jnp.arange(layers, dtype=jnp.uint32)
    return stream(seed, trial=trial, layer=numbers, target=target, image=image)


def flip_mask(
    stream: UInt32[Array, "2"],
    shape: Sequence[int],
    bits: Sequence[int],
    thresholds: UInt32[Any, "columns ..."],
    *,
    generator: str = "hash",
) -> Int[Array, "..."]:
    """int32 mask of `shape`: bit `bits[k]` is set where its draw is below threshold k.

    A threshold is one for all elements, or broadcasts over them.
    """
    mask = jnp.zeros(shape, jnp.int32)
    for index, draw in enumerate(draws(stream, shape, len(bits), generator=generator)):
        word = np.uint32(1 << bits[index]).astype(np.int32)  # bit 31 is the sign
        hit = below(stream, draw, index, thresholds, len(bits), generator=generator)
        mask = mask | jnp.where(hit, word, np.int32(0))
    return mask


def count_flips(
    stream: UInt32[Array, "2"],
    shape: Sequence[int],
    bits: Sequence[int],
    thresholds: UInt32[Any, "columns"],
    *,
    generator: str = "hash",
) -> Int[Array, ""]:
    """How many bits `flip_mask` sets, int32; of tensors with 2^31 faulty bits or fewer."""
    total = jnp.zeros((), jnp.int32)
    for index, draw in enumerate(draws(stream, shape, len(bits), generator=generator)):
        hit = below(stream, draw, index, thresholds, len(bits), generator=generator)
        total += hit.sum(dtype=jnp.int32)
    return total


def below(
    stream: UInt32[Array, "2"],
    draw: UInt32[Array, "..."],
    index: int,
    thresholds: UInt32[Any, "columns ..."],
    count: int,
    *,
    generator: str = "hash",
) -> Bool[Array, "..."]:
    """Whether each element's draw number `index` is below the threshold: `draws` gave it.

    `thresholds` are `count` of one word, or of two: all first words, then all second ones.
    """
    under = draw < thresholds[index]
    if len(thresholds) == count:
        return under
    second = _second(stream, draw.shape, index, generator)
    return under | ((draw == thresholds[index]) & (second < thresholds[count + index]))


def _second(
    stream: UInt32[Array, "2"], shape: Sequence[int], index: int, generator: str
) -> UInt32[Array, "..."]:
    """32 bits more of a draw.

    An element's first draw being known says which point of the lattice it is, whatever the element;
    so its second one is of a point that follows from both words of the stream.
    """
    if generator == "threefry":
        key = jax.random.wrap_key_data(stream, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, _SECOND), index)
        return jax.random.bits(key, tuple(shape), jnp.uint32)
    return _second_at(stream, *counters(shape), index)


@partial(jax.jit, static_argnames="index", inline=True)
def _second_at(
    stream: UInt32[Array, "2"],
    high: UInt32[Array, "..."] | None,
    low: UInt32[Array, "..."],
    index: int,
) -> UInt32[Array, "..."]:
    first = stream[0] if high is None else mix(stream[0] + high)
    salt = mix(first ^ mix(stream[1] + np.uint32(_SECOND)))
    word = mix(stream[1] + np.uint32(index * _GOLDEN % _COUNTERS))
    return mix(mix(low ^ first) ^ salt) * np.uint32(MULTIPLIERS[index]) + word


def draws(
    stream: UInt32[Array, "2"], shape: Sequence[int], count: int, *, generator: str = "hash"
) -> list[UInt32[Array, "..."]]:
    """`count` independent 31-bit uniform draws for every element of a tensor of `shape`."""
    if generator == "threefry":
        key = jax.random.wrap_key_data(stream, impl="threefry2x32")
        keys = [jax.random.fold_in(key, index) for index in range(count)]
        return [jax.random.bits(key, tuple(shape), jnp.uint32) >> jnp.uint32(1) for key in keys]
    high, low = counters(shape)
    return [draw_at(stream, high, low, index) for index in range(count)]


@partial(jax.jit, static_argnames="index", inline=True)
def draw_at(
    stream: UInt32[Array, "2"],
    high: UInt32[Array, "..."] | None,
    low: UInt32[Array, "..."],
    index: int,
) -> UInt32[Array, "..."]:
    """The hash's 31-bit draw for faulty bit number `index` of element high · 2^32 + low."""
    first = stream[0] if high is None else mix(stream[0] + high)
    word = mix(stream[1] + np.uint32(index * _GOLDEN % _COUNTERS))
    return (mix(low ^ first) * np.uint32(MULTIPLIERS[index]) + word) >> np.uint32(1)


def counters(shape: Sequence[int]) -> tuple[UInt32[Array, "..."] | None, UInt32[Array, "..."]]:
    """Every element's index as (high, low); high is None where the low word holds all of them.

    Beyond 2^32 elements `high` counts the leading axes' rows, each of 2^32 elements or fewer.
    """
    split = next(k for k in range(len(shape) + 1) if prod(shape[k:]) <= _COUNTERS)
    low = _linear(shape, range(split, len(shape)))
    return (_linear(shape, range(split)) if split else None), low


def _linear(shape: Sequence[int], axes: range) -> UInt32[Array, "..."]:
    """Row-major index over some axes, broadcast over `shape`."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis in axes:
        stride = prod(shape[axis + 1 : axes.stop])
        index += lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride % _COUNTERS)
    return index


@partial(jax.jit, inline=True)  # the same equations, traced once for each shape
def mix(word: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Wellons' triple32, a bijection of 32-bit words; every bit in reaches every bit out."""
    word = (word ^ (word >> np.uint32(17))) * np.uint32(0xED5AD4BB)
    word = (word ^ (word >> np.uint32(11))) * np.uint32(0xAC4C1B51)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x31848BAB)
    return word ^ (word >> np.uint32(14))
