"""Faults in the link between devices: words whose bits flip on their way, packets that get lost.

What crosses is the word of the activation format, code = encode(value, step); faults are in it, and
the receiver reads the value itself where the code arrived as it was sent, else the code that
arrived times the step. So nothing changes where nothing is faulty, bit for bit.

A value that goes to several devices is broadcast: its draw follows from (seed, trial, value,
image), whoever receives it, and all of them read what arrived. Draws are then common to all
mappings, and two stages on one device read the one copy that was sent there.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32

from afpjax.faults import kinds
from afpjax.faults.spec import FaultSpec
from afpjax.network.fixed_point import QFormat, encode
from afpjax.network.program import Program
from afpjax.network.quantized import Quantized
from afpjax.network.stages import transfer_ends, transfers

_KINDS = {"bits": "flip", "zero": "lost", "last": "lost-last"}  # in every bit, or packets of values


class Wiring(NamedTuple):
    """What a stage reads from others, W values: data of its program, the same in every trial."""

    numbers: Any  # of the values, uint32 [W]
    steps: Any  # of their words, float32 [W]


def wiring_by_stage(quantized: Quantized) -> list[Wiring]:
    """Of each stage, in the order of `stages.transfers`."""
    program, every = quantized.program, transfers(quantized.program)
    numbers = np.array([wire.number for wire in every], np.uint32)
    steps = [quantized.steps[quantized.layers[wire.word].name].inputs for wire in every]
    parts = by_stage(program, numbers), by_stage(program, jnp.stack(steps))
    return [Wiring(*part) for part in zip(*parts, strict=True)]


def by_stage(program: Program, of_wires: Any) -> list[Any]:
    """What there is for each wire, cut into the stages that read them, the first stage's first."""
    return [of_wires[start:end] for start, end in pairwise((0, *transfer_ends(program)))]


def broadcast(
    program: Program, threshold: UInt32[np.ndarray, "*words"]
) -> UInt32[np.ndarray, "W *words"]:
    """Thresholds where devices share out every layer's neurons: all that a layer makes is sent."""
    sent = np.array([wire.by_layer for wire in transfers(program)], np.uint32)
    return np.multiply.outer(sent, threshold)


def arrived(
    spec: FaultSpec,
    fmt: QFormat,
    value: Array,
    stream: UInt32[Array, "2"],
    threshold: UInt32[Array, "*words"],
    step: Float[Array, ""],
) -> Array:
    """One value of one image as its receiver reads it.

    What is no float (the outcome of a comparison) has no word of the format and is never faulty.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    sent, faulty = encode(fmt, value.astype(jnp.float32), step), tuple(range(fmt.width))
    kind = kinds.named(_KINDS[spec.link])
    columns = fmt.width if kind.drawn == "bit" else 1
    thresholds = jnp.broadcast_to(threshold[..., None], (*threshold.shape, columns)).reshape(-1)
    draws = kinds.FaultDraws(fmt, sent.shape, stream, thresholds, spec.generator, spec.packet)
    got = kind.inject(sent, draws, faulty)
    return jnp.where(got == sent, value, (got * step).astype(value.dtype))


def all_arrived(
    spec: FaultSpec,
    fmt: QFormat,
    values: Sequence[Array],
    thresholds: UInt32[Array, "B W *words"],
    streams: Callable[[Array], UInt32[Array, "B 2"]],
    wiring: Wiring,
) -> tuple[Array, ...]:
    """A batch's W values as a stage reads them; `streams` of the images, by the value's number.

    A value that reaches nobody by link in the whole batch costs nothing.
    """

    def received(index: int, value: Array) -> Array:
        def on_the_way(value: Array) -> Array:
            def one(value: Array, stream: Array, threshold: Array) -> Array:
                return arrived(spec, fmt, value, stream, threshold, wiring.steps[index])

            own = streams(wiring.numbers[index])
            return jax.vmap(one)(value, own, thresholds[:, index])

        return lax.cond(thresholds[:, index].any(), on_the_way, lambda value: value, value)

    return tuple(received(index, value) for index, value in enumerate(values))
