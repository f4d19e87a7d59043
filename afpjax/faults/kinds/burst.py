"""Adjacent faulty bits of a value, `faults.burst` of them, flip together from a random one on."""

import jax.numpy as jnp
import numpy as np

from afpjax.faults.kinds import FaultKind


def inject(codes, draws, bits):
    hit, word = draws.hits()
    starts = len(bits) - draws.length + 1  # that leave room for the rest
    start = ((word >> jnp.uint32(15)) * jnp.uint32(starts)) >> jnp.uint32(16)
    burst = jnp.uint32((1 << draws.length) - 1) << (start + jnp.uint32(bits[0]))
    return draws.change(codes, hit, burst, "flip")


def single(start, random, width, length):
    return np.uint64((1 << length) - 1) << start


KIND = FaultKind(inject, "value", single=single, length="burst")
