"""What faults in each layer cost per unit of rate, learnt once, and the best mapping at any rates.

How much a flip rate disturbs a layer grows in proportion to it (the power of the error does, for
flips at any rate), and what several layers disturb adds up; how accuracy falls with the sum need
not be known to compare mappings. So a mapping's exposure is

    sum over layers l, on device d, of
        weights[l] * weight_rate[d] + activations[l] * activation_rate[d]

and the exact program finds the least within the limits, whatever the rates. The coefficients are
learnt offline by ridge regression (`search.ridge`) on random halves of all weights and activations
that are struck together at one rate, the largest of which leaves something to lose.

Shape legend: L layers, D devices, N measured mappings, C cases of a layer.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.faults.model import FaultModel
from afpjax.hardware.tables import CostTables
from afpjax.online.environment import MappingKey, PlatformState
from afpjax.online.runtime_costs import OnlineSearch, as_keys, need_devices
from afpjax.search import ridge
from afpjax.search.evidence import Evidence
from afpjax.search.objectives import Caps, LossObjective
from afpjax.search.program import PlacementProgram, program_of, solve, within

#: What is struck of a layer in each case: weights, activations.
CASES = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float64)
PER_COEFFICIENT = 3  # mappings measured
_HIGHEST, _LOWEST = 0.5, 0.5 / 64  # rates at which layers are struck
_KEPT = 0.3  # of what faults can take, with everything struck: then halves tell something
_TOGETHER = 16  # mappings measured at a time, between which progress is told
_LEAST = 1e-3  # of the largest coefficient, that any other counts as
_TIE = 1e-4  # of a layer's exposure: what the whole of both limits counts as


class Exposure(NamedTuple):
    """Loss per unit of rate of each layer's weights and activations, in any unit; none below 0."""

    weights: Float[np.ndarray, " L"]
    activations: Float[np.ndarray, " L"]

    def of_devices(self, state: PlatformState) -> Float[np.ndarray, "L D"]:
        """What each layer is exposed to on each device."""
        return np.outer(self.weights, state.weight_rate) + np.outer(
            self.activations, state.activation_rate
        )


def measured(layers: int) -> int:
    """How many mappings of layers to cases an exposure is learnt from."""
    return PER_COEFFICIENT * 2 * layers


def struck(evaluator: Evaluator, faults: FaultModel) -> LossObjective:
    """Layers in `CASES` instead of on devices, and a rate where a search has its factor.

    Nothing crosses between cases. `evaluator` is of metric `LOSS`.
    """
    still = replace(faults, link_rate=0.0)

    def at(rate: float) -> FaultModel:
        weight, activation = (tuple((rate * CASES[:, target]).tolist()) for target in (0, 1))
        return replace(still, weight_rate=weight, activation_rate=activation)

    return LossObjective(evaluator, at)


@dataclass(frozen=True)
class ExposureLearner:
    """What is measured to learn an `Exposure`, on an objective of `struck`."""

    objective: LossObjective
    layers: int
    chance: float  # accuracy of guessing
    seed: int

    def cases(self) -> Int[np.ndarray, "N L"]:
        """Each layer's case in each measurement: about as many of one kind as of another, mixed."""
        rng = np.random.default_rng(self.seed)
        count = measured(self.layers)
        even = np.tile(np.arange(len(CASES), dtype=np.int32), -(-count // len(CASES)))
        columns = [rng.permutation(even)[:count] for _ in range(self.layers)]
        return np.stack(columns, axis=1)

    def learn(self, progress: Progress = lambda mappings: None) -> Exposure:
        """The coefficients."""
        rate, cases, evidence = self.rate(), self.cases(), Evidence(self.objective)
        evidence.progress = progress
        for start in range(0, len(cases), _TOGETHER):
            evidence.measure(cases[start : start + _TOGETHER], factor=rate)
        known = evidence.table()
        features = CASES[known.mappings].reshape(len(known.mappings), -1)  # weights, activations
        one_level = np.zeros(len(features), int)
        found = ridge.posterior(features, known.worth, known.draws, one_level)
        lost = (-found.mean).clip(min=0).reshape(-1, 2)
        weights, activations = np.maximum(lost, _LEAST * (lost.max() or 1.0)).T / rate
        return Exposure(weights, activations)

    def rate(self) -> float:
        """The highest rate, of halves of one, at which something is kept with everything struck."""
        everything = np.full((1, self.layers), len(CASES) - 1, np.int32)
        evidence, rate = Evidence(self.objective), _HIGHEST
        least = self.chance + _KEPT * (self.objective.fault_free()[0] - self.chance)
        while rate > _LOWEST:
            evidence.measure(everything, factor=rate)
            if evidence.accuracy(everything[0], rate) >= least:
                break
            rate /= 2
        return rate


def carried(tables: CostTables) -> Exposure:
    """Where nothing was measured: each weight and activation counts the same, by its bytes."""
    return Exposure(
        np.asarray(tables.weight_bytes, np.float64), np.asarray(tables.activation_bytes, np.float64)
    )


def least_exposed(
    search: OnlineSearch, state: PlatformState, exposure: Exposure
) -> MappingKey | None:
    """The mapping that is exposed least within the limits, on devices that are there; None where
    nothing is within them.

    Of equals about the cheapest. One solve of the exact program, no fault evaluated.
    """
    need_devices(state)
    present, tables, caps = (
        np.flatnonzero(state.present),
        search.tables_now(state),
        search.limits(state),
    )
    program = program_of(_on(tables, present))
    exposed = exposure.of_devices(state)[:, present]
    objective = program.objective(-exposed) + _tie(program, exposed, caps)

    def accept(mappings: np.ndarray) -> np.ndarray:
        return within(tables, present[mappings].astype(np.int32), caps)

    found = solve(program, objective, caps, accept=accept)
    return None if found is None else as_keys(present[found][None])[0]


def _on(tables: CostTables, devices: Int[np.ndarray, "_"]) -> CostTables:
    """The tables of some of the devices."""
    return tables._replace(
        latency_ms=tables.latency_ms[:, devices],
        energy_mj=tables.energy_mj[:, devices],
        capacity_bytes=tables.capacity_bytes[devices],
    )


def _tie(
    program: PlacementProgram, exposed: Float[np.ndarray, "L D"], caps: Caps
) -> Float[np.ndarray, " V"]:
    """What costs add to the objective, so little that it decides between equals alone."""
    layer = float(exposed.mean()) or 1.0
    shares = program.latency_ms / caps.latency_ms + program.energy_mj / caps.energy_mj
    return _TIE * layer * shares
