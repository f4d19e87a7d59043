"""Compiles the engine's programs for an H100 where there is none, and says what they launch.

XLA's CUDA compiler needs a description of the chip, not the chip. What comes out is what would run
there, but for what is only found by trying: autotuning is off, so times, cuDNN's algorithms and
their workspace are unknown.
"""

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from jax.experimental import topologies

from afpjax.network.compiler import Compiled

MEMORY = 80 * 2**30  # bytes
#: What XLA asks of a chip, in the words of its `GpuTargetConfigProto`: NVIDIA's H100 SXM.
_CHIP = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "memory_bandwidth": 3_350_000_000_000,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": MEMORY,
}
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}
#: Thunks that hold others, and launch nothing by themselves.
_HOLDERS = {"kWhile", "kSequential", "kConditional", "kCommandBuffer"}


class Value(NamedTuple):
    """An array that a kernel leaves in memory."""

    name: str
    opcode: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * _BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Program:
    """What one call does; stands for it among `Compiled` programs."""

    outside: Counter[str]  # kinds of thunks that launch something
    inside: Counter[str]  # those in loops, each body and condition once
    loops: int
    hlo: str
    temporary_bytes: int

    @property
    def launches(self) -> int:
        return self.outside.total() + self.inside.total()

    @property
    def values(self) -> list[Value]:
        """What kernels leave in memory, loops' bodies included, fusions' insides not."""
        return [value for line in _top_level(self.hlo) for value in _values(line)]

    @property
    def convolutions(self) -> list[tuple[str, str]]:
        """The types of image and kernel of each of cuDNN's convolutions."""
        types = dict(re.findall(r"%([\w.-]+) = (\w+)\[", self.hlo))
        calls = re.findall(r"custom-call\(%([\w.-]+), %([\w.-]+).*__cudnn\$conv", self.hlo)
        return [(types[image], types[kernel]) for image, kernel in calls]

    def __call__(self, *arguments: Any) -> Any:
        raise AssertionError("compiled for a chip that is not there")


def text() -> str:
    """The target's description."""
    chip = "\n".join(f"  {name}: {value}" for name, value in _CHIP.items())
    return (
        f"gpu_device_info {{\n{chip}\n  cuda_compute_capability {{ major: 9 }}\n}}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
        "runtime_version { major: 12 minor: 9 patch: 0 }\n"
        'device_description_str: "NVIDIA H100 80GB HBM3"\n'
    )


@lru_cache(maxsize=1)
def device() -> Any:
    """An H100 to compile for; raises where JAX has no CUDA compiler."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="1x1x1", topology="1x1x1", target_config=text()
    )
    return topology.devices[0]


def missing() -> str:
    """Why nothing can be compiled here; empty where it can."""
    try:
        device()
    except Exception as error:  # what is missing is said in many ways
        return f"no CUDA compiler (tests/h100.sh has one): {str(error).splitlines()[0]}"
    return ""


def compiled(lowered: Any) -> Compiled:
    """What `compiler._compile` does, for the chip: a `Compiled` whose call is a `Program`."""
    with tempfile.TemporaryDirectory(prefix="afpjax-h100-") as folder:
        options = {"xla_gpu_autotune_level": 0, "xla_dump_to": folder}
        made = lowered.program.compile(compiler_options=options)
        (sequence,) = Path(folder).glob("*thunk_sequence.txt")
        thunks = sequence.read_text()
    memory = made.memory_analysis()
    program = Program(*counted(thunks), made.as_text(), memory.temp_size_in_bytes)
    return Compiled(program, memory.output_size_in_bytes, memory.temp_size_in_bytes)


def counted(thunks: str) -> tuple[Counter[str], Counter[str], int]:
    """Launches outside and inside of loops, and how many loops, of a dumped sequence of thunks.

    Bodies and conditions of loops are indented.
    """
    outside, inside = Counter[str](), Counter[str]()
    loops = 0
    for line in thunks.splitlines():
        found = re.match(r"( *)\d+: (k\w+)", line)
        if not found:
            continue
        loops += found[2] == "kWhile"
        if found[2] not in _HOLDERS:
            (inside if found[1] else outside)[found[2]] += 1
    return outside, inside, loops


def _top_level(hlo: str) -> list[str]:
    """Lines of the computations whose instructions run by themselves."""
    bodies = set(
        re.findall(r"(?:body|condition|true_computation|false_computation)=%([\w.-]+)", hlo)
    )
    lines: list[str] = []
    taken = False
    for line in hlo.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            taken = bool(head[1]) or head[2] in bodies
        elif taken:
            lines.append(line)
    return lines


#: Instructions that only name what is there.
_NAMES = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "conditional"}


def _values(line: str) -> list[Value]:
    found = re.match(r"\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(", line)
    if not found or found[3] in _NAMES:
        return []
    shapes = re.findall(r"(\w+)\[([\d,]*)\]", found[2])
    return [
        Value(found[1], found[3], dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in shapes
    ]
