"""A mapping made anew while the system runs: the online search of AFarePart, and an export of it.

Images wait for it, so what can be done before is: the programs that the search runs are compiled
before the first image, by a search with all devices there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from afpjax.config.work import SILENT, Work
from afpjax.deploy.export import About, export_mapping
from afpjax.deploy.exported import FromManifest
from afpjax.deploy.manifest import Manifest
from afpjax.experiment.prepare import Experiment
from afpjax.online.environment import State
from afpjax.online.online import Front, System, repartition
from afpjax.search.explore import Budget


@dataclass
class Replanner:
    """Makes an export for some of the platform's devices, by their names.

    The search is `online.repartition` on the search's images, within online.budget_ms at
    online.passes_per_s; it begins with the mapping in use. Raises `InputError` where a device has
    no room for its part.
    """

    system: System
    export: Callable[[np.ndarray], FromManifest]
    names: tuple[str, ...]
    faults: tuple[tuple[float, ...], tuple[float, ...]]  # of weights and activations, by device
    current: tuple[int, ...]
    front: Front = ()

    def prepare(self) -> None:
        """Search once with all devices there, for as long as it takes."""
        system = replace(self.system, budget_ms=float("inf"))
        self.front = repartition(system, self._state(self.names), self.current, ()).front

    def __call__(self, left: tuple[str, ...]) -> FromManifest:
        found = repartition(self.system, self._state(left), self.current, self.front)
        self.current = found.mapping
        return self.export(np.array(found.mapping, np.int64))

    def _state(self, left: tuple[str, ...]) -> State:
        as_ever = (1.0,) * len(self.names)
        return State(*self.faults, as_ever, as_ever, tuple(name in left for name in self.names))


def replanner(
    experiment: Experiment, manifest: Manifest, limit_bytes: Mapping[str, float], setting: str
) -> Replanner:
    """For an exported mapping; it has no part in the run's bars and memory, whose thread is
    another."""
    experiment = replace(experiment, work=Work({}, SILENT))
    config, names = experiment.config, experiment.platform.names
    about = About(config.model.name, experiment.mean, experiment.std, "afarepart")
    of = {layer: names.index(task.device) for task in manifest.tasks for layer in task.layers}
    current = tuple(of[layer] for layer in manifest.model.layers)

    def export(mapping: np.ndarray) -> FromManifest:
        made = export_mapping(experiment.quantized, mapping, names, about, batch=manifest.batch)
        return FromManifest(made.manifest, made.files, names).check_room(limit_bytes, setting)

    given = config.online
    system = System(
        tables=experiment.tables,
        faults=experiment.faults,
        evaluator=experiment.search_evaluator,
        budget=Budget(given.population, given.generations),
        budget_ms=given.budget_ms,
        allow_latency=given.allow_latency,
        allow_energy=given.allow_energy,
        unaware=current,
        trials=config.faults.trials,
        choice_trials=config.search.final_trials,
        key=experiment.key("serve again"),
        passes_per_s=given.passes_per_s,
    )
    return Replanner(system, export, names, _rates(experiment), current)


def _rates(experiment: Experiment) -> tuple[tuple[float, ...], tuple[float, ...]]:
    faults, devices = experiment.faults, len(experiment.platform.names)
    weights, activations = (
        tuple(np.broadcast_to(rates, devices).tolist())
        for rates in (faults.weight_rate, faults.activation_rate)
    )
    return weights, activations
