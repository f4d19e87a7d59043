"""AFarePart's offline phase: mappings that trade latency and energy for accuracy under faults.

The search scores a mapping on its own images and draws. Whatever is reported is measured again, on
held-out images under fresh draws: `measure` is for that.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from afpjax.evaluate.evaluator import MOST_TRIALS, Evaluator, Progress
from afpjax.faults.bits import as_key
from afpjax.faults.model import FaultModel, thresholds
from afpjax.hardware.cost import cost_tables
from afpjax.hardware.platform import Platform
from afpjax.hardware.tables import CostTables, check_capacity
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.inputs.notes import warn
from afpjax.network import soundness
from afpjax.network.layers import LayerGraph
from afpjax.network.quantized import Quantized
from afpjax.search.explore import Budget, Evaluate, explore, few
from afpjax.search.objectives import (
    NO_CAPS,
    STRATEGIES,
    Caps,
    RobustnessObjective,
    costs,
    explained,
    single_device,
    with_faults,
)
from afpjax.search.pareto import hypervolume
from afpjax.search.race import Spent, race_for, settled


@dataclass(frozen=True)
class Front:
    """Mappings that no other found one beats in latency, energy and accuracy drop at once.

    `accuracy_drop` is what the search saw; it is optimistic, since it chose by it.
    """

    mappings: Int[np.ndarray, "P L"]
    latency_ms: Float[np.ndarray, " P"]
    energy_mj: Float[np.ndarray, " P"]
    accuracy_drop: Float[np.ndarray, " P"]
    method: str  # "enumeration" or "nsga2"
    generations: int
    evaluations: int
    hypervolume: float
    reference_point: tuple[float, float, float]  # ms, mJ, accuracy drop
    history: tuple[float, ...]  # hypervolume after every generation
    spent: Spent | None  # image passes; None for "layerwise"


def partition(
    quantized: Quantized,
    platform: Platform,
    faults: FaultModel,
    images: Float[Any, "B ..."],
    labels: Int[Any, " N"],
    key: Any,
    *,
    trials: int = 4,
    population: int = 40,
    generations: int = 20,
    batch: int = 1,
    caps: Caps = NO_CAPS,
    strategy: str = "platform",
    renew: bool = False,
    effort: int = 0,
) -> Front:
    """AFarePart's front for a quantised network on a platform, under a fault model.

    `images` (network inputs, float32) and `labels` are what the search scores accuracy on, each
    under `trials` fault draws, new ones every generation with `renew`; costs are for `batch`
    images. `effort` is the most image passes under faults that the search may take, which then go
    where they change the ranking; 0 for no limit. `strategy` "layerwise" sums the drops of layers
    faulty alone (Section V-C), with a warning, as these do not add up. Raises `InputError` for
    memory and caps that no mapping meets, rates that are not the platform's, an effort that does
    not suffice or goes with "layerwise", and what `Evaluator` and `FaultModel` refuse. `key` is a
    `jax.random.key` or an integer seed, which stands for `jax.random.key(seed)`. Warns as
    `accuracy` does.
    """
    checks.instance("quantized", quantized, Quantized, "a network from afpjax.quantize")
    checks.instance("platform", platform, Platform, "a platform from afpjax.load_platform")
    checks.instance("faults", faults, FaultModel, "an afpjax.FaultModel")
    checks.instance("caps", caps, Caps, "an afpjax.search.objectives.Caps")
    checks.choice("strategy", strategy, STRATEGIES)
    for name, value, low, high in (
        ("trials", trials, 1, MOST_TRIALS),
        ("population", population, 4, 2**20),
        ("generations", generations, 1, 2**20),
        ("batch", batch, 1, 2**20),
        ("effort", effort, 0, None),
    ):
        checks.whole(name, value, low, high)
    if strategy == "layerwise":
        warnings.warn(
            "layerwise: drops of layers that are faulty alone do not add up", stacklevel=2
        )
    draw_key, search_key = jax.random.split(as_key(key))
    tables = tables_for(quantized, platform, batch, faults)
    evaluator = Evaluator(quantized, images, labels, draw_key)
    objective = RobustnessObjective(evaluator, faults, trials, strategy)
    budget = Budget(population, generations, renew, effort)
    warn(soundness.notes(quantized, images, labels))
    with explained(tables, caps, platform.names, quantized.graph.names):
        return search(search_key, tables, objective, budget, caps)


def tables_for(
    quantized: Quantized, platform: Platform, batch: int = 1, faults: FaultModel | None = None
) -> CostTables:
    """Cost tables at the number format's width; InputError where memory rules out every mapping.

    Where lost packets are sent again, transfers cost `faults.sent_times` as much.
    """
    return tables_of(quantized.graph, quantized.format.width, platform, batch, faults)


def tables_of(
    graph: LayerGraph,
    width: int,
    platform: Platform,
    batch: int = 1,
    faults: FaultModel | None = None,
) -> CostTables:
    """`tables_for` a network of which only the layers are known, in numbers of `width` bits."""
    if faults is not None:
        platform = replace(platform, link=platform.link.resending(faults.sent_times))
    tables = cost_tables(graph, platform, weight_bits=width, activation_bits=width, batch=batch)
    check_capacity(tables, platform.names, graph)
    return tables


def search(
    key: PRNGKeyArray,
    tables: CostTables,
    objective: RobustnessObjective,
    budget: Budget,
    caps: Caps = NO_CAPS,
    *,
    initial: Int[np.ndarray, "_ L"] | None = None,
    allowance: Caps | None = None,
    progress: Progress = lambda generations: None,
) -> Front:
    """The front over latency, energy and accuracy drop; `initial[0]` is among the first mappings,
    and as many of the others as half of the population has room for.

    Where `allowance` says what the mapping to be chosen may cost, the second half of the search
    keeps within it: most of a front costs more than anyone would pay for accuracy. Raises
    `InputError` for fault rates that are neither one nor one per device, an effort that does not
    suffice, and `Infeasible`.
    """
    layers, devices = tables.latency_ms.shape
    _check_rates(objective.faults, devices)
    first = single_device(tables)
    if initial is not None:
        first = np.concatenate([initial, first])
    race = race_for(tables, objective, budget, allowance is not None)
    settle = None
    if race is not None and budget.effort:
        most = None if few(np.full(layers, devices)) else budget.population
        settle = settled(tables, race, most, allowance or NO_CAPS)

    def evaluate(limits: Caps) -> Evaluate:
        return with_faults(tables, limits, objective, None if race is None else race.drops)

    explored = explore(
        key,
        np.full(layers, devices),
        evaluate(caps),
        budget,
        initial=first,
        focus=None if allowance is None else evaluate(caps.within(allowance)),
        settle=settle,
        progress=progress,
    )
    corner = reference_point(tables)
    latency, energy, drop = explored.objectives.T
    return Front(
        mappings=explored.genomes,
        latency_ms=latency,
        energy_mj=energy,
        accuracy_drop=drop,
        method=explored.method,
        generations=explored.generations,
        evaluations=explored.evaluations,
        hypervolume=hypervolume(explored.objectives, np.array(corner)),
        reference_point=corner,
        history=tuple(explored.hypervolumes(np.array(corner))),
        spent=None if race is None else race.spent,
    )


def measure(
    evaluator: Evaluator,
    faults: FaultModel,
    mappings: Int[np.ndarray, "P L"],
    trials: int,
    progress: Progress = lambda rows: None,
) -> Bool[np.ndarray, "P K B"]:
    """Right or wrong, for mappings, trials and images: common draws for all mappings."""
    limits = thresholds(faults, evaluator.quantized, mappings)
    return evaluator.evaluate(faults, limits, range(trials), progress)


def reference_point(tables: CostTables) -> tuple[float, float, float]:
    """Corner for hypervolumes: 1.1 x the costliest single-device mapping, and all accuracy lost."""
    cost = costs(tables, single_device(tables))
    return 1.1 * float(cost.latency_ms.max()), 1.1 * float(cost.energy_mj.max()), 1.0


def _check_rates(faults: FaultModel, devices: int) -> None:
    for target in ("weight", "activation"):
        rates = len(faults.rates(target))
        if rates not in (1, devices):
            raise InputError(
                f"faults.{target}_rate: {rates} rates for {devices} devices; give one number, or "
                "one per device"
            )
