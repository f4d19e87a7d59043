"""What an answer follows from, as digests: the names that it is remembered under hold them.

Two digests are equal only where the answers may be shared: of the same program and arrays, worked
out by the same arithmetic. No format is left out of the latter: sums of codes above 2^24, and what
is between layers, round in float32 as well (`quantized.py`), in an order that is the compiler's and
the processor's. How many devices a process has is no part of it, nor how many cores, up
to as many as there are threads in any case (`start.THREADS`).
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.extend import core

from afpjax.network import compiler
from afpjax.network.program import Equation, Program

#: Processor features that decide how wide vectors are, and whether products are fused into sums.
_VECTORS = ("avx", "fma", "amx", "asimd", "sve", "f16c", "sse4")


@lru_cache(maxsize=1)
def arithmetic() -> str:
    """By what numbers are worked out here: backend, device, processor, compiler and its options.

    On CPUs also the number of XLA's threads, which some sums are split over.
    """
    device = jax.local_devices()[0]
    options = sorted((compiler.options(convolutions=True) or {}).items())
    parts = (device.platform, device.device_kind, f"jaxlib {version('jaxlib')}", options)
    return " ".join(map(str, parts + (tuple(_processor()) if device.platform == "cpu" else ())))


def digest(program: Program, *parts: Any) -> bytes:
    """Of a program, and of whatever else answers follow from: arrays, texts, pytrees of these."""
    state = hashlib.blake2b(f"{arithmetic()}|{program.image_shape}".encode(), digest_size=16)
    for line in _lines(program):
        state.update(line.encode())
    for part in jax.tree.leaves(parts):
        array = np.asarray(part)
        state.update(f"|{array.dtype} {array.shape}|".encode())
        text = array.dtype.kind == "U"
        state.update(str(array).encode() if text else np.ascontiguousarray(array).tobytes())
    return state.digest()


def _processor() -> Iterator[str]:
    """XLA's threads, the machine's kind and its vector features, where the system tells them."""
    yield f"{os.environ.get('NPROC') or len(os.sched_getaffinity(0))} threads"
    yield platform.machine()
    features = compiler.processor_features()
    if features is None:  # no Linux: its name has to do
        yield platform.processor()
    else:
        yield from sorted(word for word in features if word.startswith(_VECTORS))


def _lines(program: Program) -> Iterator[str]:
    """Every step: what it does, to what, and what its output looks like."""
    for step in program.steps:
        inputs = [_operand(operand) for operand in step.inputs]
        shape = step.eqn.outvars[0].aval if isinstance(step, Equation) else step.layer.output_shape
        params = plain(step.params)
        yield f"|{step.primitive.name} {inputs} {list(step.outputs)} {shape} {params}"
    yield f"|{_operand(program.output)}"


def _operand(operand: Any) -> str:
    if not isinstance(operand, core.Literal):
        return str(operand)
    return f"{operand.aval} {np.asarray(operand.val).tolist()}"


def plain(value: Any) -> Any:
    """A parameter of an equation as text that is the same in every process: no addresses."""
    if isinstance(value, core.ClosedJaxpr):
        return plain(value.jaxpr)
    if isinstance(value, core.Jaxpr):
        return [(eqn.primitive.name, plain(eqn.params)) for eqn in value.eqns]
    if isinstance(value, dict):
        return [(name, plain(value[name])) for name in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    text = str(value)
    return type(value).__name__ if " at 0x" in text else text
