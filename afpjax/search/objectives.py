"""What a mapping is judged by: latency, energy and accuracy lost under faults; caps and memory.

Shape legend: P mappings, L layers, D devices, K trials, B images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.evaluate.metric import right_and_loss
from afpjax.evaluate.sensitivity import drops_alone
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.spec import Thresholds
from afpjax.hardware.tables import CostTables, MappingCost, mapping_cost
from afpjax.inputs.errors import InputError
from afpjax.search.explore import Evaluate, Infeasible, as_fitness
from afpjax.search.pareto import Fitness

_costs = jax.jit(jax.vmap(mapping_cost, in_axes=(None, 0)))
# Mappings per call, always so many: XLA adds up in another order for another number of rows, and a
# mapping must cost the same to the last bit wherever it turns up.
_ROWS = 128


@dataclass(frozen=True)
class Caps:
    """The most latency (ms) and energy (mJ) that a mapping may cost; inf for no cap."""

    latency_ms: float = float("inf")
    energy_mj: float = float("inf")

    def within(self, other: "Caps") -> "Caps":
        """Both at once."""
        return Caps(min(self.latency_ms, other.latency_ms), min(self.energy_mj, other.energy_mj))


NO_CAPS = Caps()
#: (number of the fault draw, mappings [P, L], latency and energy [P, 2]) -> accuracy drops [P].
Drops = Callable[[int, Int[np.ndarray, "P L"], Float[np.ndarray, "P 2"]], Float[np.ndarray, " P"]]
STRATEGIES = ("platform", "layerwise")


@dataclass(frozen=True)
class RobustnessObjective:
    """How accuracy under faults is measured: the draws, and on which images."""

    evaluator: Evaluator
    faults: FaultModel
    trials: int
    strategy: str = "platform"  # or "layerwise": the sum of single-layer drops

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"trials is {self.trials}: give at least 1 fault draw")
        if self.strategy not in STRATEGIES:
            raise InputError(f"strategy `{self.strategy}` is none of {', '.join(STRATEGIES)}")

    def accuracy(
        self,
        mappings: Int[np.ndarray, "P L"],
        trials: Sequence[int],
        progress: Progress = lambda rows: None,
    ) -> Float[np.ndarray, " P"]:
        """Mean accuracy of each mapping under the fault draws of the given numbers."""
        limits = self._limits(mappings)
        return self.evaluator.evaluate(self.faults, limits, trials, progress).mean(axis=(1, 2))

    def drop(self, mappings: Int[np.ndarray, "P L"], draw: int = 0) -> Float[np.ndarray, " P"]:
        """Fault-free minus faulty top-1 accuracy, same images (AFarePart, equation 1)."""
        numbers = range(draw * self.trials, (draw + 1) * self.trials)
        if self.strategy == "layerwise":
            alone = drops_alone(self.evaluator, self.faults, self.devices, numbers)
            layers = np.arange(len(alone))
            return alone[layers, np.minimum(mappings, self.devices - 1)].sum(axis=1)
        return self.fault_free() - self.accuracy(mappings, numbers)

    def rows(self, mappings: Int[np.ndarray, "P L"]) -> list[bytes]:
        """What the evaluator runs for each mapping, but for the draw."""
        tables = [np.asarray(part) for part in jax.tree.leaves(self._limits(mappings))]
        return [b"".join(part[p].tobytes() for part in tables) for p in range(len(mappings))]

    def right(
        self, mappings: Int[np.ndarray, "P L"], numbers: Sequence[int]
    ) -> Int[np.ndarray, "P K"]:
        """How many images are classified right under each of these fault draws."""
        return self.evaluator.evaluate(self.faults, self._limits(mappings), numbers).sum(axis=2)

    def fault_free(self) -> float:
        """Accuracy without faults."""
        return float(self.evaluator.clean(self.faults).mean())

    def _limits(self, mappings: np.ndarray) -> Thresholds:
        return thresholds(self.faults, self.evaluator.quantized, mappings)

    @property
    def images(self) -> int:
        return self.evaluator.count

    @property
    def devices(self) -> int:
        return max(len(self.faults.rates(target)) for target in ("weight", "activation"))


@dataclass(frozen=True)
class LossObjective:
    """How mappings are compared on few images and draws: by right answers and by their log loss."""

    evaluator: Evaluator  # of metric `LOSS`
    faults: Callable[[float], FaultModel]  # factor on all rates -> the faults

    @property
    def images(self) -> int:
        return self.evaluator.count

    def names(self, mappings: Int[np.ndarray, "P L"]) -> list[bytes]:
        """What the evaluator runs for each mapping, but for the draw: equal names, one answer."""
        if not len(mappings):
            return []
        limits = thresholds(self.faults(1.0), self.evaluator.quantized, mappings)
        tables = [np.asarray(part) for part in jax.tree.leaves(limits)]
        return [b"".join(part[p].tobytes() for part in tables) for p in range(len(mappings))]

    def outcomes(
        self, mappings: Int[np.ndarray, "P L"], numbers: Sequence[int], factor: float = 1.0
    ) -> tuple[Int[np.ndarray, "P K"], Float[np.ndarray, "P K"]]:
        """Images right, and their mean log loss, under each of these draws at scaled rates."""
        faults = self.faults(factor)
        limits = thresholds(faults, self.evaluator.quantized, mappings)
        right, loss = right_and_loss(self.evaluator.evaluate(faults, limits, numbers))
        return right.sum(axis=2), loss.mean(axis=2)

    def fault_free(self) -> tuple[float, float]:
        """Share of images right and mean log loss without faults."""
        right, loss = right_and_loss(self.evaluator.clean(self.faults(1.0)))
        return float(right.mean()), float(loss.mean())


def costs(tables: CostTables, mappings: Int[np.ndarray, "P L"]) -> MappingCost:
    """Latency, energy, link shares and memory violation of every mapping, NumPy float32 [P]."""
    parts = [
        jax.tree.map(np.asarray, _costs(tables, _padded(mappings[start : start + _ROWS])))
        for start in range(0, len(mappings), _ROWS)
    ]
    return jax.tree.map(lambda *columns: np.concatenate(columns)[: len(mappings)], *parts)


def single_device(tables: CostTables) -> Int[np.ndarray, "D L"]:
    """The mappings that put the whole network on one device."""
    layers, devices = tables.latency_ms.shape
    return np.repeat(np.arange(devices, dtype=np.int32)[:, None], layers, axis=1)


def violation(cost: MappingCost, caps: Caps) -> Float[np.ndarray, " P"]:
    """By how much memory and caps are missed, as a share of each limit, summed; 0 where met."""
    over = [
        np.maximum(np.asarray(value) / cap - 1, 0)
        for value, cap in ((cost.latency_ms, caps.latency_ms), (cost.energy_mj, caps.energy_mj))
    ]
    return np.asarray(cost.violation) + sum(over)


@contextmanager
def explained(
    tables: CostTables, caps: Caps, devices: Sequence[str], layers: Sequence[str]
) -> Iterator[None]:
    """Searches inside `with` that end with `Infeasible` say what the nearest mapping lacks.

    Raises `InputError` that names a layer and a device (memory), or the caps and what they miss.
    """
    try:
        yield
    except Infeasible as miss:
        cost = costs(tables, miss.closest[None])
        if cost.violation[0] > 0:
            layer = _without_room(tables, miss.closest)
            device = int(miss.closest[layer])
            room = float(tables.capacity_bytes[device]) / 2**20
            lack = (
                f"layer `{layers[layer]}` has no room on device `{devices[device]}`, which has "
                f"{room:.3g} MiB; raise memory_bytes, lower platform.batch or use fewer bits"
            )
        else:
            lack = (
                f"it takes {cost.latency_ms[0]:.4g} ms and {cost.energy_mj[0]:.4g} mJ; raise "
                f"search.latency_cap_ms ({caps.latency_ms:g}) or search.energy_cap_mj "
                f"({caps.energy_mj:g})"
            )
        raise InputError(f"{miss}; the nearest that was tried: {lack}") from miss


def _without_room(tables: CostTables, mapping: Int[np.ndarray, "L"]) -> int:
    """The first layer, in running order, that its device has no memory left for."""
    weights, largest = np.zeros((2, len(tables.capacity_bytes)))
    excess, shared = [], tables.shared
    for layer, device in enumerate(mapping):
        weights[device] += float(tables.weight_bytes[layer])
        if shared is not None and (mapping[np.asarray(shared.before[layer])] == device).any():
            weights[device] -= float(shared.bytes[layer])
        largest[device] = max(largest[device], float(tables.activation_bytes[layer]))
        used = weights[device] + largest[device]
        excess.append(used - float(tables.capacity_bytes[device]))
    over = np.flatnonzero(np.array(excess) > 0)
    # None, where only the cost model's float32 sums are above: then the one that comes nearest.
    return int(over[0]) if over.size else int(np.argmax(excess))


def by_cost(
    tables: CostTables,
    caps: Caps,
    keys: Sequence[str] = ("latency_ms", "energy_mj"),
    decode: Callable[[np.ndarray], np.ndarray] = lambda genomes: genomes,
) -> Evaluate:
    """An evaluation that knows nothing of faults; `decode` turns genomes into mappings."""

    def evaluate(draw: int, genomes: np.ndarray) -> Fitness:
        cost = costs(tables, decode(genomes))
        return as_fitness([getattr(cost, key) for key in keys], violation(cost, caps))

    return evaluate


def with_faults(
    tables: CostTables, caps: Caps, objective: RobustnessObjective, drops: Drops | None = None
) -> Evaluate:
    """Latency, energy and accuracy drop: AFarePart's three objectives (equation 2).

    Mappings that break a limit are not run: by Deb's rule their objectives count only against
    others that break it as much. `drops` measures the others, by default `objective.drop`.
    """

    def evaluate(draw: int, genomes: np.ndarray) -> Fitness:
        cost = costs(tables, genomes)
        broken = violation(cost, caps)
        drop = np.ones(len(genomes), np.float32)
        allowed = broken <= 0
        if drops is not None and allowed.any():
            spending = np.column_stack([cost.latency_ms, cost.energy_mj])
            drop[allowed] = drops(draw, genomes[allowed], spending[allowed])
        elif allowed.any():
            drop[allowed] = objective.drop(genomes[allowed], draw)
        return as_fitness([cost.latency_ms, cost.energy_mj, drop], broken)

    return evaluate


def _padded(mappings: np.ndarray) -> np.ndarray:
    return np.pad(mappings, [(0, _ROWS - len(mappings)), (0, 0)])
