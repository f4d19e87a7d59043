"""What an evaluator is asked for as rows of a plan, and the names that answers are kept under."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, UInt32

from afpjax.evaluate.plan import Row, Strike
from afpjax.evaluate.served import digest
from afpjax.faults.budget import rows_within_budget
from afpjax.faults.link import met_on_the_way
from afpjax.faults.model import Thresholds, words
from afpjax.faults.strike import Draws
from afpjax.network.layers import Layer
from afpjax.network.program import Program


class Asked(NamedTuple):
    """One network under one set of faults, whatever the trial."""

    name: Callable[[int], bytes]  # what a trial's answer is remembered by
    row: Callable[[tuple[int, ...]], Row]  # of some trials, one on each device


class Asker(NamedTuple):
    """Whose answers are asked for: its name tells them from those of others in one memory."""

    name: str
    layers: tuple[Layer, ...]
    seed: UInt32[Array, "2"]
    count: int  # images
    program: Program

    def at_rates(self, draws: Draws, limits: Thresholds) -> Asked:
        """A network whose layers are struck at thresholds [L, columns], what it sends at [W]."""
        met = met_on_the_way(self.program, limits.links)

        def name(trial: int) -> bytes:
            if not any(met) and not limits.weights.any() and not limits.activations.any():
                return f"{self.name} clean".encode()  # in every trial
            kind = f"{self.name} {draws.name(linked=any(met))}".encode()
            crossing = [limits.links] if any(met) else []
            parts = (limits.weights, limits.activations, *crossing, np.uint32(trial))
            return b"|".join([kind, *(part.tobytes() for part in parts)])

        def row(trials: tuple[int, ...]) -> Row:
            weights, inputs = (np.asarray(each) for each in limits)
            if draws.budget is not None:
                weights, inputs = rows_within_budget(
                    draws, self.layers, limits, self.seed, trials, self.count
                )
            strikes = (
                Strike(words(weights[..., layer, :]), words(inputs[..., layer, :]))
                for layer in range(len(self.layers))
            )
            return Row(trials, tuple(strikes), met)

        return Asked(name, row)

    def served(
        self,
        draws: Draws,
        strikes: tuple[Strike, ...],
        links: UInt32[np.ndarray, "W *words"] | None = None,
    ) -> Asked:
        """A network whose neurons devices share out: see `served.strikes_of`."""
        met = met_on_the_way(self.program, links)
        drawn = any(met) or any(strike.drawn for strike in strikes)
        own = digest(strikes) + b"".join(met)
        kind = draws.name(linked=any(met))

        def name(trial: int) -> bytes:
            return f"{self.name} {kind} {trial if drawn else None}|".encode() + own

        return Asked(name, lambda trials: Row(trials, strikes, met))
