"""What must be in the environment before JAX starts, or it computes something else without a word.

XLA reads it once, when its first backend is made: `import afpjax` sets it, so that it holds for all
programs of a process and for the processes that it starts. What anybody has set already stays.
`network/self_check.py` finds out whether it came in time.
"""

import os
import sys
from collections.abc import MutableMapping
from importlib import metadata

#: XLA's name for what a CPU leaves to the library YNNPACK, and what that may be: matrix products by
#: themselves. jaxlib 0.10.2 hands over products with the reductions that follow and reductions too:
#: wrong numbers (jax-ml/jax#39103), crashes (#39257) and slower programs (#37465).
LEFT_TO_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
PRODUCTS_ALONE = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"

#: cuDNN may choose algorithms for convolutions that do not sum the products: `network/units.py`.
SUMS_ONLY = {"TF_ENABLE_WINOGRAD_NONFUSED": "0", "TF_ENABLE_FFT_TILING_FORWARD": "0"}
#: The fewest threads of XLA's. It takes one for each core that the process may use, and splits some
#: long sums over them, so that their number decides how these round: with never fewer than two,
#: one core gives the bits of two. Four on two cores made single images under masks a fifth slower.
THREADS = 2
_KNOWN = ("0.10.", "0.11.")  # jaxlib that has the flag; others end the process over unknown ones


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what is not set yet; nothing once XLA has read it, as caches go by what stands there."""
    if _begun():
        return
    for name, value in SUMS_ONLY.items():
        environment.setdefault(name, value)
    environment.setdefault("NPROC", str(max(THREADS, len(os.sched_getaffinity(0)))))
    flags = environment.get("XLA_FLAGS", "")
    if LEFT_TO_YNNPACK not in flags and jaxlib_version().startswith(_KNOWN):
        environment["XLA_FLAGS"] = f"{flags} --{LEFT_TO_YNNPACK}={PRODUCTS_ALONE}".strip()


def _begun() -> bool:
    """Whether a backend of JAX has been made; JAX says so in a module of its own alone."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def jaxlib_version() -> str:
    """As its package says it; nothing where jaxlib is not installed in the usual way."""
    try:
        return metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return ""
