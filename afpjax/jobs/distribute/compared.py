"""What job `distribute` compares beside methods: memories, scores, scales and substitutes.

Scores and scales put different placements at the same threshold; so that more memory does not pass
for a better score, each gets the threshold that leads to the memory of the experiment's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

from afpjax.jobs.distribute.cases import Case, Distribution, Right, brief, difference
from afpjax.jobs.shared.records import Record
from afpjax.neurons.distribute import NORMALISATIONS
from afpjax.neurons.failures import SUBSTITUTES
from afpjax.neurons.importance import NAMES
from afpjax.neurons.placement import largest_share
from afpjax.neurons.thresholds import threshold_for

CASES = 17  # ways to score, to scale and to substitute that are compared, at most
RIVALS = ("robustdice", "topk", "random", "randomk")  # that have a memory of their own choice


def parts(distribution: Distribution) -> dict[str, list[Case]]:
    """Cases to measure, by the list of result.json that they belong in."""
    found = {"curve": list(_curve(distribution))}
    if distribution.given.compare:
        found["ablation"] = list(_ablation(distribution))
        found["normalisations"] = list(_normalisations(distribution))
    return {name: cases for name, cases in found.items() if cases}


def records(
    distribution: Distribution, parts: Mapping[str, Sequence[Case]], found: Mapping[int, Right]
) -> Record:
    """The lists of result.json, from outcomes by `id` of their case; and substitutes, measured."""
    rows: Record = {
        name: [_record(case, cases, found) for case in cases]
        for name, cases in parts.items()
        if name != "methods"
    }
    if distribution.given.compare:
        rows["substitutes"] = _substitutes(distribution)
    return rows


def _record(case: Case, cases: Sequence[Case], found: Mapping[int, Right]) -> Record:
    """On the curve, RobustDiCE is held against the others at every threshold."""
    row = brief(case, found[id(case)])
    if case.about.get("method") not in RIVALS[1:] or "threshold" not in case.about:
        return row
    same = ("devices", "failed", "threshold")
    own = next(
        each
        for each in cases
        if each.about["method"] == RIVALS[0] and all(each.about[k] == case.about[k] for k in same)
    )
    return row | difference((own, found[id(own)]), (case, found[id(case)]))


def _curve(distribution: Distribution) -> Iterator[Case]:
    """Accuracy over memory: thresholds, and the methods that have no choice of memory."""
    devices, _ = distribution.first
    given = distribution.given
    losses = [lost for lost in distribution.losses(devices) if lost]
    if not given.curve:
        return
    for threshold in given.curve:
        for method in (method for method in RIVALS if method in given.methods):
            placement = distribution.place(method, devices, threshold)
            for lost in losses:
                yield distribution.case(placement, lost, threshold=threshold)
    for method in ("lop", "replication"):
        if method in given.methods:
            placement = distribution.place(method, devices)
            yield from (distribution.case(placement, lost) for lost in losses)


def _ablation(distribution: Distribution) -> Iterator[Case]:
    """Every subset of the three scores, as in the paper's Table I."""
    for some in chain.from_iterable(combinations(NAMES, count) for count in (1, 2, 3)):
        yield _as_large(distribution, {"scores": "+".join(some)}, scores=some)


def _normalisations(distribution: Distribution) -> Iterator[Case]:
    for scale in NORMALISATIONS:
        yield _as_large(distribution, {"normalise": scale}, normalise=scale)


def _as_large(distribution: Distribution, about: Record, **ways: Any) -> Case:
    """Another way to cluster, at the memory that the experiment's own settings lead to."""
    devices, lost = distribution.first
    memory = largest_share(distribution.place("robustdice", devices), distribution.layers)

    def place(threshold: float) -> Any:
        return distribution.place("robustdice", devices, threshold, **ways)

    threshold, placement = threshold_for(memory, place, distribution.layers)
    case = distribution.case(placement, lost, threshold=threshold)
    return case._replace(about=about | case.about)


def _substitutes(distribution: Distribution) -> list[Record]:
    """What a lost neuron gives: RobustDiCE with every loss."""
    devices, _ = distribution.first
    placement = distribution.place("robustdice", devices)
    losses = [lost for lost in distribution.losses(devices) if lost]
    cases = [distribution.case(placement, lost) for lost in losses]
    measured = {
        kind: distribution.measured(cases, f"Losing devices, {kind} for lost neurons", kind)
        for kind in SUBSTITUTES
    }
    rows = []
    for kind, rights in measured.items():
        for case, right, zero in zip(cases, rights, measured["zero"], strict=True):
            row = {"substitute": kind} | brief(case, right)
            rows.append(row | (difference((case, right), (case, zero)) if kind != "zero" else {}))
    return rows
