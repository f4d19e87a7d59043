"""Faults at given places as rows of a plan: which programs they need, and what each layer meets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from afpjax.evaluate.plan import CLEAN, Hits, Row, Strike
from afpjax.faults.sites import NOWHERE, Fault, Places
from afpjax.faults.strike import Draws


class Alike(NamedTuple):
    """Faults of one kind (`how`) that run in the same programs, by name."""

    draws: Draws
    names: list[bytes]
    faults: list[Fault]


def alike(faults: Mapping[bytes, Fault]) -> list[Alike]:
    """Faults by what their programs have room for; weights alone need no programs of their own."""
    found: dict[tuple[Draws, str], Alike] = {}
    for name, fault in faults.items():
        inputs = room_for(each for each in fault.places if each.target == "activations")
        draws = Draws.at(fault.how, inputs) if inputs else Draws()
        kind = found.setdefault((draws, fault.how), Alike(draws, [], []))
        kind.names.append(name)
        kind.faults.append(fault)
    return list(found.values())


def row_at(faults: Sequence[Fault], devices: int, layers: int, draws: Draws) -> Row:
    """One fault on each device; devices beyond them repeat the last."""
    each = [*faults, *[faults[-1]] * (devices - len(faults))]
    strikes = [CLEAN] * layers
    for layer in {places.layer for fault in faults for places in fault.places}:
        hits = {
            target: _hits(each, layer, target, draws.places if target == "activations" else 0)
            for target in ("weights", "activations")
        }
        strikes[layer] = Strike(hits["weights"], hits["activations"])
    return Row((), tuple(strikes))


def room_for(places: Iterable[Places]) -> int:
    """A power of two that the largest of some operands' places fit in; 0 for none."""
    most = max((each.elements.shape[1] for each in places), default=0)
    return 1 << (most - 1).bit_length() if most else 0


def _hits(faults: Sequence[Fault], layer: int, target: str, room: int) -> bytes | Hits:
    """What an operand of a layer meets on each device; nothing where none is struck."""
    mine = [
        next((p for p in fault.places if (p.layer, p.target) == (layer, target)), None)
        for fault in faults
    ]
    mine = [None if each is None or not each.elements.size else each for each in mine]
    present = [each for each in mine if each is not None]
    if not present:
        return b""
    room = room or room_for(present)
    images = max(len(each.elements) for each in present)
    elements = np.full((len(faults), images, room), NOWHERE, np.uint32)
    words = np.zeros(elements.shape, np.uint32)
    for device, each in enumerate(mine):
        if each is not None:
            count = each.elements.shape[1]
            elements[device, :, :count] = each.elements
            words[device, :, :count] = each.words
    return Hits(faults[0].how, room, elements.tobytes(), words.tobytes())
