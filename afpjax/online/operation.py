"""How a system is run, and what comes of a stream: the words that policies are written in.

Shape legend: D devices, L layers, T steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from afpjax.online.costs_now import System
from afpjax.online.current import Curve, Estimate
from afpjax.online.environment import State
from afpjax.online.stream import Mapping, Stream, answers
from afpjax.online.watch import Rule


class Price(NamedTuple):
    """What something costs once, beside the images of the stream."""

    ms: float = 0.0
    mj: float = 0.0

    def __add__(self, other: "Price") -> "Price":  # pyright: ignore
        return Price(self.ms + other.ms, self.mj + other.mj)


@dataclass(frozen=True)
class Operation:
    """How the system is run. `moving(layers)` prices the weights of some layers on the link."""

    system: System
    stream: Stream
    curves: tuple[Curve, ...]  # of each device
    rule: Rule
    theta: float
    gain: float
    dwell: int
    review: int
    canaries: int
    probes: int
    batch: int
    per_inference: int  # images that the devices take at once; costs are of so many
    step_ms: float
    oracle: bool
    moving: Callable[[Sequence[int]], Price]


class Event(NamedTuple):
    """One step: what was, what was seen, and what was done."""

    step: int
    state: State
    mapping: Mapping
    accuracy: float  # true, of held-out images
    drop: float  # true
    latency_ms: float
    energy_mj: float
    observed: float | None = None  # share of failing canaries over the last steps
    observed_interval: tuple[float, float] | None = None
    evidence: float | None = None
    repartitioned: bool = False  # another mapping runs from this step on
    reason: str = ""  # why something was decided after this step
    estimated: tuple[Estimate | None, ...] = ()  # rates, where devices were probed
    expected_drop: float | None = None  # of what was decided
    cut: bool = False  # time ended the search


class Streamed(NamedTuple):
    """A whole stream under one policy."""

    events: tuple[Event, ...]
    switches: int
    alarms: int
    searches: int
    paid: Price  # switches and probes


def time_above(events: Sequence[Event], theta: float) -> float:
    """Share of the steps whose true drop is above theta."""
    return float(np.mean([event.drop > theta for event in events]))


def means(streamed: Streamed, inferences: float) -> dict[str, Float[np.ndarray, ""] | float]:
    """Accuracy over all steps; latency and energy of an answered inference, of which a step has so
    many, with its share of what probes and switches took."""
    events = streamed.events
    answered = [event for event in events if answers(event.mapping, event.state)]
    answers_given = max(len(answered), 1) * inferences
    latency, energy = (
        float(np.mean([getattr(event, name) for event in answered] or [0.0]))
        for name in ("latency_ms", "energy_mj")
    )
    return {
        "accuracy": float(np.mean([event.accuracy for event in events])),
        "latency_ms": latency + streamed.paid.ms / answers_given,
        "energy_mj": energy + streamed.paid.mj / answers_given,
        "switches": float(streamed.switches),
    }
