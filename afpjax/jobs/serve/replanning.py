"""A mapping made anew while the system runs: the online search of AFarePart, and an export of it.

Images wait for it, so what can be done before is: the programs that the search runs are compiled
before the first image, by a search with all devices there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from afpjax.config.work import SILENT, Work
from afpjax.deploy.manifest import Manifest
from afpjax.deploy.onnx.export import ExportInfo, export_mapping
from afpjax.deploy.service.plan import ServedExport
from afpjax.experiment import Experiment
from afpjax.online.environment import PlatformState
from afpjax.online.repartition import repartition
from afpjax.online.runtime_costs import MappingKeys, OnlineSearch
from afpjax.search.explore import Budget


@dataclass
class Replanner:
    """Makes an export for some of the platform's devices, by their names.

    The search is `online.repartition` on the search's images, within online.budget_ms at
    online.passes_per_s; it begins with the mapping in use. Raises `InputError` where a device has
    no room for its part.
    """

    search: OnlineSearch
    export: Callable[[np.ndarray], ServedExport]
    names: tuple[str, ...]
    faults: tuple[tuple[float, ...], tuple[float, ...]]  # of weights and activations, by device
    current: tuple[int, ...]
    front: MappingKeys = ()

    def prepare(self) -> None:
        """Search once with all devices there, for as long as it takes."""
        search = replace(self.search, budget_ms=float("inf"))
        self.front = repartition(search, self._state(self.names), self.current, ()).front

    def __call__(self, left: tuple[str, ...]) -> ServedExport:
        decision = repartition(self.search, self._state(left), self.current, self.front)
        self.current = decision.mapping
        return self.export(np.array(decision.mapping, np.int64))

    def _state(self, left: tuple[str, ...]) -> PlatformState:
        unchanged = (1.0,) * len(self.names)
        present = tuple(name in left for name in self.names)
        return PlatformState(*self.faults, unchanged, unchanged, present)


def replanner(
    experiment: Experiment, manifest: Manifest, limit_bytes: Mapping[str, float], setting: str
) -> Replanner:
    """For an exported mapping; it has no part in the run's bars and memory, whose thread is
    another."""
    experiment = replace(experiment, work=Work({}, SILENT))
    config, names = experiment.config, experiment.platform.names
    info = ExportInfo(config.model.name, experiment.mean, experiment.std, "afarepart")
    device_of = {name: names.index(t.device) for t in manifest.tasks for name in t.layers}
    current = tuple(device_of[layer] for layer in manifest.model.layers)

    def export(mapping: np.ndarray) -> ServedExport:
        files = export_mapping(experiment.quantized, mapping, names, info, batch=manifest.batch)
        return ServedExport(*files, names).check_memory(limit_bytes, setting)

    online, faults = config.online, experiment.faults
    search = OnlineSearch(
        tables=experiment.tables,
        faults=faults,
        evaluator=experiment.search_evaluator,
        budget=Budget(online.population, online.generations),
        budget_ms=online.budget_ms,
        allow_latency=online.allow_latency,
        allow_energy=online.allow_energy,
        unaware=current,
        trials=config.faults.trials,
        choice_trials=config.search.final_trials,
        key=experiment.key("serve again"),
        passes_per_s=online.passes_per_s,
    )
    weights, activations = (
        tuple(np.broadcast_to(rates, len(names)).tolist())
        for rates in (faults.weight_rate, faults.activation_rate)
    )
    return Replanner(search, export, names, (weights, activations), current)
