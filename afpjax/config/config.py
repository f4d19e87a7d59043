"""Experiment files: found, read, checked, written, and compared.

What they may say stands in `afpjax.config.sections` and in `afpjax/jobs/JOB/settings.py`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import When, folder_of, job_settings, value_of
from afpjax.config.sections import Run, Sections
from afpjax.config.settings import (
    STRICT,
    Setting,
    expanded,
    read,
    settings_of,
    toml_value,
)
from afpjax.inputs.errors import InputError, listed, nearest
from afpjax.inputs.files import read_toml

_DOC = "A whole, valid experiment: the shared sections, and one of each job that has settings."
_JOB_SECTIONS = {name: job.section for name, job in job_settings().items() if job.section}

if TYPE_CHECKING:

    class Config(Sections):
        __doc__ = _DOC

        def __getattr__(self, section: str) -> Any: ...

else:
    _members = {name: kind() for name, kind in _JOB_SECTIONS.items()}
    _members |= {"__annotations__": _JOB_SECTIONS, "__doc__": _DOC, "__module__": __name__}
    Config = dataclass(type("Config", (Sections,), _members), frozen=True, config=STRICT)

#: Where and on what a run is worked out: nothing in its answer depends on that.
PLACE = ("run.out", "run.memory_gb", "run.cluster", "run.workers")


@cache
def sections() -> dict[str, type[Any]]:
    """Section name -> its dataclass, in the order of the file."""
    return {section.name: type(getattr(Config(), section.name)) for section in fields(Config)}


@cache
def all_settings() -> dict[str, Setting]:
    """`section.key` -> what it may be, in the order of the file."""
    return {
        f"{section}.{key}": setting
        for section, kind in sections().items()
        for key, setting in settings_of(kind).items()
    }


def load(
    path: Path | str | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
    *,
    named: str = "",
    opening: str = "--",
) -> Config:
    """The checked experiment: defaults, then the file at `path`, then `overrides`.

    `opening` is what a setting's name has before it where an error is about an override.

    A file is data and does not choose which code runs: where it names a function as its network,
    `overrides` (what stands on the command line) must say so too, or `named` be that function.
    Overrides map `section.key` to a value as TOML would give it. Raises `InputError` for a file
    that cannot be read, unknown names, wrong types and values out of range.
    """
    values: dict[str, dict[str, object]] = {section: {} for section in sections()}
    said: dict[str, dict[str, str]] = {section: {} for section in sections()}
    for name, value, where in _values_said(path, overrides, opening):
        section, _, key = name.partition(".")
        values[section][key], said[section][key] = value, where
    config = read(
        Config, {name: read(kind, values[name], said[name]) for name, kind in sections().items()}
    )
    if path is not None and is_function(config.model.name):
        _refuse_code(config.model.name, f"{path}", overrides.get("model.name", named))
    job_settings()[config.run.job].check(config)
    return config


def _values_said(
    path: Path | str | None, overrides: Mapping[str, object], opening: str
) -> Iterator[tuple[str, object, str]]:
    """Each setting that is said, its value, and where it is said; the last one counts."""
    for name, value in (_read_file(Path(path)) if path is not None else {}).items():
        yield name, value, f"{path}: {name}"
    for name, value in overrides.items():
        if name not in all_settings():
            hint = nearest(name, all_settings())
            raise InputError(f"{opening}{name}: there is no such setting{hint}")
        yield name, value, f"{opening}{name}"


def _refuse_code(name: str, path: str, named: object) -> None:
    if name != named:
        raise InputError(
            f"{path}: model.name: `{name}` is a function, and no file chooses which code runs; if "
            f"you trust it, name it yourself: --model.name {name}"
        )


def is_function(name: str) -> bool:
    """Whether a network's name is that of a function, `package.module:function`."""
    return ":" in name


def _read_file(path: Path) -> dict[str, object]:
    """`section.key` -> value, of names that there are."""
    values: dict[str, object] = {}
    for section, table in read_toml(path, "").items():
        if section not in sections():
            kind = "section" if isinstance(table, dict) else "key outside a section"
            raise InputError(f"{path}: unknown {kind} `{section}`{_advice(section)}")
        if not isinstance(table, dict):
            raise InputError(f"{path}: `{section}` is a section: write [{section}] and keys below")
        known = settings_of(sections()[section])
        for key, value in table.items():
            if key not in known:
                hint = nearest(key, known) or f"; known: {', '.join(known)}"
                raise InputError(f"{path}: unknown key `{key}` in [{section}]{hint}")
            values[f"{section}.{key}"] = value
    return values


def _advice(section: str) -> str:
    """The nearest section, or where a key that stands outside its section belongs."""
    homes = [name for name in all_settings() if name.endswith(f".{section}")]
    if homes:
        return f"; it belongs in [{homes[0].partition('.')[0]}]"
    return nearest(section, sections()) or f"; known: {', '.join(sections())}"


def load_settings(file: Path | None, overrides: Mapping[str, object]) -> Config:
    """The experiment: `file` and `overrides`, or without a file those of the run they name.

    Where a job goes on from a previous run (`JobSettings.sources`), settings are that run's. Raises
    `InputError` for what the overrides say otherwise, where its answer depends on it, and what
    `load` does.
    """
    job = job_settings().get(str(overrides.get("run.job", "")))
    setting = next((name for name in (job.sources if job else ()) if overrides.get(name)), "")
    if job is None or file is not None or not setting:
        return load(file, overrides)
    folder = Path(value_of(load(None, {setting: overrides[setting]}), setting))
    if not (folder / "config.toml").is_file():
        raise InputError(f"{setting}: {folder} has no config.toml; name a run folder")
    config = load(folder / "config.toml", overrides)
    previous = load(folder / "config.toml", named=config.model.name)
    for name in overrides:
        if name in job.sources[setting] or name.partition(".")[0] in job.sources[setting]:
            before, after = value_of(previous, name), value_of(config, name)
            if before != after:
                raise InputError(
                    f"{setting}: {folder} was made with {name} = {toml_value(before)}, and --{name}"
                    f" is {toml_value(after)}; leave it out, or run that job again with it"
                )
    place = {name.partition(".")[2] for name in PLACE if name not in overrides}
    elsewhere = {name: getattr(Run(), name) for name in place}
    return replace(config, run=replace(config.run, **elsewhere))


def use_of(name: str, job: str) -> tuple[When, ...] | None:
    """What must hold for a job to use the setting `section.key`; None: it never does."""
    section = name.partition(".")[0]
    uses = job_settings()[job].uses
    own = uses.get(name, uses.get(section, () if section == job else None))
    return None if own is None else (*own, *all_settings()[name].when)


def refuse_unused(config: Config, names: Iterable[str], opening: str = "--") -> None:
    """Raise `InputError` for the first of the settings `names` that the experiment has no use for.

    It says which jobs use the setting, or what must hold for this one to do so. For the command
    line, where a setting without a use would answer another question than the one asked; an
    experiment file serves several jobs, and may hold what one of them does not use.
    """
    for name in names:
        use = use_of(name, config.run.job)
        if use is None:
            jobs = [job for job in job_settings() if use_of(name, job) is not None]
            raise InputError(
                f"{opening}{name}: job {config.run.job} does not use it, {listed(jobs)} "
                f"{'do' if len(jobs) > 1 else 'does'}; leave it out"
            )
        if missing := [when.words for when in use if not when.holds(config)]:
            raise InputError(
                f"{opening}{name}: job {config.run.job} uses it only where "
                f"{' and '.join(missing)}; leave it out, or set that too"
            )


def to_toml(config: Config) -> str:
    """The experiment as a TOML file with every key, which reads back equal."""
    lines: list[str] = []
    for section, kind in sections().items():
        lines += ["", f"[{section}]"]
        values = getattr(config, section)
        lines += [f"{key} = {toml_value(getattr(values, key))}" for key in settings_of(kind)]
    return "\n".join(lines[1:]) + "\n"


def first_difference(old: Config, new: Config) -> str:
    """`section.key: OLD -> NEW` for the first key that differs, but for `PLACE`; else empty."""
    for name in all_settings():
        before, after = value_of(old, name), value_of(new, name)
        if before != after and name not in PLACE:
            return f"{name}: {toml_value(before)} -> {toml_value(after)}"
    return ""


def find_file(name: str) -> Path:
    """The experiment file at the path `name`, or the one shipped under that name."""
    path = expanded(name)
    if os.path.exists(path) and not (os.path.isdir(path) and name in shipped()):
        return Path(path)
    if name in shipped():
        return _shipped_folder() / f"{name}.toml"
    advice = nearest(name, shipped()) or (
        f"; shipped with afpjax: {', '.join(shipped())}" if shipped() else ""
    )
    raise InputError(f"--config {name}: there is no such file{advice}")


def shipped() -> list[str]:
    """The names of the experiment files that come with afpjax."""
    return sorted(path.stem for path in _shipped_folder().glob("*.toml"))


def _shipped_folder() -> Path:
    return folder_of("configs")
