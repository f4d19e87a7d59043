"""A run's folder: hidden beside its place while under way, then put there whole, in one step."""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from afpjax import __version__
from afpjax.config.config import Config, load, to_toml
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import TOML, read_text, read_toml

__all__ = ["RunFolder", "begin", "discard", "find", "publish", "started_with", "without_place"]

_RUNS = "runs"  # where runs go that are given no --out
_HEADER = (
    f"# Written by afpjax {__version__}. "
    "To run it again: python -m afpjax.run --config THIS_FILE\n\n"
)


class RunFolder(NamedTuple):
    """A run under way: `out` does not exist, or is empty, until `publish` puts it in its place."""

    out: Path  # absolute
    begun: bool = False  # by this process, which may undo it; else found
    made: tuple[Path, ...] = ()  # folders above it that were made for it, innermost first

    @property
    def partial(self) -> Path:
        """The hidden folder that holds the run until it is done."""
        return self.out.parent / f".{self.out.name}.partial"

    @property
    def config_file(self) -> Path:
        """The experiment, without `run.out`."""
        return self.partial / "config.toml"

    @property
    def store_file(self) -> Path:
        """What the job has worked out so far."""
        return self.partial / "store.sqlite"

    @property
    def shown(self) -> str:
        """`out` as a person would write it."""
        here = Path.cwd()
        return str(self.out.relative_to(here) if self.out.is_relative_to(here) else self.out)


def begin(config: Config) -> RunFolder:
    """The folder for a new run, with its experiment in it.

    Raises `InputError`, and leaves nothing behind, where the run's place is taken or cannot be
    written.
    """
    if config.run.out:
        refuse_taken(config.run.out)
        return _begin_at(config.run.out, config)
    for number in count(1):
        name = os.path.join(_RUNS, f"{config.run.job}-{number}")
        folder = RunFolder(_place(name))
        if not os.path.lexists(folder.out) and not os.path.lexists(folder.partial):
            with suppress(_JustTaken):
                return _begin_at(name, config)
    raise AssertionError("there is always a next number")


def find(out: str, job: str = "") -> RunFolder:
    """The unfinished run of `out`, or with no `out` the last one touched below `runs`, of `job`.

    Raises `InputError` where there is none.
    """
    if out:
        folder = RunFolder(_place(out))
        if os.path.isfile(folder.config_file) and not _is_full(folder.out):
            return folder
        done = "is finished" if _is_full(folder.out) else "holds no unfinished run"
        raise InputError(f"--resume: {out} {done}, so there is nothing to go on with")
    found = [folder for folder in _unfinished() if not job or _job_of(folder) == job]
    if not found:
        wanted = f"{job} run" if job else "run"
        raise InputError(f"--resume: {_RUNS} holds no unfinished {wanted}; name one with --out")
    return max(found, key=_last_touched)


def started_with(folder: RunFolder, named: str = "") -> Config:
    """The experiment of an unfinished run, which only the version that began it may go on with.

    A function that is its network must be `named`, see `config.load`.
    """
    first = read_text(folder.config_file, "--resume", TOML).partition("\n")[0]
    version = re.search(r"afpjax (\S+)\. ", first)
    if version and version[1] != __version__:
        raise InputError(
            f"--resume: {folder.shown} was begun by afpjax {version[1]}, this is {__version__}; "
            f"start it anew, or delete {folder.partial}"
        )
    return load(folder.config_file, named=named)


def without_place(config: Config) -> Config:
    """The experiment as it is kept: to run it again must not ask for the same folder again."""
    return replace(config, run=replace(config.run, out=""))


def publish(
    folder: RunFolder,
    files: Mapping[str, bytes],
    whole: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Put the run in its place, with its experiment and `files` (name -> content), in one step.

    `whole()` is entered for the step itself; up to there the run is one that can be gone on with.
    """
    page = folder.partial / "page"
    shutil.rmtree(page, ignore_errors=True)  # of an earlier attempt that was killed here
    page.mkdir()
    shutil.copy(folder.config_file, page)
    for name, content in files.items():
        (page / name).write_bytes(content)
    with whole():
        if folder.out.is_dir():
            folder.out.rmdir()  # `begin` has seen that it is empty; not all systems rename over it
        page.rename(folder.out)
        shutil.rmtree(folder.partial, ignore_errors=True)


def discard(folder: RunFolder) -> None:
    """Remove a run that this process began and what was made for it; one that was found stays."""
    if folder.begun:
        shutil.rmtree(folder.partial, ignore_errors=True)
    for parent in folder.made:
        with suppress(OSError):  # another run may have moved in
            parent.rmdir()


class _JustTaken(InputError):
    """Another process was quicker."""


def _begin_at(name: str, config: Config) -> RunFolder:
    out = _place(name)
    made = tuple(each for each in out.parents if not os.path.lexists(each))
    folder = RunFolder(out, begun=True, made=made)
    try:
        folder.partial.mkdir(parents=True)
        folder.config_file.write_text(_HEADER + to_toml(without_place(config)), encoding="utf-8")
    except FileExistsError as error:
        raise _JustTaken(f"--out {name}: another run has just begun there") from error
    except OSError as error:
        discard(folder)
        raise InputError(f"--out {name}: cannot be written: {error.strerror}") from error
    return folder


def _place(name: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(name)))


def refuse_taken(name: str) -> None:
    """Raise `InputError` where a new run cannot go there."""
    folder = RunFolder(_place(name))
    if _is_full(folder.out):
        raise InputError(f"--out {name}: is there already; name a folder that is new or empty")
    if os.path.isdir(folder.out) and (folder.out == Path.cwd() or os.path.ismount(folder.out)):
        raise InputError(f"--out {name}: cannot be replaced; name a new folder inside it")
    if os.path.lexists(folder.partial):
        raise InputError(
            f"--out {name}: an unfinished run lies there; go on with --resume, or delete "
            f"{folder.partial}"
        )


def _is_full(out: Path) -> bool:
    """Whether anything but an empty folder is in the place."""
    with suppress(OSError):  # a folder that may not be read is not ours to replace
        return bool(os.listdir(out))
    return os.path.lexists(out)


def _unfinished() -> list[RunFolder]:
    partials = Path(_RUNS).absolute().glob(".*.partial")
    folders = [RunFolder(path.with_name(path.name[1 : -len(".partial")])) for path in partials]
    return [each for each in folders if os.path.isfile(each.config_file) and not _is_full(each.out)]


def _job_of(folder: RunFolder) -> str:
    with suppress(InputError):  # no experiment: not a run of this job
        run = read_toml(folder.config_file, "--resume").get("run")
        return run.get("job", "") if isinstance(run, dict) else ""
    return ""


def _last_touched(folder: RunFolder) -> float:
    with suppress(OSError):  # it may be done, and gone, by now
        return max(path.stat().st_mtime for path in folder.partial.iterdir())
    return 0.0
