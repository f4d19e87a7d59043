"""`population`: what 64 mappings cost together, as a share of what they cost one by one.

ResNet-18 over two devices, whose 4 low bits flip at 20 % and 2 %; 64 mappings × 4 trials × 64
images, new trials every time. *Random*: every layer's device is a fair coin. *Converged*: 64
mutants of one such mapping; each layer moves to the other device with probability 1 / 21, whichever
the mapping is, as NSGA-II's reset mutation does at its usual rate. So on average one layer of a
mutant differs, and some 23 of 64 are the mapping itself. The separate passes are of one mapping,
each in another trial, so that they have nothing in common; all cores work on them too.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Int

from afpjax.faults.spec import Thresholds
from afpjax.network import compiler
from benchmarks import ours
from benchmarks.agreement import check_equal
from benchmarks.table import Row, number
from benchmarks.timing import Contestant, Effort, race, speedup

SEPARATE = "a separate pass"
LIMITS = {"random": (0.5, 0.3), "converged": (0.25, 0.1)}  # kind: required, aim


def mappings(kind: str, size: int, layers: int, seed: int = 0) -> Int[np.ndarray, "P L"]:
    """A population over two devices, "random" or "converged" (see above)."""
    draw = np.random.default_rng(seed)
    if kind == "random":
        return draw.integers(0, 2, (size, layers), dtype=np.int32)
    parent = draw.integers(0, 2, layers, dtype=np.int32)
    moved = draw.random((size, layers)) < 1 / layers
    return np.where(moved, 1 - parent, parent).astype(np.int32)


def measure(effort: Effort) -> Iterator[Row | str]:
    made = ours.make("resnet18")
    size, trials, images = (8, 1, 16) if effort.quick else (64, 4, 64)
    limits = {
        kind: made.limits(ours.TWO_DEVICES, mappings(kind, size, made.layers)) for kind in LIMITS
    }
    for kind, of_kind in limits.items():
        check_rows(made, kind, of_kind, images=8, count=3)
    contestants = [together(made, kind, limits[kind], trials, images) for kind in LIMITS]
    times = race([*contestants, separate(made, images)], effort)
    for kind in LIMITS:
        yield Row(
            f"{size} mappings ({kind}) × {trials} trials × {images} images of ResNet-18 ÷ "
            f"{size * trials} separate passes",
            speedup(times[SEPARATE], times[kind]),
            f"{number(times[kind].median_s * size * trials)} s",
            f"{number(times[SEPARATE].median_s * size * trials)} s one by one",
            *LIMITS[kind],
            less=True,
            figures={"together": times[kind].figures(), "separate": times[SEPARATE].figures()},
        )


def separate(made: ours.Ours, images: int) -> Contestant:
    """Passes that share nothing: one mapping, everything struck, a new trial each."""
    evaluator, limits = made.evaluator(images), made.limits()

    def run(numbers: Sequence[int]) -> None:
        evaluator.evaluate(ours.FAULTS, limits, numbers)

    return Contestant(SEPARATE, run, 1, 2 * compiler.workers())


def together(
    made: ours.Ours, kind: str, limits: Thresholds, trials: int, images: int
) -> Contestant:
    evaluator = made.evaluator(images)

    def run(numbers: Sequence[int]) -> None:
        for each in numbers:
            fresh = range(each * trials, (each + 1) * trials)
            evaluator.evaluate(ours.TWO_DEVICES, limits, fresh)

    return Contestant(kind, run, len(limits.weights) * trials)


def check_rows(made: ours.Ours, what: str, limits: Thresholds, *, images: int, count: int) -> None:
    """Raise `Disagrees` unless rows that share their work get the answers they get alone."""
    places = np.linspace(0, len(limits.weights) - 1, count).astype(int)
    chosen = jax.tree.map(lambda table: np.asarray(table)[places], limits)
    together = made.evaluator(images).evaluate(ours.FAULTS, chosen, [ours.CHECKED])[:, 0]
    for row, weights, inputs in zip(together, *chosen[:2], strict=True):
        alone = ours.correct_directly(made, images, Thresholds(weights, inputs), ours.CHECKED)
        check_equal(what, alone, row)
