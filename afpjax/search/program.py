"""The cheap side of placement, exactly: a mixed-integer program over mappings of layers to devices.

x[l, d] = 1 where layer l runs on device d, one device a layer. Tensor t is sent to device d where
one of its consumers c runs there and its producer p does not: y[t, d] >= x[c, d] - x[p, d]. So
latency and energy, links included, are linear in (x, y), and so is the memory of a device: its
layers' weights, a shared kernel once, and its largest activation. Only x has to be whole; the rest
follows. HiGHS (`scipy.optimize.milp`) solves it.

Shape legend: P mappings, L layers, D devices, V variables.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse

from afpjax.hardware.tables import CostTables, MappingCost
from afpjax.search.objectives import NO_CAPS, Caps, costs, violation

ROUNDING = 1e-6  # share of a cap by which float32 sums may be off
_INFEASIBLE = 2  # a status of HiGHS
_SCALE = 1e3  # HiGHS stops within 1e-6 of the optimum, whatever its size
_TILT = 1e-5  # weight of the other cost at the ends of a front, so that ties are no ties

Mapping = Int[np.ndarray, " L"]
#: Mappings [P, L] -> which of them may be chosen.
Accept = Callable[[Int[np.ndarray, "P L"]], Bool[np.ndarray, " P"]]


@dataclass(frozen=True)
class PlacementProgram:
    """What all programs over one network and platform share; `program_of` makes it.

    Variables in order: x [L, D], y of the tensors that cost something, and what memory needs.
    """

    tables: CostTables
    on_host: Any  # the same, NumPy
    latency_ms: Float[np.ndarray, " V"]
    energy_mj: Float[np.ndarray, " V"]
    rows: Any  # sparse [R, V]: rows @ variables <= limits
    limits: Float[np.ndarray, " R"]
    alike: Int[np.ndarray, "L D"]  # devices of one number are one choice for the layer

    @property
    def shape(self) -> tuple[int, int]:
        """How many layers and devices."""
        layers, devices = self.alike.shape
        return layers, devices

    def objective(self, gain: Float[np.ndarray, "L D"]) -> Float[np.ndarray, " V"]:
        """The objective, to be small, of mappings whose `gain` is to be large."""
        return np.pad(-gain.ravel(), (0, len(self.latency_ms) - gain.size))

    def cut(self, mapping: Mapping) -> Float[np.ndarray, " V"]:
        """A row that is L for this mapping and all that are the same choices, less for others."""
        same = self.alike == np.take_along_axis(self.alike, mapping[:, None], axis=1)
        return np.pad(same.ravel().astype(float), (0, len(self.latency_ms) - same.size))


class _Rows:
    """Sparse rows as they are written down."""

    def __init__(self) -> None:
        self.limits: list[float] = []
        self.entries: list[tuple[int, int, float]] = []

    def add(self, entries: Sequence[tuple[Any, float]], limit: float) -> None:
        self.entries += [(len(self.limits), column, value) for column, value in entries]
        self.limits.append(limit)

    def matrix(self, width: int) -> Any:
        rows, columns, values = zip(*self.entries, strict=True) if self.entries else ((), (), ())
        shape = len(self.limits), width
        return sparse.csr_array((list(values), (list(rows), list(columns))), shape=shape)


def program_of(tables: CostTables, alike: Int[np.ndarray, "L D"] | None = None) -> PlacementProgram:
    """The program of a network on a platform.

    `alike` numbers each layer's devices, equal numbers where a mapping that was measured says all
    of another (by default every device is its own).
    """
    host: Any = CostTables(*map(_numpy, tables))
    layers, devices = host.latency_ms.shape
    x = np.arange(layers * devices).reshape(layers, devices)
    rows, latency, energy = _Rows(), [host.latency_ms.ravel()], [host.energy_mj.ravel()]
    width = x.size
    for tensor in _costly(host):
        maker = int(host.producers[tensor])
        for reader in np.flatnonzero(host.consumers[tensor]):
            for device in range(devices):
                sent = [(x[reader, device], 1.0), (x[maker, device], -1.0)]
                rows.add([*sent, (width + device, -1.0)], 0.0)
        latency.append(np.full(devices, host.link_latency_ms[tensor]))
        energy.append(np.full(devices, host.link_energy_mj[tensor]))
        width += devices
    for device in range(devices):
        width = _memory(rows, host, x[:, device], device, width)
    if alike is None:
        alike = np.tile(np.arange(devices), (layers, 1))
    latency_ms, energy_mj = (np.concatenate(each).astype(np.float64) for each in (latency, energy))
    more = (0, width - len(latency_ms))
    return PlacementProgram(
        tables,
        host,
        np.pad(latency_ms, more),
        np.pad(energy_mj, more),
        rows.matrix(width),
        np.array(rows.limits),
        alike,
    )


def _numpy(part: Any) -> Any:
    """A part of the tables on the host."""
    if part is None:
        return None
    return type(part)(*map(np.asarray, part)) if isinstance(part, tuple) else np.asarray(part)


def _costly(tables: Any) -> Int[np.ndarray, " T"]:
    """Tensors whose transfer costs something; the network's input comes for nothing."""
    some = (tables.link_latency_ms > 0) | (tables.link_energy_mj > 0)
    return np.flatnonzero(some & (tables.producers >= 0) & tables.consumers.any(axis=1))


def _memory(rows: _Rows, tables: Any, x: Int[np.ndarray, " L"], device: int, width: int) -> int:
    """The rows of one device's memory, in shares of it; the width with their variables.

    A variable for the largest activation, and one for each layer whose kernel another may hold
    already: at most x of this layer, and at most the sum of x of those before it.
    """
    capacity = float(tables.capacity_bytes[device])
    weights, held = tables.weight_bytes / capacity, tables.activation_bytes / capacity
    if weights.sum() + held.max() <= 1:
        return width  # whatever runs here has room
    largest, width = width, width + 1
    for layer, size in enumerate(held):
        rows.add([(x[layer], float(size)), (largest, -1.0)], 0.0)
    used = [(x[layer], float(size)) for layer, size in enumerate(weights)]
    if tables.shared is not None:
        for layer in np.flatnonzero(np.asarray(tables.shared.bytes)):
            before = np.flatnonzero(np.asarray(tables.shared.before)[layer])
            rows.add([(width, 1.0), (x[layer], -1.0)], 0.0)
            rows.add([(width, 1.0), *((x[other], -1.0) for other in before)], 0.0)
            used.append((width, -float(tables.shared.bytes[layer]) / capacity))
            width += 1
    rows.add([*used, (largest, 1.0)], 1.0)
    return width


def solve(
    program: PlacementProgram,
    objective: Float[np.ndarray, " V"],
    caps: Caps = NO_CAPS,
    *,
    excluded: Int[np.ndarray, "_ L"] | None = None,
    accept: Accept | None = None,
    gap: float = 0.0,
) -> Mapping | None:
    """The mapping of the least objective within caps and memory, int32 [L]; None where none is.

    `excluded` mappings, and what is alike, are none. `accept` has the last word on what rounding
    may have let in, by default `within`. `gap` is the share of the optimum that may be missing.
    """
    layers, devices = program.shape
    width = len(objective)
    accept = accept or (lambda mappings: within(program.tables, mappings, caps))
    cuts = [program.cut(mapping) for mapping in (() if excluded is None else excluded)]
    whole = np.arange(width) < layers * devices
    scale = np.abs(objective).sum() / layers or 1.0
    while True:
        with _nothing_printed():
            found = optimize.milp(
                _SCALE / scale * objective,
                integrality=whole,
                bounds=optimize.Bounds(0, 1),
                constraints=list(_constraints(program, caps, cuts)),
                options={"mip_rel_gap": gap},
            )
        if found.status == _INFEASIBLE:
            return None
        if found.x is None:
            raise RuntimeError(f"the program was not solved: {found.message}")
        choice = found.x[: layers * devices].reshape(layers, devices).argmax(axis=1)
        choice = choice.astype(np.int32)
        if accept(choice[None])[0]:
            return choice
        cuts.append(program.cut(choice))  # within HiGHS's tolerance, and yet not within


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """HiGHS (scipy 1.17) writes now and then to standard output, whatever its options say."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # there is none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _constraints(
    program: PlacementProgram, caps: Caps, cuts: Sequence[Float[np.ndarray, " V"]]
) -> Iterator[optimize.LinearConstraint]:
    layers, devices = program.shape
    width = len(program.latency_ms)
    one = sparse.kron(sparse.eye_array(layers), np.ones((1, devices)))
    rest = sparse.csr_array((layers, width - layers * devices))
    yield optimize.LinearConstraint(sparse.hstack([one, rest]).tocsr(), 1, 1)
    if len(program.limits):
        limits: Any = program.limits
        yield optimize.LinearConstraint(program.rows, -np.inf, limits)
    for row, cap in ((program.latency_ms, caps.latency_ms), (program.energy_mj, caps.energy_mj)):
        if np.isfinite(cap):
            yield optimize.LinearConstraint(row[None] / cap, -np.inf, 1 + ROUNDING / 2)
    if cuts:
        yield optimize.LinearConstraint(np.stack(cuts), -np.inf, layers - 1)


def within(
    tables: CostTables, mappings: Int[np.ndarray, "P L"], caps: Caps
) -> Bool[np.ndarray, " P"]:
    """Which mappings fit into memory and keep within the caps, but for rounding."""
    return priced_within(costs(tables, mappings), caps)


def priced_within(cost: MappingCost, caps: Caps) -> Bool[np.ndarray, " P"]:
    """The same of mappings whose costs are known."""
    excess = [
        np.asarray(value, np.float64) / cap - 1
        for value, cap in ((cost.latency_ms, caps.latency_ms), (cost.energy_mj, caps.energy_mj))
    ]
    return (np.asarray(cost.violation) <= 0) & (np.maximum(*excess) <= ROUNDING)


class _End(NamedTuple):
    mapping: np.ndarray
    latency_ms: float
    energy_mj: float


def least_product(program: PlacementProgram, caps: Caps = NO_CAPS) -> Int[np.ndarray, "P L"]:
    """The mapping of the least latency x energy first, then the others that were met; [0, L] if
    there is none within memory and caps.

    log latency + log energy is concave, so the least product is at a corner of the convex hull of
    all (latency, energy), and corners are the optima of weighted sums. Between two corners the
    weights that make them equal find another, or show that there is none (Aneja and Nair,
    "Bicriteria transportation problem", 1979). Where latency of the one times energy of the other
    is no less than the best product, nothing between them can be the least.
    """

    def accept(mappings: np.ndarray) -> np.ndarray:
        return violation(costs(program.tables, mappings), caps) <= 0

    def end(latency: float, energy: float) -> _End | None:
        found = solve(
            program,
            latency * program.latency_ms + energy * program.energy_mj,
            caps,
            accept=accept,
        )
        return None if found is None else _End(found, *exact_costs(program, found))

    fast = end(1.0, _TILT * program.latency_ms.sum() / program.energy_mj.sum())
    if fast is None:
        return np.zeros((0, program.shape[0]), np.int32)
    frugal = end(_TILT * program.energy_mj.sum() / program.latency_ms.sum(), 1.0)
    assert frugal is not None, "it was feasible"
    met, open_pairs = [fast, frugal], [(fast, frugal)]
    while open_pairs:
        one, other = open_pairs.pop()
        best = min(each.latency_ms * each.energy_mj for each in met)
        weights = one.energy_mj - other.energy_mj, other.latency_ms - one.latency_ms
        if min(weights) <= 0 or one.latency_ms * other.energy_mj >= best:
            continue
        between = end(*weights)
        assert between is not None, "it was feasible"
        line, value = (
            weights[0] * each.latency_ms + weights[1] * each.energy_mj for each in (one, between)
        )
        if value < line * (1 - 1e-7):
            met.append(between)
            open_pairs += [(one, between), (between, other)]
    met.sort(key=lambda each: each.latency_ms * each.energy_mj)
    different = dict.fromkeys(tuple(each.mapping.tolist()) for each in met)
    return np.array(list(different), np.int32)


def exact_costs(program: PlacementProgram, mapping: Mapping) -> tuple[float, float]:
    """Latency (ms) and energy (mJ) of one mapping, links included, in double precision."""
    tables, each = program.on_host, np.arange(len(mapping))
    sent = np.zeros(len(tables.producers))
    for tensor in _costly(tables):
        readers = mapping[np.flatnonzero(tables.consumers[tensor])]
        sent[tensor] = len(set(readers.tolist()) - {int(mapping[tables.producers[tensor]])})

    def total(own: np.ndarray, link: np.ndarray) -> float:
        whole = own[each, mapping].astype(np.float64).sum()
        return float(whole + (sent * link.astype(np.float64)).sum())

    return (
        total(tables.latency_ms, tables.link_latency_ms),
        total(tables.energy_mj, tables.link_energy_mj),
    )
