"""The jobs that there are, and conditions under which a setting matters to one.

A job is a folder of `afpjax/jobs` with a `settings.py`: its line in the help, its section
of an experiment file, and which settings of others it uses, read without importing the job.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from afpjax.inputs.errors import listed

_NONE: Mapping[str, Any] = MappingProxyType({})


class When(NamedTuple):
    """A condition on an experiment, and how it is said: `--x: used only where WORDS`."""

    words: str
    holds: Callable[[Any], bool]


def value_of(config: Any, name: str) -> Any:
    """The value of the setting `section.key` of an experiment."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def is_(name: str, *values: str | bool) -> When:
    """The setting has one of these values."""
    said = listed(value if isinstance(value, str) else str(value).lower() for value in values)
    return When(f"{name} is {said}", lambda config: value_of(config, name) in values)


def given(name: str) -> When:
    """The setting is not empty, or 0."""
    return When(f"{name} is given", lambda config: bool(value_of(config, name)))


def empty(name: str) -> When:
    """The setting is empty."""
    return When(f"{name} is empty", lambda config: not value_of(config, name))


def names(name: str, value: str) -> When:
    """A list has this value among others."""
    return When(f"{name} names {value}", lambda config: value in value_of(config, name))


#: What a job uses that runs a network in its format; and one that searches mappings of it.
NETWORK: Mapping[str, tuple[When, ...]] = MappingProxyType(
    dict.fromkeys(("run", "model", "train", "data", "format"), ())
)
SEARCHES: Mapping[str, tuple[When, ...]] = MappingProxyType(
    {**NETWORK, **dict.fromkeys(("faults", "platform", "search"), ())}
)
ZOO = When(
    "model.name is of the zoo",
    lambda config: ":" not in config.model.name and not config.model.name.endswith(".onnx"),
)
LEARNS_FAULTS = is_("train.faults", True)
LINK_RESENDS = is_("faults.link", "resent")


class JobSettings(NamedTuple):
    """What `afpjax/jobs/NAME/settings.py` says, as `JOB`, of the job NAME."""

    line: str  # what it does, for `--help`
    order: int  # of its line in the help, and of its section in the file
    #: Section, or section.key where it is not as its section -> what must hold for the job to use
    #: it, beside what its field says; None: it does not. Its own section it uses.
    uses: Mapping[str, tuple[When, ...] | None]
    section: type[Any] | None = None  # of an experiment file, by the job's name
    #: A setting that names a previous run -> the settings, or sections, its answer depends on.
    sources: Mapping[str, tuple[str, ...]] = _NONE
    check: Callable[[Any], None] = lambda config: None  # InputError where values do not fit the job


def folder_of(package: str) -> Path:
    """The folder of a package of afpjax, which is not imported for that."""
    spec = find_spec("afpjax")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *package.split("."))


def names_in(package: str, suffix: str) -> tuple[str, ...]:
    """The names of a package's files of a kind, each of them one thing that one may choose."""
    names = (path.stem for path in folder_of(package).glob(f"*{suffix}"))
    return tuple(sorted(name for name in names if not name.startswith("_")))


@cache
def job_names() -> tuple[str, ...]:
    """The names of all jobs, by the alphabet; nothing of them is imported."""
    return tuple(sorted(path.parent.name for path in folder_of("jobs").glob("*/settings.py")))


@cache
def job_settings() -> dict[str, JobSettings]:
    """Job -> its settings, in the order of the help."""
    found = {name: import_module(f"afpjax.jobs.{name}.settings").JOB for name in job_names()}
    return dict(sorted(found.items(), key=lambda item: item[1].order))
