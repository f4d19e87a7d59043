"""What an earlier run found, for a job that goes on from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afpjax.errors import InputError
from afpjax.experiment import Experiment


def result_of(setting: str, folder: Path, jobs: Sequence[str]) -> dict[str, Any]:
    """result.json of a run of one of `jobs`; errors name the setting that names the folder."""
    where = f"{setting}: {folder}"
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{where} has no readable result.json; name a run folder") from None
    job = result.get("job") if isinstance(result, dict) else None
    if job not in jobs:
        raise InputError(f"{where} is no run of job {' or '.join(jobs)}; name one")
    return result


def same_network(
    setting: str, folder: Path, layers: Sequence[Mapping[str, Any]], experiment: Experiment
) -> None:
    """Raise `InputError` unless a result's layers are those of the experiment's network."""
    theirs = [(each["name"], each["neurons"], each["macs"]) for each in layers]
    own = [(each.name, each.neurons, each.macs) for each in experiment.network.layers]
    if theirs == own:
        return
    pairs = zip(theirs, own, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(theirs), len(own)))
    raise InputError(
        f"{setting}: {folder} is a mapping of another network ({len(theirs)} layers, "
        f"{len(own)} here; they differ from layer {place} on); add --config "
        f"{folder / 'config.toml'}"
    )


def same_devices(
    setting: str, folder: Path, devices: Sequence[str], experiment: Experiment
) -> None:
    """Raise `InputError` unless a result's devices are those of the experiment's platform."""
    names = experiment.platform.names
    if tuple(devices) != names:
        raise InputError(
            f"{setting}: {folder} maps to {', '.join(devices)}, and the devices here are "
            f"{', '.join(names)}; add --config {folder / 'config.toml'}"
        )
