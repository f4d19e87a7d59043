"""Experiment files: read, checked, written. What they may say is in `afpjax.config.sections`."""

import os
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_type_hints

from afpjax.config.config_checks import check_sections
from afpjax.config.sections import Config
from afpjax.config.settings import Rule, expanded, nearest, read_value, toml_value, unset_variable
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import read_toml


def sections() -> dict[str, type[Any]]:
    """Section name -> its dataclass, in the order of the file."""
    return get_type_hints(Config)


def all_settings() -> dict[str, tuple[Any, Rule]]:
    """`section.key` -> (annotated type, rule), in the order of the file."""
    return {
        f"{section}.{key.name}": (key.type, key.metadata["rule"])
        for section, kind in sections().items()
        for key in fields(kind)
    }


def load(
    path: Path | str | None = None,
    overrides: Mapping[str, object] = MappingProxyType({}),
    *,
    named: str = "",
) -> Config:
    """The checked experiment: defaults, then the file at `path`, then `overrides`.

    A file is data and does not choose which code runs: where it names a function as its network,
    `overrides` (what stands on the command line) must say so too, or `named` be that function.
    Overrides map `section.key` to a value as TOML would give it. Raises `InputError` for a file
    that cannot be read, unknown names, wrong types and values out of range.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for name, value in (_read_file(Path(path)) if path is not None else {}).items():
        _put(values, name, value, f"{path}: {name}")
    for name, value in overrides.items():
        _put(values, name, value, f"--{name}")
    # Its fields are the sections by name, which a type checker cannot see.
    config = cast(Any, Config)(**{name: kind(**values[name]) for name, kind in sections().items()})
    if path is not None:
        _refuse_code(config.model.name, f"{path}", overrides.get("model.name", named))
    check(config)
    return config


def _refuse_code(name: str, path: str, named: object) -> None:
    if is_function(name) and name != named:
        raise InputError(
            f"{path}: model.name: `{name}` is a function, and no file chooses which code runs; if "
            f"you trust it, name it yourself: --model.name {name}"
        )


def is_function(name: str) -> bool:
    """Whether a network's name is that of a function, `package.module:function`."""
    return ":" in name


def check(config: Config) -> None:
    """Raise `InputError` where a value, or two of them together, cannot be."""
    for name, (kind, rule) in all_settings().items():
        read_value(value_of(config, name), kind, rule, name)
        if rule.path:
            _check_path(name, value_of(config, name))
    check_sections(config)
    if config.run.job == "partition" and len(config.platform.devices) < 2:
        raise InputError("platform.devices: a partition needs two devices or more")
    if not config.platform.devices:
        raise InputError("platform.devices: name one device or more")
    for name in ("model.name", "platform.link"):
        if not value_of(config, name):
            raise InputError(f"{name}: must not be empty")


def to_toml(config: Config) -> str:
    """The experiment as a TOML file with every key, which reads back equal."""
    lines: list[str] = []
    for section in fields(Config):
        lines += ["", f"[{section.name}]"]
        values = getattr(config, section.name)
        lines += [f"{key.name} = {toml_value(getattr(values, key.name))}" for key in fields(values)]
    return "\n".join(lines[1:]) + "\n"


#: Where and on what a run is worked out: nothing in its answer depends on that.
PLACE = ("run.out", "run.memory_gb", "run.cluster", "run.workers")


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
    # `configs/` of the repository is installed under this name, see pyproject.toml.
    return Path(next(iter(import_module("afpjax.configs").__path__)))


def _read_file(path: Path) -> dict[str, object]:
    """`section.key` -> value, names not yet checked but for the sections'."""
    values: dict[str, object] = {}
    for section, table in read_toml(path, "").items():
        if section not in sections():
            kind = "section" if isinstance(table, dict) else "key outside a section"
            raise InputError(f"{path}: unknown {kind} `{section}`{_advice(section)}")
        if not isinstance(table, dict):
            raise InputError(f"{path}: `{section}` is a section: write [{section}] and keys below")
        for key, value in table.items():
            if f"{section}.{key}" not in all_settings():
                known = [name for name in all_settings() if name.startswith(f"{section}.")]
                hint = nearest(key, [name.partition(".")[2] for name in known])
                raise InputError(f"{path}: unknown key `{key}` in [{section}]{hint or _all(known)}")
            values[f"{section}.{key}"] = value
    return values


def _put(values: dict[str, dict[str, Any]], name: str, value: object, where: str) -> None:
    if name not in all_settings():
        raise InputError(f"{where}: there is no such setting{nearest(name, all_settings())}")
    section, _, key = name.partition(".")
    values[section][key] = read_value(value, *all_settings()[name], where)


def value_of(config: Config, name: str) -> Any:
    """The value of the setting `section.key`."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _advice(section: str) -> str:
    """The nearest section, or where a key that stands outside its section belongs."""
    homes = [name for name in all_settings() if name.endswith(f".{section}")]
    return (
        f"; it belongs in [{homes[0].partition('.')[0]}]"
        if homes
        else nearest(section, sections()) or _all(list(sections()))
    )


def _all(names: list[str]) -> str:
    return f"; known: {', '.join(name.rpartition('.')[2] for name in names)}"


def _check_path(name: str, value: str | tuple[str, ...]) -> None:
    for path in value if isinstance(value, tuple) else (value,):
        if variable := unset_variable(path):
            raise InputError(
                f"{name}: {path} needs the environment variable {variable}, which is not set; set "
                f"it to the folder that it stands for, or give --{name} yourself"
            )
