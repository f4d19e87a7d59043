"""Strata of single faults: which faults there are, and which of them a trial meets.

A stratum is a set of equally likely faults: every bit, or value, or packet, of some layers'
weights or inputs. Number them; a trial's number is sent through a pseudo-random permutation of them
(`permutation.py`), so trials draw without replacement, and a trial's fault is a pure function of
(seed, stratum, trial).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt32, UInt64

from afpjax.faults import kinds
from afpjax.faults.sites import NOWHERE, Fault, FaultSites, size
from afpjax.faults.spec import keepers
from afpjax.inputs.errors import InputError
from afpjax.network.quantized import Quantized
from afpjax.statistics.sampling import mix, places

BY = ("network", "layer", "bit", "layer-bit")
ENDLESS = 2**20


class Single(NamedTuple):
    """What one fault is: its kind, bits of a burst or values of a packet, and how many at once."""

    name: str = "flip"
    length: int = 1
    count: int = 1  # of distinct ones in each trial

    @property
    def does(self) -> kinds.FaultKind:
        return kinds.named(self.name)

    @property
    def in_packets(self) -> bool:
        return self.does.drawn == "packet"


@dataclass(frozen=True)
class Stratum:
    """Equally likely faults of one kind; `bits` are where they may begin, (0,) for whole values."""

    number: int  # part of what its draws follow from
    target: str  # "weights", "activations" or "link"
    layers: tuple[int, ...]
    bits: tuple[int, ...]
    sizes: tuple[int, ...]  # by layer: values (or packets) times bits
    kind: Single

    @property
    def faults(self) -> int:
        return sum(self.sizes)

    @property
    def population(self) -> int:
        """How many trials there are without drawing a fault twice."""
        return self.faults // self.kind.count

    @property
    def size(self) -> int:
        """What intervals take for the stratum's size, in proportion to its faults.

        Trials of several faults at once are a sample of all sets of so many, next to which the
        trials without a common fault are few: the stratum is as good as endless.
        """
        return self.faults if self.kind.count == 1 else self.faults * ENDLESS


def strata(
    quantized: Quantized,
    kind: Single,
    *,
    by: str,
    targets: Sequence[str],
    layers: Sequence[int],
    bits: Sequence[int],
    crossing: Sequence[int] = (),
    shared: str = "stored",
) -> tuple[Stratum, ...]:
    """The strata of some layers, by `BY`; `crossing` are those that read across a link.

    Weights that several of the network's layers share are one population, of the first of them,
    where `shared` is "stored".
    `bits` are the positions that faults may strike, ascending. Raises `InputError` for bits that
    the format does not have, bits or targets named twice, and for a target or a stratum that has no
    fault or fewer than a trial strikes.
    """
    _check(quantized, kind, bits)
    if len(set(targets)) < len(targets):
        raise InputError(f"campaign.targets: name each once, got {', '.join(targets)}")
    starts = _starts(kind, bits)
    made: list[Stratum] = []
    for target in targets:
        own = reading(target, layers, crossing)
        if target == "weights":
            own = list(dict.fromkeys(keepers(shared, quantized.layers)[own].tolist()))
        groups = [[layer] for layer in own] if by.startswith("layer") else [own]
        parts = [(bit,) for bit in starts] if by.endswith("bit") and kind.does.by_bit else [starts]
        for each in groups:
            for part in parts:
                values = (_values(quantized, kind, layer, target) for layer in each)
                sizes = tuple(count * len(part) for count in values)
                made.append(Stratum(len(made), target, tuple(each), part, sizes, kind))
    for stratum in made:
        if not stratum.population:
            raise InputError(
                f"campaign: there are {stratum.faults} {kind.name} faults in "
                f"{stratum.target} of {shown(quantized, stratum.layers)}, too few for trials of "
                f"{kind.count}; leave these layers, bits or targets out"
            )
    return tuple(made)


def reading(target: str, layers: Sequence[int], crossing: Sequence[int]) -> list[int]:
    """The layers in which a target can be struck. Raises `InputError` where there is none."""
    own = [layer for layer in layers if target != "link" or layer in crossing]
    if not own:
        reads = "reads across a link" if target == "link" else "is struck"
        raise InputError(f"campaign.targets: {target}: no layer of faults.layers {reads}")
    return own


def shown(quantized: Quantized, layers: Sequence[int]) -> str:
    """A stratum's layers in words."""
    names = quantized.graph.names
    return f"layer `{names[layers[0]]}`" if len(layers) == 1 else f"{len(layers)} layers"


def faults_of(
    quantized: Quantized,
    stratum: Stratum,
    trials: range,
    *,
    seed: int,
    images: int = 1,
    in_order: bool = False,
) -> Iterator[Fault]:
    """The fault of each trial; with `images` > 1, one for each image (activations alone).

    `in_order` takes the faults one after the other, for an exhaustive campaign.
    """
    count = stratum.kind.count
    first, last = trials.start * count, trials.stop * count
    of_images = (
        np.arange(first, last, dtype=np.uint64)
        if in_order
        else places(seed, stratum.number << 32 | image, first, last, stratum.faults)
        for image in range(images)
    )
    of_all = np.stack([numbers.reshape(-1, count) for numbers in of_images], axis=1)
    for drawn in of_all:  # [I, count]
        yield _fault(quantized, stratum, drawn, seed)


def site_names(quantized: Quantized, fault: Fault, image: int = 0) -> list[str]:
    """LAYER/TARGET/ELEMENT/BITS of every site of a fault in an image."""
    names, found = quantized.graph.names, []
    for (layer, target), sites in fault.sites.items():
        row = min(image, len(sites.elements) - 1)
        words = sites.words[row].tolist()
        for element, word in zip(sites.elements[row].tolist(), words, strict=True):
            if element != NOWHERE:
                bits = "+".join(str(bit) for bit in range(32) if word >> bit & 1)
                found.append(f"{names[layer]}/{target}/{element}/{bits}")
    return found


def _check(quantized: Quantized, kind: Single, bits: Sequence[int]) -> None:
    width = quantized.format.width
    if kind.does.single is None:
        raise InputError(
            f"faults.kind: {kind.name} has no single faults; use campaign.design = bernoulli, or "
            f"one of {', '.join(single_kinds())}"
        )
    if not bits or min(bits) < 0 or max(bits) >= width:
        wrong = [bit for bit in bits if not 0 <= bit < width]
        raise InputError(
            f"campaign.bits: the format has the bits 0 to {width - 1}, not {wrong[0]}"
            if wrong
            else "campaign.bits: none left to strike"
        )
    if len(set(bits)) < len(bits):
        raise InputError(f"campaign.bits: list each bit once, got {list(bits)}")
    if kind.count < 1:
        raise InputError(f"campaign.count: {kind.count} faults in a trial; give 1 or more")


def single_kinds() -> list[str]:
    """The kinds that have single faults."""
    return [name for name in kinds.names() if kinds.named(name).single is not None]


def _starts(kind: Single, bits: Sequence[int]) -> tuple[int, ...]:
    """Bits at which a fault may begin; a burst must end among `bits` too."""
    if not kind.does.by_bit:
        return (0,)
    if kind.does.length != "burst":
        return tuple(bits)
    known = set(bits)
    starts = tuple(b for b in bits if known.issuperset(range(b, b + kind.length)))
    if not starts:
        raise InputError(f"faults.burst: no {kind.length} adjacent bits among {list(bits)}")
    return starts


def _values(quantized: Quantized, kind: Single, layer: int, target: str) -> int:
    """How many values of a layer's operand, or packets of them."""
    count = size(quantized.layers[layer], "weights" if target == "weights" else "activations")
    return -(-count // kind.length) if kind.in_packets else count


def _fault(
    quantized: Quantized, stratum: Stratum, drawn: UInt64[np.ndarray, "I count"], seed: int
) -> Fault:
    ends = np.cumsum(np.array(stratum.sizes, np.uint64))
    which = np.searchsorted(ends, drawn, side="right")
    inside = drawn - np.concatenate([np.zeros(1, np.uint64), ends])[which]
    bits = np.uint64(len(stratum.bits))
    starts = np.array(stratum.bits, np.uint64)[(inside % bits).astype(np.int64)]
    elements = (inside // bits).astype(np.int64)
    words = _words(quantized, stratum, starts, drawn, seed)
    target = "weights" if stratum.target == "weights" else "activations"
    sites = {}
    for index in np.unique(which).tolist():
        layer, own = stratum.layers[index], which == index
        limit = size(quantized.layers[layer], target)
        sites[layer, target] = _merged(stratum.kind, elements, words, own, limit)
    return Fault(sites, stratum.kind.does.how)


def _words(
    quantized: Quantized,
    stratum: Stratum,
    starts: UInt64[np.ndarray, "I n"],
    drawn: np.ndarray,
    seed: int,
) -> UInt32[np.ndarray, "I n"]:
    """Which bits of its value each fault is in."""
    single = stratum.kind.does.single
    assert single is not None, "strata have been checked"

    random = partial(_random_words, drawn, seed, stratum.number)
    return single(starts, random, quantized.format.width, stratum.kind.length).astype(np.uint32)


def _random_words(drawn: np.ndarray, seed: int, number: int) -> UInt64[np.ndarray, "I n"]:
    """A random word for each fault, apart from the draw that its place comes from."""
    key = np.array([(seed * 0x9E3779B97F4A7C15 + number) % 2**64], np.uint64)
    return mix(drawn ^ mix(mix(key) + np.uint64(1)))


def _merged(
    kind: Single,
    elements: Int[np.ndarray, "I n"],
    words: np.ndarray,
    own: np.ndarray,
    limit: int,
) -> FaultSites:
    """One entry for each element of an image, its bits together, padded with `NOWHERE`."""
    if elements.shape[1] == 1 and not kind.in_packets:  # the usual case
        elements = np.where(own, elements, np.int64(NOWHERE)).astype(np.uint32)
        return FaultSites(elements, np.where(own, words, np.uint32(0)))
    images: list[dict[int, int]] = []
    for of_image, bits, mine in zip(elements, words, own, strict=True):
        faulty: dict[int, int] = {}
        for element, word in zip(of_image[mine].tolist(), bits[mine].tolist(), strict=True):
            first = element * kind.length if kind.in_packets else element
            last = min(first + kind.length, limit) if kind.in_packets else first + 1
            for number in range(first, last):
                faulty[number] = faulty.get(number, 0) | word
        images.append(faulty)
    room = max(map(len, images))
    sites = FaultSites(
        np.full((len(images), room), NOWHERE, np.uint32), np.zeros((len(images), room), np.uint32)
    )
    for row, faulty in enumerate(images):
        sites.elements[row, : len(faulty)] = list(faulty)
        sites.words[row, : len(faulty)] = list(faulty.values())
    return sites
