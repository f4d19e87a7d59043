"""Rows: many networks, each with one set of faults in one trial, as small integers.

What a layer can meet stands once, in its `FaultTable`; a row says which entry of it every layer
has, so that equal faults are equal numbers. Number 0 is no faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np
from jaxtyping import Bool, Int, Int8, UInt32

from afpjax.faults.sites import NOWHERE, Fault, FaultSites
from afpjax.network.program import Program
from afpjax.network.stages import transfer_ends

#: Sites of one layer's weights and inputs; None where there are none.
_Operands = tuple[FaultSites | None, FaultSites | None]


@dataclass(frozen=True, eq=False)
class FaultTable:
    """The distinct faults of one layer, F of them; the first are none.

    Weights and inputs have thresholds, or faults at sites. `weights` are [F, columns], or by
    neuron [F, C, columns]; `inputs` [F, columns], by read copy [F, copies, columns], or by image
    [F, B, columns]. `FaultSites` have [F, n] and [F, I, n]. `answering` says for each neuron whose
    read copy of the inputs it is computed from, -1 where it is lost; None where that is the first
    copy for all.
    """

    weights: UInt32[np.ndarray, "F ..."] | FaultSites
    inputs: UInt32[np.ndarray, "F ..."] | FaultSites
    answering: Int8[np.ndarray, "F C"] | None = None

    @cached_property
    def of_weights(self) -> Int[np.ndarray, "F"]:
        """By entry, the number of its weights' faults: equal for equal ones, 0 for none."""
        return distinct(_words(self.weights), _nothing(self.weights))[0]

    @cached_property
    def drawn(self) -> Bool[np.ndarray, "F"]:
        """Whether what happens depends on the trial."""
        parts = [p for p in (self.weights, self.inputs) if not isinstance(p, FaultSites)]
        faulty = [_words(part).any(axis=1) for part in parts]
        return np.any(faulty, axis=0) if faulty else np.zeros(len(self.of_weights), bool)

    @property
    def drawn_weights(self) -> bool:
        """Whether faulty weights depend on the trial."""
        return not isinstance(self.weights, FaultSites)


@dataclass(frozen=True, eq=False)
class FaultRows:
    """R networks with L layers and S stages, each with its faults in its trial."""

    trials: UInt32[np.ndarray, "R"]
    faults: Int[np.ndarray, "R L"]  # entries of `tables`
    tables: Sequence[FaultTable]  # by layer
    #: Entries of `link_tables`, by stage; without columns where the link does nothing.
    links: Int[np.ndarray, "R S"]
    link_tables: Sequence[np.ndarray] = ()  # uint32 [n, reads, ...]
    how: str = "flip"  # what faults at sites do to their bits
    exchanged: bool = False  # faults at sites of weights are no part of kernels

    def __len__(self) -> int:
        return len(self.trials)

    def take(self, numbers: Int[np.ndarray, "n"]) -> "FaultRows":
        """Some of the rows."""
        own = self.trials[numbers], self.faults[numbers], self.links[numbers]
        return replace(self, trials=own[0], faults=own[1], links=own[2])

    def in_order(self) -> Int[np.ndarray, "R"]:
        """Numbers of the rows, trial by trial, those with common beginnings next to each other.

        The faulty come before the clean. What crosses a link follows from the devices, and so
        mostly from the layers' faults.
        """
        clean_last = np.where(self.faults == 0, np.iinfo(np.int64).max, self.faults)
        columns = [self.trials, *clean_last.T, *self.links.T]
        return np.lexsort(columns[::-1])


def clean_rows(layers: int) -> FaultRows:
    """The network without faults."""
    nothing = np.zeros((1, 0), np.uint32)
    none = FaultTable(nothing, nothing)
    numbers = np.zeros((1, layers), np.int64)
    return FaultRows(np.zeros(1, np.uint32), numbers, (none,) * layers, numbers[:, :0])


def distinct(
    words: UInt32[np.ndarray, "P W"], nothing: Bool[np.ndarray, "P"] | None = None
) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "N"]]:
    """The number of each row of words among the distinct ones, and a row for each number.

    Rows that are `nothing` (all zero, by default) have the number 0; there may be none of them, and
    its row is then the first.
    """
    nothing = np.asarray(~words.any(axis=1) if nothing is None else nothing)
    known: dict[bytes, int] = {}
    firsts = [int(nothing.argmax()) if len(words) else 0]
    numbers = np.zeros(len(words), np.int64)
    for row in np.flatnonzero(~nothing):
        number = known.setdefault(words[row].tobytes(), len(firsts))
        if number == len(firsts):
            firsts.append(int(row))
        numbers[row] = number
    return numbers, np.asarray(firsts)


def at_rates(
    weights: UInt32[np.ndarray, "P ..."],
    inputs: UInt32[np.ndarray, "P ..."],
    answering: Int8[np.ndarray, "P C"] | None = None,
) -> tuple[Int[np.ndarray, "P"], FaultTable]:
    """One layer's faults in P networks: which entry each has, and the table."""
    parts = [_words(weights), _words(inputs)]
    parts += [] if answering is None else [answering.astype(np.int32).view(np.uint32)]
    words = np.concatenate(parts, axis=1)
    numbers, firsts = distinct(words)
    picked = [None if part is None else part[firsts] for part in (weights, inputs, answering)]
    for part in picked:
        if part is not None:
            part[0] = 0
    return numbers, FaultTable(*picked)  # pyright: ignore[reportArgumentType]


def links_by_stage(
    program: Program, links: UInt32[np.ndarray, "P W *words"] | None, count: int
) -> tuple[Int[np.ndarray, "P S"], list[np.ndarray]]:
    """By network and stage, an entry of the stage's table of what it reads; 0 is no faults.

    Without columns or tables where nothing that crosses is faulty in any of `count` networks.
    """
    if links is None or not links.any():
        return np.zeros((count, 0), np.int64), []
    parts = [links[:, start:end] for start, end in pairwise((0, *transfer_ends(program)))]
    known = [distinct(_words(part)) for part in parts]
    tables = [part[firsts] for part, (_, firsts) in zip(parts, known, strict=True)]
    for table in tables:
        table[0] = 0
    return np.stack([numbers for numbers, _ in known], axis=1), tables


def at_sites(faults: Sequence[Fault], layers: int, room: int, exchanged: int) -> FaultRows:
    """A row for each fault; the inputs' sites, of one image or all, are padded to `room`, and the
    weights' to `exchanged`, or to as many as a layer has where that is 0."""
    numbers = np.zeros((len(faults), layers), np.int64)
    entries = [dict[bytes, int]() for _ in range(layers)]
    found: list[list[_Operands]] = [[] for _ in range(layers)]
    for row, fault in enumerate(faults):
        for layer in {layer for layer, _ in fault.sites}:
            weights, inputs = (fault.sites.get((layer, t)) for t in ("weights", "activations"))
            parts = _some(weights), _some(inputs)
            if parts == (None, None):
                continue
            key = b"|".join(b"" if part is None else part.key for part in parts)
            numbers[row, layer] = number = entries[layer].setdefault(key, 1 + len(found[layer]))
            if number > len(found[layer]):
                found[layer].append(parts)
    tables = [_at_sites(parts, room, exchanged) for parts in found]
    return FaultRows(
        np.zeros(len(faults), np.uint32),
        numbers,
        tables,
        np.zeros((len(faults), 0), np.int64),
        how=faults[0].how if faults else "flip",
        exchanged=bool(exchanged),
    )


def _some(sites: FaultSites | None) -> FaultSites | None:
    return sites if sites is not None and sites.elements.size else None


def site_room(most: int) -> int:
    """A power of two that so many sites fit in; 0 for none."""
    return 1 << (most - 1).bit_length() if most else 0


def _at_sites(parts: Sequence[_Operands], room: int, exchanged: int) -> FaultTable:
    weights, inputs = ([None, *(part[which] for part in parts)] for which in (0, 1))
    most = max((w.elements.shape[1] for w in weights if w is not None), default=0)
    of_weights = _stacked(weights, exchanged or site_room(most))
    alone = replace(of_weights, elements=of_weights.elements[:, 0], words=of_weights.words[:, 0])
    return FaultTable(alone, _stacked(inputs, room))


def _stacked(parts: Sequence[FaultSites | None], room: int) -> FaultSites:
    """[F, I, room], padded with sites nowhere; I is 1 where no image has sites of its own."""
    images = max((len(part.elements) for part in parts if part is not None), default=1)
    elements = np.full((len(parts), images, room), NOWHERE, np.uint32)
    words = np.zeros_like(elements)
    for number, part in enumerate(parts):
        if part is not None:
            count = part.elements.shape[1]
            elements[number, :, :count] = part.elements
            words[number, :, :count] = part.words
    return FaultSites(elements, words)


def _words(part: UInt32[np.ndarray, "F ..."] | FaultSites) -> UInt32[np.ndarray, "F W"]:
    if isinstance(part, FaultSites):
        return np.concatenate([_words(part.elements), _words(part.words)], axis=1)
    return part.reshape(len(part), prod(part.shape[1:]))


def _nothing(part: UInt32[np.ndarray, "F ..."] | FaultSites) -> Bool[np.ndarray, "F"]:
    if isinstance(part, FaultSites):
        return np.asarray((part.elements == NOWHERE).reshape(len(part.elements), -1).all(axis=1))
    return np.asarray(~_words(part).any(axis=1))
