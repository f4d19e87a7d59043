"""Faults in the link between devices: words whose bits flip on their way, packets that get lost.

What crosses is the word of the activation format, code = encode(value, step); faults strike it,
and the receiver reads the value itself where the code arrived as it was sent, else the code that
arrived times the step. So nothing changes where nothing is struck, bit for bit.

A value that goes to several devices is broadcast: its draw follows from (seed, trial, value,
image), whoever receives it, and all of them read what arrived. Draws are then common to all
mappings, and two stages on one device read the one copy that was sent there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32

from afpjax.faults import bits
from afpjax.faults.model import words
from afpjax.faults.patterns import struck
from afpjax.network.fixed_point import QFormat, encode
from afpjax.network.interpreter import Hook, Runner, run_steps
from afpjax.network.program import LayerParameters, Program, Value
from afpjax.network.quantized import Quantized
from afpjax.network.stages import stages, transfer_ends, transfers

if TYPE_CHECKING:
    from afpjax.faults.strike import Draws


class Wiring(NamedTuple):
    """What a stage reads from others, W values: data of its program, the same in every trial."""

    numbers: Any  # of the values, uint32 [W]
    steps: Any  # of their words, float32 [W]


def wiring(quantized: Quantized) -> Wiring:
    """Of the whole network, in the order of `stages.transfers`."""
    every = transfers(quantized.program)
    steps = [quantized.steps[quantized.layers[wire.word].name].inputs for wire in every]
    return Wiring(np.array([wire.number for wire in every], np.uint32), jnp.stack(steps))


def wiring_by_stage(quantized: Quantized) -> list[Wiring]:
    """Of each stage, as its program is given it."""
    numbers, steps = (by_stage(quantized.program, np.asarray(e)) for e in wiring(quantized))
    return [Wiring(*each) for each in zip(numbers, steps, strict=True)]


def by_stage(program: Program, of_wires: Any) -> list[Any]:
    """What there is for each wire, cut into the stages that read them, the first stage's first."""
    return [of_wires[start:end] for start, end in pairwise((0, *transfer_ends(program)))]


def met_on_the_way(
    program: Program, links: UInt32[np.ndarray, "W *words"] | None
) -> tuple[bytes, ...]:
    """By stage, what `plan.Row.wires` has; nothing where no value is struck."""
    if links is None or not links.any():
        return ()
    return tuple(words(each) for each in by_stage(program, links))


def broadcast(
    program: Program, limit: UInt32[np.ndarray, "*words"]
) -> UInt32[np.ndarray, "W *words"]:
    """Thresholds where devices share out every layer's neurons: all that a layer makes is sent."""
    sent = np.array([wire.by_layer for wire in transfers(program)], np.uint32)
    return np.multiply.outer(sent, limit)


def arrived(
    draws: "Draws",
    fmt: QFormat,
    value: Array,
    stream: UInt32[Array, "2"],
    limit: UInt32[Array, "*words"],
    step: Float[Array, ""],
) -> Array:
    """One value of one image as its receiver reads it.

    What is no float (the outcome of a comparison) has no word of the format and is not struck.
    """
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    sent = encode(fmt, value.astype(jnp.float32), step)
    faults = _faults(draws, fmt)
    of_all = jnp.broadcast_to(limit[..., None], (*limit.shape, faults.columns // limit.size))
    got = struck(faults, fmt, sent, stream, of_all.reshape(-1))
    return jnp.where(got == sent, value, (got * step).astype(value.dtype))


def all_arrived(
    draws: "Draws",
    fmt: QFormat,
    values: Sequence[Array],
    limits: UInt32[Array, "B W *words"],
    streams: Callable[[Array], UInt32[Array, "B 2"]],
    given: Wiring,
) -> tuple[Array, ...]:
    """A batch's W values as a stage reads them; `streams` of the images, by the value's number.

    A value that reaches nobody by link in the whole batch costs nothing.
    """

    def received(place: int, value: Array) -> Array:
        def on_the_way(value: Array) -> Array:
            def one(value: Array, stream: Array, limit: Array) -> Array:
                return arrived(draws, fmt, value, stream, limit, given.steps[place])

            return jax.vmap(one)(value, streams(given.numbers[place]), limits[:, place])

        return lax.cond(limits[:, place].any(), on_the_way, lambda value: value, value)

    return tuple(received(place, value) for place, value in enumerate(values))


def over_links(
    draws: "Draws",
    quantized: Quantized,
    limits: UInt32[Array, "W *words"],
    streams: Callable[[Array], UInt32[Array, "W 2"]],
) -> Runner:
    """Runs a whole program on one image, stage by stage, with values struck between stages."""
    program, given = quantized.program, wiring(quantized)
    own = streams(jnp.asarray(given.numbers))
    parts = by_stage(program, list(range(len(given.numbers))))

    def run(
        steps: Iterable[Any],
        environment: dict[Value, Array],
        layers: Mapping[str, LayerParameters],
        hook: Hook,
    ) -> None:
        for stage, places in zip(stages(program), parts, strict=True):
            known = {value: environment[value] for value in (*stage.constants, *stage.inputs)}
            for value, n in zip(stage.inputs, places, strict=True):
                sent = environment[value], own[n], limits[n], given.steps[n]
                known[value] = arrived(draws, quantized.format, *sent)
            if not stage.parents:
                known[program.image] = environment[program.image]
            run_steps(stage.steps, known, layers, hook)
            environment.update((value, known[value]) for value in stage.outputs)

    return run


def _faults(draws: "Draws", fmt: QFormat) -> "Draws":
    """The faults in a word of the link as those of an operand: every bit, or packets of values."""
    if draws.link == "bits":
        return replace(draws, kind="flip", bits=tuple(range(fmt.width)), rare=draws.rare_link)
    kind = {"zero": "lost", "last": "lost-last"}[draws.link]
    return replace(draws, kind=kind, length=draws.packet, rare=draws.rare_link)


def stream_of(
    draws: "Draws", seed: Array, trial: Array, image: Array
) -> Callable[[Array], UInt32[Array, "... 2"]]:
    """Streams by the numbers of values; `trial` and `image` may be [B]."""
    return lambda numbers: draws.stream(
        seed, trial=trial, layer=numbers, target=bits.LINK, image=image
    )
