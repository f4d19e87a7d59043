"""What XLA is told when it compiles and runs a network: the one place for measured switches."""

import ctypes
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil

from afpjax.inputs.errors import InputError
from afpjax.network.start import LEFT_TO_YNNPACK, PRODUCTS_ALONE

# Of what jaxlib 0.10 hands to YNNPACK, matrix products by themselves stay there: `start` says what
# is wrong with the others. Said here once more for processes in which JAX had started before.
# Convolutions are Eigen's, but for the few that YNNPACK is faster at (`units.suits_ynnpack`).
# Vectors of 512 bits, where the machine has them: bit masks 1.4 times faster, nothing slower.
_CPU = {LEFT_TO_YNNPACK: PRODUCTS_ALONE, "xla_cpu_prefer_vector_width": 512}

_CONVOLUTIONS = f"{PRODUCTS_ALONE},LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"

_SOONER = {"xla_backend_optimization_level": 0}

UNITS = ("float32", "bfloat16", "int8")
#: Each layer its own, by a rule of `network/units.py`. The number is the rule's: answers are
#: remembered under it, and another rule may round sums beyond 2^24 in another way.
BY_LAYER = "by layer 1"


@lru_cache(maxsize=2)
def options(*, convolutions: bool = False) -> dict[str, Any] | None:
    """Compiler options for this process's backend, or None; tried once, as versions differ.

    `convolutions`: with those of a program on YNNPACK.
    """
    if jax.default_backend() != "cpu":
        return None
    own = _CPU | {LEFT_TO_YNNPACK: _CONVOLUTIONS} if convolutions else _CPU
    if _known(own):
        return own
    return options() if convolutions else None


@lru_cache(maxsize=1)
def sooner() -> dict[str, Any] | None:
    """Options for small programs that take longer to compile than to run; None where there are
    none.

    Without LLVM's optimisation a generation of NSGA-II compiles in 2.7 s of CPU time instead of
    4.6, and takes 0.7 ms with 40 individuals as before (100: 1.7 instead of 0.7; 1,000: 30
    instead of 6).
    """
    if jax.default_backend() == "cpu" and _known(_SOONER):
        return _SOONER
    return None


def _known(own: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options=own).lower(jnp.float32(0)).compile()
    except Exception:  # an option that this jaxlib does not know raises several kinds of error
        return False
    return True


def workers() -> int:
    """Compiled programs to run at once: one per core on a CPU, one on an accelerator."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1


def units() -> str:
    """The units that integer codes are multiplied on: `network/units.py` says how.

    One of `UNITS`, or `BY_LAYER`. Those of bfloat16 on accelerators; a CPU emulates bfloat16: each
    layer its own where the CPU multiplies bytes, or else float32's. The environment variable
    AFPJAX_UNITS forces one of `UNITS`. Raises `InputError` where it says anything else.
    """
    forced = os.environ.get("AFPJAX_UNITS")
    if forced and forced not in UNITS:
        raise InputError(f"AFPJAX_UNITS: {forced!r} is none of {', '.join(UNITS)}; choose one")
    if forced or jax.default_backend() != "cpu":
        return forced or "bfloat16"
    return BY_LAYER if options() and multiplies_bytes() else "float32"


def multiplies_bytes() -> bool:
    """Whether this CPU has instructions that YNNPACK multiplies bytes with."""
    return not {"avx512_vnni", "amx_int8"}.isdisjoint(processor_features() or ())


@lru_cache(maxsize=1)
def processor_features() -> frozenset[str] | None:
    """What this CPU can do, as Linux names it; None where no Linux says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    words = (line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "feat")))
    return frozenset(next(words, "").split())


def keep_memory() -> None:
    """Have the C library keep what XLA frees instead of handing it back to the system.

    XLA's CPU buffers come from the C allocator, which maps large ones anew for every call: a pass
    over 64 MB then spends 28 ms, 23 of them in page faults (glibc 2.36, Linux). For processes that
    run jobs; a library leaves its host's allocator alone. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no such handle
        return
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):
        mallopt(parameter, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX


def memory_bytes() -> int:
    """Memory that an evaluation may fill on each device: half of what is free."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:  # accelerators; a CPU device does not say
        return max(0, stats["bytes_limit"] - stats.get("bytes_in_use", 0)) // 2
    free = psutil.virtual_memory().available
    return free // (2 * len(jax.local_devices()))


@dataclass(frozen=True)
class Compiled:
    """A compiled program of bare arrays, and the memory that a call takes on a device, bytes.

    It takes pytrees, whose arrays count in order, and returns a tuple of arrays.
    """

    call: Callable[..., tuple[jax.Array, ...]]
    output_bytes: int
    temporary_bytes: int

    def __call__(self, *arguments: Any) -> tuple[jax.Array, ...]:
        return self.call(*(tuple(jax.tree.leaves(argument)) for argument in arguments))


@dataclass(frozen=True)
class _Lowered:
    """A program before compilation; equal programs are equal whatever they were made from."""

    text: str
    device: Any  # that it is compiled for; None for JAX's own
    convolutions: bool  # on YNNPACK
    program: Any = field(compare=False)


def compile_all(
    programs: Sequence[Any], device: Any = None, convolutions: Collection[int] = ()
) -> list[Compiled]:
    """Compile programs lowered for a device (`jax.jit(…).lower(…)`) on all cores, each once.

    `convolutions`: the places of those whose convolutions go to YNNPACK.
    """
    lowered = [
        _Lowered(program.as_text(), device, place in convolutions, program)
        for place, program in enumerate(programs)
    ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        distinct = list(dict.fromkeys(lowered))
        made = dict(zip(distinct, pool.map(_compile, distinct), strict=True))
    return [made[program] for program in lowered]


@lru_cache(maxsize=512)
def _compile(lowered: _Lowered) -> Compiled:
    program = lowered.program.compile(compiler_options=options(convolutions=lowered.convolutions))
    memory = program.memory_analysis()
    if memory is None:  # a backend that does not say
        return Compiled(program, 0, 0)
    return Compiled(program, memory.output_size_in_bytes, memory.temp_size_in_bytes)
