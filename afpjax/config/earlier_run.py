"""Settings where a job goes on from an earlier run: that run's own, unless a file says others."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from afpjax.config.config import PLACE, Config, load, value_of
from afpjax.config.sections import Run
from afpjax.config.settings import toml_value
from afpjax.inputs.errors import InputError

__all__ = ["SOURCES", "load_settings"]

_NETWORK = ("run.seed", "model", "train", "data")
_HARDWARE = (*_NETWORK, "format", "platform")
#: Job -> the settings that name an earlier run, and on what (settings or sections) its answer
#: depends.
SOURCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "serve": {
        "serve.export": (*_HARDWARE, "export", "distribute"),
        "export.source": (*_HARDWARE, "distribute"),
    },
    "export": {"export.source": (*_HARDWARE, "distribute")},
    "online": {"online.front": _HARDWARE},
    "distribute": {"distribute.importance": _NETWORK},
}


def load_settings(file: Path | None, overrides: Mapping[str, object]) -> Config:
    """The experiment: `file` and `overrides`, or without a file those of the run they name.

    Raises `InputError` for what the overrides say otherwise than that run, where its answer
    depends on it, and what `load` does.
    """
    of_job = SOURCES.get(str(overrides.get("run.job", "")), {})
    setting = next((name for name in of_job if overrides.get(name)), "")
    if file is not None or not setting:
        return load(file, overrides)
    folder = Path(value_of(load(None, {setting: overrides[setting]}), setting))
    if not (folder / "config.toml").is_file():
        raise InputError(f"{setting}: {folder} has no config.toml; name a run folder")
    config = load(folder / "config.toml", overrides)
    theirs = load(folder / "config.toml", named=config.model.name)
    place = {name.partition(".")[2] for name in PLACE if name not in overrides}
    elsewhere = {name: getattr(Run(), name) for name in place}
    config = replace(config, run=replace(config.run, **elsewhere))
    _refuse_contradictions(f"{setting}: {folder}", theirs, config, of_job[setting], overrides)
    return config


def _refuse_contradictions(
    where: str, theirs: Config, config: Config, bound: tuple[str, ...], overrides: Iterable[str]
) -> None:
    for each in overrides:
        if each in bound or each.partition(".")[0] in bound:
            before, after = value_of(theirs, each), value_of(config, each)
            if before != after:
                raise InputError(
                    f"{where} was made with {each} = {toml_value(before)}, and --{each} is "
                    f"{toml_value(after)}; leave it out, or run that job again with it"
                )
