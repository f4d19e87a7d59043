"""What job `distribute` measures: placements, which devices they lose, and how that is recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from afpjax.experiment.prepare import Experiment
from afpjax.jobs.distribute.settings import Distribute
from afpjax.jobs.shared.records import Record
from afpjax.jobs.shared.scoring import Scored
from afpjax.neurons import failures, methods
from afpjax.neurons.distribute import distribute, points
from afpjax.neurons.failures import Failures, every, outcomes, preserved
from afpjax.neurons.methods.robustdice import clusters
from afpjax.neurons.placement import Placement, largest_share
from afpjax.neurons.scoring import Scores
from afpjax.neurons.stability import stability

SAFE_SPARE = "cdc-safe-spare"  # coded computing as the paper reads it: its spare never fails
Right = Bool[np.ndarray, "_ _ _"]  # sets of failed devices, fault draws, images


class Case(NamedTuple):
    """A placement that loses devices, and what a record says of it beside its accuracy."""

    placement: Placement
    failures: Failures
    about: Record


@dataclass(frozen=True)
class Distribution:
    """An experiment whose neurons are scored, ready to be shared out."""

    experiment: Experiment
    scored: Scored

    @property
    def given(self) -> Distribute:
        return self.experiment.config.distribute

    @property
    def layers(self) -> Any:
        return self.experiment.graph.layers

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each layer, as the experiment has them."""
        given = self.given.thresholds
        return given * len(self.layers) if len(given) == 1 else given

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
            names=scores or self.given.scores,
            normalise=normalise or self.given.normalise,
            seed=self.experiment.config.run.seed,
            whole_classifier=self.given.classifier == "whole",
        )

    def points(self, layer: str) -> Float64[np.ndarray, "C S"]:
        """A layer's neurons on the scale that clusters are made on."""
        return points(self.scored.scores[layer], self.given.scores, self.given.normalise)

    def clusters(self, layer: str, threshold: float) -> list[Any]:
        return clusters(self.points(layer), threshold)

    def stability(self, devices: int) -> Record:
        """How much RobustDiCE's placement depends on the scoring images; {} where unknown."""
        if not self.scored.pairs:
            return {}

        def place(scores: Scores) -> Placement:
            return replace(self, scored=self.scored._replace(scores=scores)).place(*asked)

        asked = ("robustdice", devices)
        halves = [(place(first), place(second)) for first, second in self.scored.pairs]
        found = stability(self.place(*asked), halves, self.layers)
        return {
            "method": "robustdice",
            "devices": devices,
            "images": self.scored.images,
            "halvings": len(self.scored.pairs),
            "memory": found.memory.value,
            "memory_interval": list(found.memory.interval),
            "overlap": found.overlap,
            "overlap_lowest": found.overlap_lowest,
            "overlap_highest": found.overlap_highest,
        }

    def fail(self, devices: Sequence[int], lost: int) -> Failures:
        return every(devices, lost, seed=self.experiment.config.run.seed)

    def losses(self, devices: int) -> list[int]:
        """How many of so many devices are lost."""
        return [lost for lost in self.given.lost or range(1, devices) if lost < devices]

    @property
    def first(self) -> tuple[int, int]:
        """The first number of devices, and its smallest loss: what most comparisons are made at."""
        devices = self.given.devices[0]
        return devices, min((lost for lost in self.losses(devices) if lost), default=1)

    def case(self, placement: Placement, lost: int, **about: Any) -> Case:
        """Any of the devices may be lost."""
        named = {"method": placement.method, "devices": placement.devices, "failed": lost}
        failures = self.fail(range(placement.devices), lost)
        memory = {"memory": largest_share(placement, self.layers)}
        return Case(placement, failures, named | about | memory)

    def methods(self) -> Iterator[Case]:
        """Every method on every number of devices, with every loss."""
        for devices in self.given.devices:
            for method in self.given.methods:
                if devices < methods.method(method).fewest_devices:
                    continue
                placement = self.place(method, devices)
                for lost in self.losses(devices):
                    case = self.case(placement, lost)
                    yield case
                    if method == "cdc":
                        workers = self.fail(range(devices - 1), lost)
                        named = case.about | {"method": SAFE_SPARE}
                        yield case._replace(failures=workers, about=named)

    def measured(
        self, cases: Sequence[Case], description: str, substitute: str = ""
    ) -> list[Right]:
        """Which held-out images stay right, for every case, F sets of failed devices each."""
        evaluator = self.experiment.without(substitute or self.given.substitute)
        pairs = [(case.placement, case.failures) for case in cases]
        total = sum(len(failures.sets) for _, failures in pairs)
        with self.experiment.work.progress.task(description, total) as task:
            return outcomes(evaluator, pairs, progress=task.advance)


def brief(case: Case, right: Right) -> Record:
    """What a case is, and the accuracy that it keeps."""
    kept = preserved(case.failures, right)
    return case.about | {"accuracy": kept.accuracy, "accuracy_interval": list(kept.interval)}


def full(case: Case, right: Right) -> Record:
    """With the sets of failed devices that cost most and least."""
    kept = preserved(case.failures, right)
    return brief(case, right) | {
        "accuracy_worst": kept.worst,
        "accuracy_best": kept.best,
        "worst_failed": list(kept.worst_set),
        "best_failed": list(kept.best_set),
        "sets": len(case.failures.sets),
        "sampled": case.failures.sampled,
    }


def difference(one: tuple[Case, Right], other: tuple[Case, Right]) -> Record:
    """How much more `one` keeps than `other`, on the same images."""
    mean, interval = failures.difference(*((case.failures, right) for case, right in (one, other)))
    return {"difference": mean, "difference_interval": list(interval)}
