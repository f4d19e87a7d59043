"""Lists of faults as tables, one weight's bit a row, with what they did where somebody counted.

Columns, in any order and beside others: `Layer`, `TensorIndex` (the weight's place in the tensor
that the network came with: PyTorch's order in a file that PyTorch wrote) and `Bit` (0 lowest);
`n_injections` (images), `masked` (logits equal), `non_critical` (other logits, the same class) and
`critical` (another class than without the fault).
"""

import csv
import re
from array import array
from codecs import iterdecode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from afpjax.inputs.errors import InputError, nearest
from afpjax.inputs.files import FAULTS, opened, understood
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized

SETTING = "campaign.list"
NAMES = ("Layer", "TensorIndex", "Bit")
COUNTS = ("n_injections", "masked", "non_critical", "critical")
_INDEX = re.compile(r"[(\[]?\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)?\s*,?\s*[)\]]?")
_NUMBER = re.compile(r"\d{1,15}")


class Counts(NamedTuple):
    """What the faults of a list did, image by image; each sums to no more than `images`."""

    images: Int64[np.ndarray, "F"]
    masked: Int64[np.ndarray, "F"]
    non_critical: Int64[np.ndarray, "F"]
    critical: Int64[np.ndarray, "F"]


@dataclass(frozen=True, eq=False)
class FaultList:
    """Bits of weights; a layer is its place in the network, an element is counted row-major in the
    tensor that its kernel was laid out from (`LayerCall.stored`)."""

    layer: Int64[np.ndarray, "F"]
    element: Int64[np.ndarray, "F"]
    bit: Int64[np.ndarray, "F"]
    counts: Counts | None = None  # by whoever wrote the list

    def __len__(self) -> int:
        return len(self.layer)


def read_list(path: Path, quantized: Quantized) -> FaultList:
    """The faults of a file. Raises `InputError`, with the row's number (the heading is row 1), for
    one that the network does not have."""
    with opened(path, SETTING, FAULTS) as file, understood(path, SETTING, FAULTS):
        return _read(csv.reader(iterdecode(file, "utf-8-sig")), path, quantized)


def _read(reader: Iterator[list[str]], path: Path, quantized: Quantized) -> FaultList:
    rows = _rows(reader, path)
    columns = _columns(next(rows, (1, []))[1], path)
    parse, numbers = _Parser(quantized, columns), array("q")
    for number, row in rows:
        try:
            numbers.extend(parse(row))
        except ValueError as error:
            raise InputError(f"{SETTING}: {path}, row {number}: {error}") from error
    if not numbers:
        raise InputError(f"{SETTING}: {path} lists no faults; give a row for each")
    found = np.array(numbers, np.int64).reshape(-1, len(columns)).T
    counts = Counts(*found[3:]) if len(found) > 3 else None
    return FaultList(found[0], found[1], found[2], counts)


def list_text(quantized: Quantized, faults: FaultList, more: Mapping[str, Sequence[object]]) -> str:
    """A file of these faults that `read_list` reads; `more` columns stand behind the names."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("Injection", *NAMES, *more))
    calls = quantized.program.calls
    numbers = zip(faults.layer.tolist(), faults.element.tolist(), faults.bit.tolist(), strict=True)
    columns = [list(column) for column in more.values()]
    for place, (layer, element, bit) in enumerate(numbers):
        index = tuple(int(i) for i in np.unravel_index(element, calls[layer].stored.shape))
        told = (column[place] for column in columns)
        writer.writerow((place, calls[layer].layer.name, index, bit, *told))
    return text.getvalue()


def _rows(reader: Iterator[list[str]], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows; empty ones are none."""
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if row:
                yield number, row
    except csv.Error as error:
        raise InputError(f"{SETTING}: {path}, row {number + 1}: {error}") from error


def _columns(head: Sequence[str], path: Path) -> dict[str, int]:
    """Where the columns that are read stand: names first, then counts, if all are there."""
    places = {_key(name): place for place, name in reversed([*enumerate(head)])}
    missing = [name for name in NAMES if _key(name) not in places]
    if missing:
        raise InputError(
            f"{SETTING}: {path} has no column {missing[0]}; its first row must name {NAMES[0]}, "
            f"{NAMES[1]} and {NAMES[2]}"
        )
    counted = all(_key(name) in places for name in COUNTS)
    return {name: places[_key(name)] for name in (*NAMES, *(COUNTS if counted else ()))}


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "")


class _Parser:
    """One row's numbers: layer, element, bit and the counts. Raises `ValueError` with what is
    wrong."""

    def __init__(self, quantized: Quantized, columns: Mapping[str, int]) -> None:
        self._columns, self._width = columns, quantized.format.width
        self._calls = quantized.program.calls
        self._layers = _by_name(self._calls)

    def __call__(self, row: Sequence[str]) -> tuple[int, ...]:
        if len(row) <= max(self._columns.values()):
            raise ValueError(f"{len(row)} columns, the first row has more")
        cells = {name: row[place].strip() for name, place in self._columns.items()}
        layer = self._layers.get(cells["Layer"])
        if layer is None:
            hint = nearest(cells["Layer"], self._layers)
            raise ValueError(f"no layer of the network is called {cells['Layer'][:60]!r}{hint}")
        element = _element(cells["TensorIndex"], self._calls[layer].stored.shape)
        bit = _number("Bit", cells["Bit"])
        if bit >= self._width:
            raise ValueError(f"bit {bit}: the format has the bits 0 to {self._width - 1}")
        counts = [_number(name, cells[name]) for name in COUNTS if name in cells]
        if counts and not 0 < counts[0] >= sum(counts[1:]):
            raise ValueError(f"{counts[0]} images, but {sum(counts[1:])} outcomes")
        return layer, element, bit, *counts


def _by_name(calls: Iterable[LayerCall]) -> dict[str, int]:
    """Layers by their names and by those of the tensors that they came with; of several that share
    one, the first."""
    found: dict[str, int] = {}
    for place, call in enumerate(calls):
        for name in (call.layer.name, call.stored.name):
            if name:
                found.setdefault(name, place)
    return found


def _element(text: str, shape: Sequence[int]) -> int:
    match = _INDEX.fullmatch(text)
    if match is None:
        raise ValueError(f"TensorIndex {text[:60]!r} is none, like (3, 0, 2, 1)")
    index = tuple(int(part) for part in match[1].split(",")) if match[1] else ()
    inside = len(index) == len(shape) and all(i < n for i, n in zip(index, shape, strict=True))
    if not inside:
        raise ValueError(f"TensorIndex {text[:60]}: the layer's tensor is {tuple(shape)}")
    element = 0
    for place, size in zip(index, shape, strict=True):
        element = element * size + place
    return element


def _number(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} {text[:60]!r} is no whole number from 0 up")
    return int(text)
