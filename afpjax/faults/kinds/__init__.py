"""Kinds of fault. Every other file of this folder is one, by its name (with `_` for `-`).

The first line of a file's docstring is the kind's help. Its `KIND` says what the faults do, above
all `inject`: a pure function of codes, of what is drawn for them, and of the faulty bits, to codes.
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32, UInt64

from afpjax.faults import bits
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat, change


@dataclass(frozen=True)
class FaultDraws:
    """What is drawn for one tensor of codes; all of it fuses into the pass that reads the codes."""

    format: QFormat
    shape: tuple[int, ...]
    stream: UInt32[Array, "2"]
    thresholds: UInt32[Array, "columns ..."]  # of every faulty bit, or one of every value or packet
    generator: str
    length: int  # bits of a burst, values of a packet

    def mask(self, faulty: Sequence[int]) -> Int[Array, "..."]:
        """Each of the faulty bits where its own draw hits it, int32."""
        stream, thresholds = self.stream, self.thresholds
        return bits.flip_mask(stream, self.shape, faulty, thresholds, generator=self.generator)

    def hits(self) -> tuple[Bool[Array, "..."], UInt32[Array, "..."]]:
        """Which values are hit, and a draw of 31 bits more for each of them."""
        hit, word = bits.draws(self.stream, self.shape, 2, generator=self.generator)
        return self._below(hit), word

    def lost(self) -> Bool[Array, "..."]:
        """Which values were in a packet that is hit: `length` after one another each."""
        count = prod(self.shape)
        length = min(self.length, count)
        (hit,) = bits.draws(self.stream, (-(-count // length),), 1, generator=self.generator)
        lost = jnp.repeat(self._below(hit), length)  # of one length: no more than a broadcast
        return lost[:count].reshape(self.shape)

    def change(
        self,
        codes: Float[Array, "..."],
        hit: Bool[Array, "..."],
        word: UInt32[Array, "..."] | np.uint32,
        how: str,
    ) -> Float[Array, "..."]:
        """Codes with the bits of a word flipped, cleared or set where they are hit."""
        mask = jnp.asarray(word).view(jnp.int32)
        return change(self.format, codes, jnp.where(hit, mask, np.int32(0)), how)

    def _below(self, draw: UInt32[Array, "..."]) -> Bool[Array, "..."]:
        return bits.below(self.stream, draw, 0, self.thresholds, 1, generator=self.generator)


#: Words of single faults: (where they begin, a source of random words, bits of a value, length).
Words = Callable[
    [UInt64[np.ndarray, "I n"], Callable[[], UInt64[np.ndarray, "I n"]], int, int],
    UInt64[np.ndarray, "I n"],
]


class FaultKind(NamedTuple):
    """What the faults of a kind do.

    `drawn`: what has a draw of its own, and so what a rate is the probability of: each faulty
    "bit", each "value", or each "packet" of values. `single`: which bits of its value a single
    fault touches, None where campaigns have no single faults; they are numbered by the bit that
    they begin at where `by_bit`. `how`: whether these are to "flip", "clear" or "set". `length`:
    the fault model's setting that gives `FaultDraws.length`, if any.
    """

    inject: Callable[[Float[Array, "..."], FaultDraws, tuple[int, ...]], Float[Array, "..."]]
    drawn: str = "bit"
    how: str = "flip"
    single: Words | None = None
    by_bit: bool = True
    length: str = ""


def names() -> tuple[str, ...]:
    """The kinds that there are, read from the folder; none is imported."""
    return tuple(sorted(file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__)))


@cache  # asked for with every fault
def named(name: str) -> FaultKind:
    """The kind of a name. Raises `InputError` where no file has it."""
    if name not in names():
        raise InputError(f"faults.kind: {name!r} is none of {', '.join(names())}")
    return import_module(f"{__name__}.{name.replace('-', '_')}").KIND


def one_bit(start, random, width, length) -> UInt64[np.ndarray, "I n"]:
    """A single fault in one bit."""
    return np.uint64(1) << start


def whole_value(start, random, width, length) -> UInt64[np.ndarray, "I n"]:
    """A single fault in all bits of a value."""
    return np.full(start.shape, (1 << width) - 1, np.uint64)
