"""AFarePart's offline phase: mappings that trade latency and energy for accuracy under faults.

The search scores a mapping on its own images and draws. Whatever is reported is measured again, on
held-out images under fresh draws: `measure` is for that.
"""

import warnings
from collections.abc import Callable
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
from afpjax.search.effort import Plan, Race, Spent
from afpjax.search.explore import Budget, Explored, Settle, explore, few, populations
from afpjax.search.hypervolume import hypervolume
from afpjax.search.problem import (
    NO_CAPS,
    STRATEGIES,
    Caps,
    Struck,
    costs,
    explained,
    settled,
    single_device,
    with_faults,
)


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
    spent: Spent | None  # image passes; None for layers struck alone


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
    struck alone (Section V-C), with a warning, as these do not add up. Raises `InputError` for
    memory and caps that no mapping meets, rates that are not the platform's, an effort that does
    not suffice or goes with "layerwise", and what `Evaluator` and `FaultModel` refuse. `key` is a
    `jax.random.key` or an integer seed, which stands for `jax.random.key(seed)`. Warns as
    `accuracy` does.
    """
    checks.instance("quantized", quantized, Quantized, "a network from afpjax.quantize")
    checks.instance("platform", platform, Platform, "a platform from afpjax.load_platform")
    checks.instance("faults", faults, FaultModel, "an afpjax.FaultModel")
    checks.instance("caps", caps, Caps, "an afpjax.search.problem.Caps")
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
        warnings.warn("layerwise: drops of layers struck alone do not add up", stacklevel=2)
    draw_key, search_key = jax.random.split(as_key(key))
    tables = tables_for(quantized, platform, batch, faults)
    struck = Struck(Evaluator(quantized, images, labels, draw_key), faults, trials, strategy)
    budget = Budget(population, generations, renew, effort)
    warn(soundness.notes(quantized, images, labels))
    with explained(tables, caps, platform.names, quantized.graph.names):
        return search(search_key, tables, struck, budget, caps)


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
    check_capacity(tables, platform, graph)
    return tables


def search(
    key: PRNGKeyArray,
    tables: CostTables,
    struck: Struck,
    budget: Budget,
    caps: Caps = NO_CAPS,
    *,
    initial: Int[np.ndarray, "_ L"] | None = None,
    allowance: Caps | None = None,
    progress: Callable[[int], Any] = lambda generations: None,
) -> Front:
    """The front over latency, energy and accuracy drop; `initial[0]` is among the first mappings,
    and as many of the others as half of the population has room for.

    Where `allowance` says what the mapping to be chosen may cost, the second half of the search
    keeps within it: most of a front costs more than anyone would pay for accuracy. Raises
    `InputError` for fault rates that are neither one nor one per device, an effort that does not
    suffice, and `Infeasible`.
    """
    layers, devices = tables.latency_ms.shape
    _check_rates(struck.faults, devices)
    first = single_device(tables)
    if initial is not None:
        first = np.concatenate([initial, first])
    race = race_for(tables, struck, budget, allowance is not None)
    focus = None
    if allowance is not None:
        focus = with_faults(tables, caps.within(allowance), struck, race)
    found = explore(
        key,
        np.full(layers, devices),
        with_faults(tables, caps, struck, race),
        budget,
        initial=first,
        focus=focus,
        settle=_settle(tables, race, budget, allowance),
        progress=progress,
    )
    return _as_front(tables, found, None if race is None else race.spent)


def race_for(
    tables: CostTables, struck: Struck, budget: Budget, focused: bool = False
) -> Race | None:
    """What decides who meets how many draws in a search; None for layers struck alone.

    Raises `InputError` for an effort that does not suffice, or that goes with layers struck alone:
    their draws serve all mappings at once.
    """
    if struck.strategy == "layerwise":
        if budget.effort:
            raise InputError(
                "search.effort: with faults.strategy = layerwise all mappings share their draws, "
                "there is nothing to share out; leave it at 0"
            )
        return None
    layers, devices = tables.latency_ms.shape
    if few(np.full(layers, devices)):
        return Race(struck, Plan(budget.effort, 1, devices**layers))
    calls, newcomers = populations(budget, focused), budget.population * (1 + budget.renew)
    return Race(struck, Plan(budget.effort, calls, newcomers, budget.population))


def _settle(
    tables: CostTables, race: Race | None, budget: Budget, allowance: Caps | None
) -> Settle | None:
    if race is None or not budget.effort:
        return None
    layers, devices = tables.latency_ms.shape
    most = None if few(np.full(layers, devices)) else budget.population
    return settled(tables, race, most, allowance or NO_CAPS)


def measure(
    evaluator: Evaluator,
    faults: FaultModel,
    mappings: Int[np.ndarray, "P L"],
    trials: int,
    progress: Progress = lambda rows: None,
) -> Bool[np.ndarray, "P K B"]:
    """Right or wrong, for mappings, trials and images: common draws for all mappings."""
    limits = thresholds(faults, evaluator.quantized, mappings)
    return evaluator.correct(faults, limits, range(trials), progress)


def reference_point(tables: CostTables) -> tuple[float, float, float]:
    """Corner for hypervolumes: 1.1 x the costliest single-device mapping, and all accuracy lost."""
    cost = costs(tables, single_device(tables))
    return 1.1 * float(cost.latency_ms.max()), 1.1 * float(cost.energy_mj.max()), 1.0


def _check_rates(faults: FaultModel, devices: int) -> None:
    for target in ("weight", "activation"):
        given = len(faults.rates(target))
        if given not in (1, devices):
            raise InputError(
                f"faults.{target}_rate: {given} rates for {devices} devices; give one number, or "
                "one per device"
            )


def _as_front(tables: CostTables, found: Explored, spent: Spent | None) -> Front:
    corner = reference_point(tables)
    latency, energy, drop = found.objectives.T
    return Front(
        mappings=found.genomes,
        latency_ms=latency,
        energy_mj=energy,
        accuracy_drop=drop,
        method=found.method,
        generations=found.generations,
        evaluations=found.evaluations,
        hypervolume=hypervolume(found.objectives, np.array(corner)),
        reference_point=corner,
        history=tuple(found.hypervolumes(np.array(corner))),
        spent=spent,
    )
