"""As `lost`, but read as the last value that arrived before, or as zero before any did."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from afpjax.faults.kinds import FaultKind


def inject(codes, draws, bits):
    flat, lost = codes.reshape(-1), draws.lost().reshape(-1)
    arrived = jnp.where(lost, np.int32(-1), jnp.arange(flat.size, dtype=jnp.int32))
    last = lax.cummax(arrived)
    held = jnp.where(last < 0, jnp.zeros((), codes.dtype), flat[jnp.maximum(last, 0)])
    return held.reshape(codes.shape)


KIND = FaultKind(inject, "packet", length="packet")
