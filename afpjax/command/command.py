"""The command line: what it asks for, its help, and one-line errors for what it cannot mean."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from afpjax import __version__
from afpjax.config.config import all_settings, find_file, sections, shipped, use_of
from afpjax.config.jobs import job_names, job_settings
from afpjax.config.settings import Setting, from_words, range_text
from afpjax.inputs.errors import InputError, listed, nearest

__all__ = ["PROGRAM", "Request", "read"]

PROGRAM = "python -m afpjax.run"
_SHORT = {"run.out": ("--out",), "run.seed": ("--seed",), "run.cluster": ("--cluster",)}
_METAVARS = {int: "N", float: "X", str: "TEXT", bool: "true|false"}

# Every option takes any number of words, so that tyro finds nothing to complain of in its own way;
# what the words may be is for `afpjax.config.settings` to say, as it does for the words of a file.
_Words = tuple[str, ...] | None


class Request(NamedTuple):
    """What a command line asks for; values as TOML would give them, not yet checked."""

    file: Path | None  # --config
    overrides: Mapping[str, object]  # section.key -> value
    resume: bool
    dry_run: bool = False


def read(argv: Sequence[str], jobs: Iterable[str] | None = None) -> Request:
    """What `argv`, without the program's name, asks for; the help lists `jobs`, or all of them.

    The help of a command that names a job shows that job's settings alone. Raises `InputError` for
    words that mean nothing, `SystemExit` after --help and --version.
    """
    given, unknown = tyro.cli(
        _options(jobs or job_settings(), argv),
        args=list(argv),
        prog=PROGRAM,
        description="Fault-aware placement of neural networks on edge accelerators.",
        return_unknown_args=True,
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if unknown:
        raise InputError(_what_it_might_be(unknown))
    if given.version:
        print(f"afpjax {__version__}")
        raise SystemExit(0)
    return _request(given)


def _request(given: Any) -> Request:
    stray = list(given.job)
    overrides: dict[str, object] = {}
    for name, words in _words_given(given):
        setting = all_settings()[name]
        if not words and setting.types != (bool,):
            raise InputError(f"--{name}: needs a value")
        own = _own(words, setting)
        overrides[name] = from_words(words[:own], setting)
        stray += words[own:]
    file = None
    if given.config is not None:
        if not given.config or not given.config[0]:
            raise InputError("--config: needs a file, or the name of one shipped with afpjax")
        file = find_file(given.config[0])
        stray += given.config[1:]
    return Request(file, _with_job(overrides, stray), given.resume, given.dry_run)


def _own(words: Sequence[str], setting: Setting) -> int:
    """How many words are the option's; what it leaves over may be the job: `--seed 3 profile`."""
    if not setting.many:
        return 1
    if not setting.is_size:
        return len(words)
    job = (place for place, word in enumerate(words) if place and word in job_names())
    return next(job, len(words))


def _words_given(given: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in all_settings():
        section, _, key = name.partition(".")
        words = getattr(getattr(given, section, None), key, None)
        if words is not None:
            yield name, words


def _with_job(overrides: dict[str, object], stray: Sequence[str]) -> dict[str, object]:
    for word in stray:
        if word not in job_names():
            hint = nearest(word, job_names()) or f"; the jobs are {', '.join(job_settings())}"
            raise InputError(f"`{word}` is no job, and no option takes it{hint}")
    if not stray:
        return overrides
    if {*stray, overrides.get("run.job", stray[0])} != {stray[0]}:
        raise InputError(f"one job at a time; `{stray[0]}` is not the only one that is named")
    return {**overrides, "run.job": stray[0]}


def _what_it_might_be(unknown: Sequence[str]) -> str:
    option = next((word for word in unknown if word.startswith("-")), unknown[0])
    wrong = option.partition("=")[0]
    key = wrong.lstrip("-").replace("-", "_")
    own = ["config", "resume", "dry_run", "version", "out", "seed", "cluster", "help"]
    known = [*all_settings(), *own]
    # A key that lacks its section is meant more surely than what it merely resembles.
    meant = [f"--{name}" for name in known if name.rpartition(".")[2] == key]
    hint = (
        f"; did you mean {listed(meant)}?" if meant else nearest(key, known).replace("`", "`--", 1)
    )
    return f"{wrong}: there is no such option{hint or f'; {PROGRAM} --help lists them'}"


def _options(jobs: Iterable[str], argv: Sequence[str]) -> type:
    """A dataclass for tyro: the job, the command's own options, and a group for each section."""
    resume = _help("go on with an interrupted run: of --out, or the last in runs/")
    dry_run = _help("say what the job would take, and do not begin it")
    options: list[tuple[str, Any, Any]] = [
        ("job", tyro.conf.Positional[Annotated[tuple[str, ...], _job_help(jobs)]], ()),
        ("config", Annotated[_Words, _config_help()], None),
        ("resume", Annotated[bool, resume], False),
        ("dry_run", Annotated[bool, dry_run], False),
        ("version", Annotated[bool, _help("show the version and exit")], False),
    ]
    for section, kind in sections().items():
        keys = [
            (name.partition(".")[2], Annotated[_Words, _setting_help(name, setting)], None)
            for name, setting in all_settings().items()
            if name.startswith(f"{section}.") and _is_wanted(name, argv)
        ]
        if keys:
            group = _dataclass(section, keys)
            # With the help said here, tyro does not go looking for the sources of what has none.
            options.append((section, Annotated[group, tyro.conf.arg(help=kind.__doc__)], group()))
    return _dataclass("Options", options)


def _is_wanted(name: str, argv: Sequence[str]) -> bool:
    """Whether tyro has to know the setting: it takes milliseconds over each.

    All for the help, of a job those that it uses; else those of sections that are spoken of.
    """
    if {"--help", "-h"} & {*argv}:
        job = next((word for word in argv if word in job_names()), "")
        return not job or use_of(name, job) is not None
    section = name.partition(".")[0]
    return name in _SHORT or any(word.startswith(f"--{section}.") for word in argv)


def _dataclass(name: str, options: Iterable[tuple[str, Any, Any]]) -> type:
    """A dataclass of (name, annotation, default)."""
    members = [(option, kind, field(default=default)) for option, kind, default in options]
    return make_dataclass(name, members, frozen=True)


def _setting_help(name: str, setting: Setting) -> Any:
    choices = setting.choices
    allowed = f"one of {', '.join(choices)}" if choices else range_text(setting.range)
    return tyro.conf.arg(
        metavar=_metavar(setting),
        help=f"{setting.help}, {allowed}" if allowed else setting.help,
        help_behavior_hint=f"(default: {_default_text(setting)})",
        aliases=_SHORT.get(name),
    )


def _metavar(setting: Setting) -> str:
    if setting.metavar:
        return setting.metavar
    one = "NAME" if setting.choices else "|".join(_METAVARS[kind] for kind in setting.types)
    return f"{one} ..." if setting.many else one


def _default_text(setting: Setting) -> str:
    """The default as one would type it."""
    default = setting.default
    if default in ("", ()):
        return setting.empty
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default).removesuffix(".0")


def _help(text: str, metavar: str | None = None) -> Any:
    return tyro.conf.arg(help=text, help_behavior_hint="", metavar=metavar)


def _job_help(jobs: Iterable[str]) -> Any:
    lines = [f"{name}: {job.line}" for name, job in job_settings().items() if name in jobs]
    about = "What to do, partition if not said; name it first. JOB --help shows its settings alone."
    return _help("\n".join([about, *lines]), "[JOB]")


def _config_help() -> Any:
    names = f", or one shipped with afpjax: {', '.join(shipped())}" if shipped() else ""
    return _help(f"experiment file in TOML{names}; the options below override it", "FILE")
