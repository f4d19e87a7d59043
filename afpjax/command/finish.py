"""What a run leaves: the files of its folder, and what the terminal shows.

Imported when a job has ended, since charts and arrays take long to import.
"""

import os
import time
from collections.abc import Mapping

from rich.console import Console

from afpjax import __version__
from afpjax.command.run_folder import RunFolder, without_place
from afpjax.config.config import Config
from afpjax.jobs.shared.outcome import Outcome, result_text, tables
from afpjax.jobs.shared.result import plain
from afpjax.report.render import page, terminal


def files_of(config: Config, outcome: Outcome, before: float, started: float) -> dict[str, bytes]:
    """The run folder's files, by name, but for its config.toml."""
    own = {"job": config.run.job, "version": __version__, "seed": config.run.seed}
    measured = plain(outcome.result)
    if taken := {*own, "seconds"} & set(measured):
        raise ValueError(f"the command itself writes {sorted(taken)} to result.json")
    result = {**own, **measured}
    report = page(outcome.view, config.run.job, without_place(config))
    seconds = round(max(before, 0.0) + time.monotonic() - started, 3)
    texts = {
        "result.json": result_text({**result, "seconds": seconds}),
        "report.html": report.html,
        **{f"{name}.csv": text for name, text in tables(result).items()},
    }
    files = {**report.figures, **{name: text.encode() for name, text in texts.items()}}
    return {**files, **_of_job(outcome, {*files, "config.toml"})}


def _of_job(outcome: Outcome, taken: set[str]) -> Mapping[str, bytes]:
    """A job's own files, which lie beside the command's."""
    for name in outcome.files:
        if name in taken or os.path.basename(name) != name or name in ("", ".", ".."):
            raise ValueError(f"a job cannot write a file {name!r} to the run folder")
    return outcome.files


def show(outcome: Outcome, folder: RunFolder) -> None:
    """Print what has to be known first, then the job's own summary and where the page lies."""
    console = Console()
    for text in outcome.view.warnings:
        console.print(f"Note: {text}", style="bold yellow", markup=False, highlight=False)
    console.print(terminal(outcome.view))
    for text in outcome.view.remarks:
        console.print(text, markup=False, highlight=False)
    shown = os.path.join(folder.shown, "report.html")
    console.print(f"Done: {shown}", markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
