"""A file's faults, struck one by one: what each did, and those of a layer or a bit together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from afpjax.campaigns.counts import KEPT, OutcomeCounts
from afpjax.campaigns.strata import site_names
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import CHANGED, NON_FINITE, RIGHT_BIT, SDC1
from afpjax.experiment import Experiment
from afpjax.faults import kinds
from afpjax.faults.sites import Fault, Site
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign.fault_lists import Counts, FaultList, list_text, read_list
from afpjax.jobs.campaign.result import ALL, CellResult, Design, Endings, Found, Struck, WorstFault
from afpjax.jobs.campaign.single import confusion
from afpjax.jobs.shared.result import Estimate
from afpjax.network.quantized import Quantized
from afpjax.statistics.intervals import images_interval

FILE = "faults.csv"
CHUNK = 2048  # faults that an evaluator is handed at once
_KINDS = ("flip", "stuck-at-0", "stuck-at-1")
_ESTIMAND = (
    "share of (fault, image) pairs whose class is another than without faults, over the faults "
    "of the list and images drawn like these"
)


def read(experiment: Experiment) -> FaultList:
    """The list that the experiment names, checked."""
    settings, kind = experiment.config.campaign, experiment.faults.kind
    if settings.sites:
        raise InputError("campaign.list: campaign.sites names faults too; leave one of them out")
    if kind not in _KINDS:
        raise InputError(f"faults.kind: a list has bits; use {', '.join(_KINDS)}, not {kind}")
    return read_list(Path(settings.list), experiment.outline)


@dataclass(frozen=True, eq=False)
class ListOutcomes:
    """What became of a list's F faults on B images.

    Faults of one layer and bit are a cell; C cells, in the order of layers and bits.
    """

    quantized: Quantized
    faults: FaultList
    counts: Counts
    detected: Int[np.ndarray, "F"]  # images whose output is seen to be wrong: neither of `counts`
    changed: Int[np.ndarray, "C B"]  # faults that change an image's class
    right: Int[np.ndarray, "C B"]
    outcomes: OutcomeCounts

    @cached_property
    def cells(self) -> list[tuple[int, int]]:
        """Layer and bit of each."""
        return _cells(self.faults)[0]

    @cached_property
    def which(self) -> Int[np.ndarray, "F"]:
        """The cell of each fault."""
        return _cells(self.faults)[1]

    def parts(self) -> Iterator[tuple[str, int | str, list[int]]]:
        """Layer, bit and cells, of all that an answer is given for: a cell, a layer, a bit, all."""
        names, every = self.quantized.graph.names, range(len(self.cells))
        yield from ((names[layer], bit, [n]) for n, (layer, bit) in enumerate(self.cells))
        for layer in sorted({layer for layer, _ in self.cells}):
            yield names[layer], ALL, [n for n in every if self.cells[n][0] == layer]
        for bit in sorted({bit for _, bit in self.cells}):
            yield ALL, bit, [n for n in every if self.cells[n][1] == bit]
        yield ALL, ALL, list(every)


def inject_list(experiment: Experiment, evaluator: Evaluator, faults: FaultList) -> ListOutcomes:
    """Strike all faults of a list, layer by layer, so that what layers share is computed once."""
    cells, which = _cells(faults)
    reference, count = evaluator.reference, evaluator.count
    outcomes = OutcomeCounts(len(cells), count, reference.argmax(axis=1), reference.shape[1])
    ended = np.zeros((4, len(faults)), np.int64)  # masked, non-critical, critical, detected
    changed, right = (np.zeros((len(cells), count), np.int32) for _ in range(2))
    at = _Places(evaluator.quantized, faults, kinds.named(experiment.faults.kind).how)
    order = np.argsort(faults.layer, kind="stable")
    with experiment.work.progress.task("Striking", len(faults)) as task:
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            each = [at.fault(row) for row in rows.tolist()]
            answers = evaluator.evaluate_sites(
                each, task.advance, shared=experiment.config.faults.shared
            )
            ended[:, rows] = _ended(answers)
            for cell in np.unique(which[rows]).tolist():
                mine = answers[which[rows] == cell]
                outcomes.add(cell, 0, mine)
                changed[cell] += (mine & SDC1 > 0).sum(axis=0)
                right[cell] += (mine & RIGHT_BIT > 0).sum(axis=0)
    counts = Counts(np.full(len(faults), count), *ended[:3])
    return ListOutcomes(evaluator.quantized, faults, counts, ended[3], changed, right, outcomes)


def found(experiment: Experiment, ended: ListOutcomes) -> Found:
    """Cells by layer and bit, by layer, by bit and over all; the worst faults."""
    settings = experiment.config.campaign
    return Found(
        design=Design(
            name="listed",
            fault=experiment.faults.kind,
            estimand={"weights": _ESTIMAND},
            interval="by image",
            confidence=settings.confidence,
            level=settings.confidence,
            trials=len(ended.faults),
            strata=len(ended.cells),
            not_finite=settings.not_finite,
        ),
        cells=[
            _cell(
                ended,
                Struck(layer=layer, bit=bit, target="weights"),
                members,
                settings.confidence,
            )
            for layer, bit, members in ended.parts()
        ],
        confusion=confusion(ended.outcomes.confusion),
        worst=list(_worst(ended, kinds.named(experiment.faults.kind).how)),
    )


def table(ended: ListOutcomes, more: dict[str, Sequence[object]]) -> bytes:
    """The list again, with what its faults did here, as `FILE`; `read_list` reads it."""
    own = {name: array.tolist() for name, array in zip(_COLUMNS, ended.counts, strict=True)}
    columns = own | {"detected": ended.detected.tolist()} | more
    return list_text(ended.quantized, ended.faults, columns).encode()


_COLUMNS = ("n_injections", "masked", "non_critical", "critical")


class _Places:
    """Rows of a list as faults of the kernels that their tensors became."""

    def __init__(self, quantized: Quantized, faults: FaultList, how: str) -> None:
        self._faults, self._how, self._calls = faults, how, quantized.program.calls

    def fault(self, row: int) -> Fault:
        faults = self._faults
        layer, element, bit = (int(e[row]) for e in (faults.layer, faults.element, faults.bit))
        places = self._calls[layer].stored.in_kernel(element)
        return Fault.at(*(Site(layer, place, bit) for place in places), how=self._how)


def _cells(faults: FaultList) -> tuple[list[tuple[int, int]], Int[np.ndarray, "F"]]:
    """Layers and bits that there are, and the cell of each fault."""
    pairs = np.stack([faults.layer, faults.bit], axis=1)
    known, which = np.unique(pairs, axis=0, return_inverse=True)
    return [(int(layer), int(bit)) for layer, bit in known], which.ravel()


def _ended(answers: Int[np.ndarray, "K B"]) -> Int[np.ndarray, "4 K"]:
    """How many images of each fault are masked, non-critical, critical and detected."""
    masked = (answers & CHANGED == 0).sum(axis=1)
    critical = (answers & SDC1 > 0).sum(axis=1)
    detected = (answers & NON_FINITE > 0).sum(axis=1)
    rest = answers.shape[1] - masked - critical - detected
    return np.stack([masked, rest, critical, detected])


def _cell(ended: ListOutcomes, where: Struck, members: list[int], confidence: float) -> CellResult:
    outcomes, trials = ended.outcomes, ended.outcomes.trials[members]
    total = int(trials.sum())

    def estimate(of: Int[np.ndarray, "C B"]) -> Estimate:
        hits = of[members].sum(axis=0)
        return Estimate(float(hits.mean() / total), *images_interval(hits, total, confidence))

    return CellResult(
        **vars(where),
        trials=total,
        images=outcomes.images,
        accuracy=estimate(ended.right),
        sdc_rate=estimate(ended.changed),
        endings=Endings(**outcomes.shares(members, trials / total)),
    )


def _worst(ended: ListOutcomes, how: str) -> Iterator[WorstFault]:
    """The faults that change most images; of equals, those that are listed first."""
    places = _Places(ended.quantized, ended.faults, how)
    names, critical = ended.quantized.graph.names, ended.counts.critical
    for row in np.argsort(-critical, kind="stable")[:KEPT].tolist():
        if critical[row]:
            yield WorstFault(
                layer=names[ended.faults.layer[row]],
                bit=int(ended.faults.bit[row]),
                target="weights",
                trial=row,
                sdc_rate=float(critical[row] / ended.counts.images[row]),
                sites=site_names(ended.quantized, places.fault(row)),
                same_in_every_image=True,
            )
