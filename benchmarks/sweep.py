"""`sweep`: every layer struck alone, as a share of as many passes with everything struck."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from afpjax.faults.spec import Thresholds
from benchmarks import ours
from benchmarks.population import SEPARATE, check_rows, separate
from benchmarks.table import Row, number
from benchmarks.timing import Contestant, Effort, race, speedup

SWEEP = "sweep"


def measure(effort: Effort) -> Iterator[Row | str]:
    made = ours.make("resnet18")
    trials, images = (2, 16) if effort.quick else (16, 64)
    limits = alone(made.limits())
    check_rows(made, "sweep", limits, images=8, count=4)
    contestants = [_sweep(made, limits, trials, images), separate(made, images)]
    times = race(contestants, effort)
    passes = made.layers * trials
    yield Row(
        f"{made.layers} layers of ResNet-18 struck alone × {trials} trials × {images} images ÷ "
        f"{made.layers} × {trials} full passes",
        speedup(times[SEPARATE], times[SWEEP]),
        f"{number(times[SWEEP].median_s * passes)} s",
        f"{number(times[SEPARATE].median_s * passes)} s in full",
        0.6,
        0.5,
        less=True,
        figures={"sweep": times[SWEEP].figures(), "full": times[SEPARATE].figures()},
    )


def alone(limits: Thresholds) -> Thresholds:
    """From thresholds of one mapping, those of L runs: in run l only layer l is struck."""

    def rows(table: np.ndarray) -> np.ndarray:
        struck = np.eye(table.shape[1], dtype=bool)
        return np.where(struck[:, :, None], table, np.uint32(0))

    return jax.tree.map(lambda table: rows(np.asarray(table)), limits)


def _sweep(made: ours.Ours, limits: Thresholds, trials: int, images: int) -> Contestant:
    evaluator = made.evaluator(images)

    def run(numbers: Sequence[int]) -> None:
        for each in numbers:
            fresh = range(each * trials, (each + 1) * trials)
            evaluator.evaluate(ours.FAULTS, limits, fresh)

    return Contestant(SWEEP, run, made.layers * trials)
