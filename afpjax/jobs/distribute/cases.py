"""Placements of an experiment's neurons, which devices they lose, and what they then keep."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float64

from afpjax.experiment.prepare import Experiment
from afpjax.jobs.distribute.result import SAFE_SPARE, StabilityResult
from afpjax.jobs.distribute.settings import Distribute
from afpjax.jobs.shared.result import Estimate
from afpjax.jobs.shared.scoring import Scored
from afpjax.network.layers import Layer
from afpjax.neurons import failures, methods
from afpjax.neurons.distribute import distribute, points
from afpjax.neurons.failures import Failures, every, outcomes, preserved
from afpjax.neurons.methods.robustdice import clusters
from afpjax.neurons.placement import Placement, largest_share
from afpjax.neurons.scoring import Scores
from afpjax.neurons.stability import stability

Right: TypeAlias = Bool[np.ndarray, "_ _ _"]  # sets of failed devices, fault draws, images


class Case(NamedTuple):
    """A placement that loses so many devices."""

    placement: Placement
    failures: Failures
    method: str
    failed: int
    memory: float  # share of the weights on the fullest device
    threshold: float | None = None

    def kept(self, right: Right) -> dict[str, Any]:
        """The fields of `Kept`, from the images that stay right."""
        left = preserved(self.failures, right)
        return {
            "method": self.method,
            "devices": self.placement.devices,
            "failed": self.failed,
            "threshold": self.threshold,
            "memory": self.memory,
            "accuracy": Estimate(left.accuracy, *left.interval),
        }

    def kept_by_sets(self, right: Right) -> dict[str, Any]:
        """The fields of `KeptBySets`."""
        left = preserved(self.failures, right)
        return self.kept(right) | {
            "accuracy_worst": left.worst,
            "accuracy_best": left.best,
            "worst_failed": left.worst_set,
            "best_failed": left.best_set,
            "sets": len(self.failures.sets),
            "sampled": self.failures.sampled,
        }


Outcome: TypeAlias = tuple[Case, Right]


def difference(one: Outcome, other: Outcome) -> Estimate:
    """How much more `one` keeps than `other`, on the same images."""
    mean, interval = failures.difference(*((case.failures, right) for case, right in (one, other)))
    return Estimate(mean, *interval)


@dataclass(frozen=True)
class Distribution:
    """An experiment whose neurons are scored, ready to be shared out."""

    experiment: Experiment
    scored: Scored

    @property
    def settings(self) -> Distribute:
        return self.experiment.config.distribute

    @property
    def layers(self) -> Sequence[Layer]:
        return self.experiment.graph.layers

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each layer, as the experiment has them."""
        values = self.settings.thresholds
        return values * len(self.layers) if len(values) == 1 else values

    def place(
        self,
        method: str,
        devices: int,
        thresholds: float | Sequence[float] | None = None,
        *,
        scores: Sequence[str] = (),
        normalise: str = "",
    ) -> Placement:
        """A method's placement, with the experiment's settings where nothing else is said."""
        return distribute(
            self.experiment.network,
            self.scored.scores,
            devices,
            self.thresholds if thresholds is None else thresholds,
            method=method,
            names=scores or self.settings.scores,
            normalise=normalise or self.settings.normalise,
            seed=self.experiment.config.run.seed,
            whole_classifier=self.settings.classifier == "whole",
        )

    def points(self, layer: str) -> Float64[np.ndarray, "C S"]:
        """A layer's neurons on the scale that clusters are made on."""
        return points(self.scored.scores[layer], self.settings.scores, self.settings.normalise)

    def clusters(self, layer: str, threshold: float) -> int:
        """How many clusters a layer's neurons are in."""
        return len(clusters(self.points(layer), threshold))

    def stability(self, devices: int) -> StabilityResult | None:
        """How much RobustDiCE's placement depends on the scoring images; None where unknown."""
        if not self.scored.pairs:
            return None

        def place(scores: Scores) -> Placement:
            other = replace(self, scored=self.scored._replace(scores=scores))
            return other.place("robustdice", devices)

        halves = [(place(first), place(second)) for first, second in self.scored.pairs]
        stable = stability(self.place("robustdice", devices), halves, self.layers)
        return StabilityResult(
            "robustdice",
            devices,
            self.scored.images,
            len(halves),
            Estimate(stable.memory.value, *stable.memory.interval),
            stable.overlap,
            stable.overlap_lowest,
            stable.overlap_highest,
        )

    def losses(self, devices: int) -> list[int]:
        """How many of so many devices are lost."""
        return [lost for lost in self.settings.lost or range(1, devices) if lost < devices]

    @property
    def first(self) -> tuple[int, int]:
        """The first number of devices, and its smallest loss: what most comparisons are made at."""
        devices = self.settings.devices[0]
        return devices, min((lost for lost in self.losses(devices) if lost), default=1)

    def methods(self, devices: int) -> Iterator[tuple[str, Placement]]:
        """Every method that so many devices are enough for, with its placement."""
        for name in self.settings.methods:
            if devices >= methods.method(name).fewest_devices:
                yield name, self.place(name, devices)

    def case(self, placement: Placement, lost: int, threshold: float | None = None) -> Case:
        """Any of the devices may be lost."""
        sets = self.fail(range(placement.devices), lost)
        memory = largest_share(placement, self.layers)
        return Case(placement, sets, placement.method, lost, memory, threshold)

    def cases(self) -> Iterator[Case]:
        """Every method on every number of devices, with every loss."""
        for devices in self.settings.devices:
            for name, placement in self.methods(devices):
                for lost in self.losses(devices):
                    case = self.case(placement, lost)
                    yield case
                    if placement.spare is not None:
                        workers = self.fail(range(devices - 1), lost)
                        yield case._replace(failures=workers, method=name + SAFE_SPARE)

    def fail(self, devices: Sequence[int], lost: int) -> Failures:
        return every(devices, lost, seed=self.experiment.config.run.seed)

    def measured(
        self, cases: Sequence[Case], description: str, substitute: str = ""
    ) -> list[Right]:
        """Which held-out images stay right, for every case, F sets of failed devices each."""
        evaluator = self.experiment.without(substitute or self.settings.substitute)
        pairs = [(case.placement, case.failures) for case in cases]
        total = sum(len(sets.sets) for _, sets in pairs)
        with self.experiment.work.progress.task(description, total) as task:
            return outcomes(evaluator, pairs, progress=task.advance)
