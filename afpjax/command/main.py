"""The command: read the command line, run one job, write its run folder."""

import errno
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from afpjax.command import terminal
from afpjax.command.command import PROGRAM, Request, read
from afpjax.command.interrupts import INTERRUPTED, Interrupts
from afpjax.command.run_folder import (
    RunFolder,
    begin,
    discard,
    find,
    publish,
    refuse_taken,
    started_with,
)
from afpjax.command.store import RowStore
from afpjax.config.config import (
    Config,
    first_difference,
    is_function,
    load,
    load_settings,
    refuse_unused,
)
from afpjax.config.work import Work, summed
from afpjax.inputs.errors import Halted, InputError
from afpjax.inputs.files import cache_folder
from afpjax.jobs import JOBS, PLANS

DONE, BAD_INPUT = 0, 2
#: `run(config, work) -> Outcome`, see `afpjax.jobs.shared.outcome`.
Job = Callable[[Config, Work], Any]
_SECONDS = b"run: seconds"


def main(argv: Sequence[str] | None = None, jobs: Mapping[str, Job] | None = None) -> int:
    """Run the command `argv` (the process's own if None) and return its exit status.

    0: done. 2: bad input, said in one line. 130: interrupted, and `--resume` goes on. Any other
    exception passes through; what was worked out before it is kept for `--resume`. `jobs` are
    the jobs by name, `afpjax.jobs.JOBS` if None. `SystemExit` after --help and --version.
    """
    started = time.monotonic()
    words = sys.argv[1:] if argv is None else argv
    terminal.open_all()
    with Interrupts() as seeing:
        status = _status(words, jobs, started, seeing)
    return INTERRUPTED if seeing.seen else status


def _status(
    words: Sequence[str], jobs: Mapping[str, Job] | None, started: float, seeing: Interrupts
) -> int:
    try:
        return _run(words, JOBS if jobs is None else jobs, started, seeing)
    except BaseException as error:
        seeing.settle()
        if seeing.seen or isinstance(error, KeyboardInterrupt):
            seeing.say()
            return INTERRUPTED
        if isinstance(error, InputError):
            _say(f"error: {' '.join(str(error).split())}")
            return BAD_INPUT
        if isinstance(error, BrokenPipeError):  # our reader has seen enough, as in `--help | head`
            terminal.silence(sys.stdout)
            return DONE
        raise


def _run(argv: Sequence[str], jobs: Mapping[str, Job], started: float, seeing: Interrupts) -> int:
    with terminal.written():
        request = read(argv, jobs)
    _refuse_lost_folder()
    if request.dry_run:
        return _plan(request, jobs)
    config, folder = _begun(request, jobs, seeing)
    try:
        outcome, before = _work(jobs[config.run.job], config, folder, started)
        from afpjax.command.finish import files_of, show

        files = files_of(config, outcome, before, started)
        publish(folder, files, lambda: _whole(folder, seeing))
    except BaseException as error:
        seeing.settle()
        if seeing.seen or isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, InputError):
            discard(folder)
            raise
        if isinstance(error, Halted) or _disk_is_full(error):
            _say(
                f"error: {error}; what was worked out is kept, go on with: {_go_on(folder, config)}"
            )
            return BAD_INPUT
        _say(
            "failed, as said below; what was worked out is kept, go on with: "
            + _go_on(folder, config)
        )
        raise
    with terminal.written():
        show(outcome, folder)
    return DONE


def _refuse_lost_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise InputError("the current folder is no more; change to one that is there") from error


@contextmanager
def _whole(folder: RunFolder, seeing: Interrupts) -> Iterator[None]:
    """An interrupt leaves a run that goes on with --resume, or one that is there whole."""
    with seeing.held():
        yield
        seeing.line = f"interrupted when the run was done; it lies whole in {folder.shown}"


def _go_on(folder: RunFolder, config: Config) -> str:
    name = config.model.name
    again = f" --model.name {shlex.quote(name)}" if is_function(name) else ""
    return f"{PROGRAM} --resume --out {shlex.quote(folder.shown)}{again}"


def _disk_is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _plan(request: Request, jobs: Mapping[str, Job]) -> int:
    """Say what a job would take; nothing is written."""
    from rich.console import Console

    config = _checked(request, jobs)
    if config.run.out:
        refuse_taken(config.run.out)
    with terminal.on_stderr() as progress:
        planned = PLANS[config.run.job](config, Work({}, progress))
    with terminal.written():
        Console().print(planned, markup=False)
    return DONE


def _begun(
    request: Request, jobs: Mapping[str, Job], seeing: Interrupts
) -> tuple[Config, RunFolder]:
    config, folder = _resumed(request) if request.resume else (_checked(request, jobs), None)
    with seeing.held():
        folder = folder or begin(config)
        seeing.line = f"interrupted; go on with: {_go_on(folder, config)}"
    return config, folder


def _checked(request: Request, jobs: Mapping[str, Job]) -> Config:
    config = load_settings(request.file, request.overrides)
    if config.run.job not in jobs:
        raise InputError(
            f"run.job: this version of afpjax cannot do `{config.run.job}` yet; "
            f"it can do {', '.join(jobs)}"
        )
    refuse_unused(config, request.overrides)
    return config


def _resumed(request: Request) -> tuple[Config, RunFolder]:
    """The unfinished run that is asked for; what is asked beside that must be what it is."""
    place = {key: value for key, value in request.overrides.items() if key.startswith("run.")}
    asked = load(request.file, request.overrides if request.file else place)
    any_job = not request.file and "run.job" not in place
    folder = find(asked.run.out, "" if any_job else asked.run.job)
    config = started_with(folder, str(request.overrides.get("model.name", "")))
    again = load(request.file or folder.config_file, request.overrides)
    difference = first_difference(config, again)
    if difference:
        raise InputError(
            f"--resume: {folder.shown} was begun with other settings, {difference}; "
            "ask for the same ones, or start anew without --resume"
        )
    return replace(config, run=again.run), folder  # it may go on elsewhere


def _work(job: Job, config: Config, folder: RunFolder, started: float) -> tuple[Any, float]:
    """What the job found, and how many seconds earlier attempts at it took."""
    _keep_compiled_programs()
    from afpjax.network.compiler import keep_memory  # and with it JAX, which now knows of the cache

    keep_memory()
    with (
        _warnings_shown(),
        RowStore(folder.store_file) as memory,
        terminal.on_stderr() as progress,
        summed(memory, _SECONDS, lambda: [time.monotonic() - started]) as total,
    ):
        before = total()[0] - (time.monotonic() - started)
        return job(config, Work(memory, progress)), before


def _keep_compiled_programs() -> None:
    """Have JAX, not yet imported, keep compiled programs in the cache folder where that works.

    By way of the environment, so that processes that a job starts do the same.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        # A network is many small programs; reading one back takes milliseconds.
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Warnings in one line each, but for those that tell a user nothing.

    Pillow's, of images: what cannot be read is an error. JAX's, of a compiled program that another
    process is just writing: JAX compiles it again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    _say(f"warning: {InputError(str(message))}")  # made one line, of printable characters


def _say(line: str) -> None:
    terminal.say(f"afpjax: {line}")
