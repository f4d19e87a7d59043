"""What XLA is told when it compiles a network: the one place for measured switches."""

import os
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

# jaxlib 0.10 hands CPU convolutions to YNNPACK; without that fusion Eigen runs them 1.3 to 2.1
# times faster (3x3, NHWC), while matrix products and reductions stay where they are.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,"
    "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


@lru_cache(maxsize=1)
def options() -> dict[str, Any] | None:
    """Compiler options for this process's backend, or None; tried once, as versions differ."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU).lower(jnp.float32(0)).compile()
    except Exception:  # an option that this jaxlib does not know raises several kinds of error
        return None
    return _CPU


def workers() -> int:
    """Compiled programs to run at once: one per core on a CPU, one on an accelerator."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
