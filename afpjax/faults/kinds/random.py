"""A value becomes a random word of the format."""

import jax.numpy as jnp
import numpy as np

from afpjax.faults.bits import mix
from afpjax.faults.kinds import FaultKind

_SALT = 0x6C62272E


def inject(codes, draws, bits):
    hit, word = draws.hits()
    # A draw's own low bits are those of a product: mixed once more, all are alike.
    return draws.change(codes, hit, mix(word ^ jnp.uint32(_SALT)), "flip")


def single(start, random, width, length):
    return random() & np.uint64((1 << width) - 1)


KIND = FaultKind(inject, "value", single=single, by_bit=False)
