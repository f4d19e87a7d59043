"""The command line: what it asks for, its help, and one-line errors for what it cannot mean."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from afpjax import __version__
from afpjax.config.config import all_settings, find_file, sections, shipped
from afpjax.config.sections import JOB_NAMES
from afpjax.config.settings import (
    Rule,
    from_words,
    is_list,
    item_types,
    listed,
    nearest,
    range_text,
)
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import ImageSize

__all__ = ["JOB_LINES", "PROGRAM", "Request", "read"]

PROGRAM = "python -m afpjax.run"

#: What each job of the contract does, for `--help`.
JOB_LINES: Mapping[str, str] = {
    "partition": "which layer runs where: latency, energy and accuracy under faults",
    "online": "the same while the faults change: watch, search again, switch",
    "distribute": "spread and replicate neurons, so that devices may be lost",
    "campaign": "how vulnerable each layer and bit is, by fault injection",
    "importance": "how much each neuron matters",
    "profile": "the layers, and what they cost on every device",
    "export": "one deployable model per device, from an earlier run",
    "serve": "run an export for real: every device a process",
}
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


def read(argv: Sequence[str], jobs: Iterable[str] = JOB_NAMES) -> Request:
    """What `argv`, without the program's name, asks for; `jobs` are those that the help lists.

    Raises `InputError` for words that mean nothing, `SystemExit` after --help and --version.
    """
    given, unknown = tyro.cli(
        _options(jobs),
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
        kind, _ = all_settings()[name]
        if not words and kind is not bool:
            raise InputError(f"--{name}: needs a value")
        own = _own(words, kind)
        overrides[name] = from_words(words[:own], kind)
        stray += words[own:]
    file = None
    if given.config is not None:
        if not given.config or not given.config[0]:
            raise InputError("--config: needs a file, or the name of one shipped with afpjax")
        file = find_file(given.config[0])
        stray += given.config[1:]
    return Request(file, _with_job(overrides, stray), given.resume, given.dry_run)


def _own(words: Sequence[str], kind: Any) -> int:
    """How many words are the option's; what it leaves over may be the job: `--seed 3 profile`."""
    if not is_list(kind):
        return 1
    if kind != ImageSize:
        return len(words)
    job = (place for place, word in enumerate(words) if place and word in JOB_NAMES)
    return next(job, len(words))


def _words_given(given: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in all_settings():
        section, _, key = name.partition(".")
        words = getattr(getattr(given, section), key)
        if words is not None:
            yield name, words


def _with_job(overrides: dict[str, object], stray: Sequence[str]) -> dict[str, object]:
    for word in stray:
        if word not in JOB_NAMES:
            hint = nearest(word, JOB_NAMES) or f"; the jobs are {', '.join(JOB_NAMES)}"
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


def _options(jobs: Iterable[str]) -> type:
    """A dataclass for tyro: the job, the command's own options, and a group for each section."""
    resume = _help("go on with an interrupted run: of --out, or the last in runs/")
    own: list[tuple[str, Any, Any]] = [
        ("job", tyro.conf.Positional[Annotated[tuple[str, ...], _job_help(jobs)]], ()),
        ("config", Annotated[_Words, _config_help()], None),
        ("resume", Annotated[bool, resume], False),
        (
            "dry_run",
            Annotated[bool, _help("say what the job would take, and do not begin it")],
            False,
        ),
        ("version", Annotated[bool, _help("show the version and exit")], False),
    ]
    return _dataclass("Options", own + [_group(*section) for section in sections().items()])


def _group(section: str, kind: type[Any]) -> tuple[str, Any, Any]:
    keys = [(key.name, _setting_help(f"{section}.{key.name}", key.default)) for key in fields(kind)]
    group = _dataclass(section, [(key, Annotated[_Words, text], None) for key, text in keys])
    # With the help said here, tyro does not go looking for the sources of what has none.
    return section, Annotated[group, tyro.conf.arg(help=kind.__doc__)], group()


def _dataclass(name: str, options: Iterable[tuple[str, Any, Any]]) -> type:
    """A dataclass of (name, annotation, default)."""
    made = [(option, kind, field(default=default)) for option, kind, default in options]
    return make_dataclass(name, made, frozen=True)


def _setting_help(name: str, default: object) -> Any:
    kind, rule = all_settings()[name]
    allowed = f"one of {', '.join(rule.choices)}" if rule.choices else range_text(rule)
    meaning = f"{rule.help}, {allowed}" if allowed else rule.help
    return tyro.conf.arg(
        metavar=_metavar(kind, rule),
        help=meaning,
        help_behavior_hint=f"(default: {_default_text(default, rule)})",
        aliases=_SHORT.get(name),
    )


def _metavar(kind: Any, rule: Rule) -> str:
    one = rule.metavar or (
        "NAME" if rule.choices else "|".join(_METAVARS[each] for each in item_types(kind))
    )
    return f"{one} ..." if is_list(kind) and not rule.metavar else one


def _default_text(default: object, rule: Rule) -> str:
    """The default as one would type it."""
    if default in ("", ()):
        return rule.empty
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default).removesuffix(".0")


def _help(text: str, metavar: str | None = None) -> Any:
    return tyro.conf.arg(help=text, help_behavior_hint="", metavar=metavar)


def _job_help(jobs: Iterable[str]) -> Any:
    lines = [f"{name}: {JOB_LINES[name]}" for name in jobs]
    return _help("What to do, partition if not said; name it first.\n" + "\n".join(lines), "[JOB]")


def _config_help() -> Any:
    names = f", or one shipped with afpjax: {', '.join(shipped())}" if shipped() else ""
    return _help(f"experiment file in TOML{names}; the options below override it", "FILE")
