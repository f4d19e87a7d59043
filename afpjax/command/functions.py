"""The command's jobs as functions: on a network and images in memory, with the file's settings."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from rich.console import Console

from afpjax.command import terminal
from afpjax.command.finish import files_of
from afpjax.command.run_folder import begin, publish, refuse_taken
from afpjax.config.config import Config, load, refuse_unused, sections
from afpjax.config.jobs import job_names, job_settings
from afpjax.config.work import SILENT, Progress, Task, Work
from afpjax.experiment import Given, Labelled, settings_of_network
from afpjax.inputs.errors import InputError, nearest
from afpjax.jobs import JOBS
from afpjax.jobs.shared.outcome import Outcome

#: Told what is under way, how many steps of it are done, and of how many.
Told = Callable[[str, int, int], Any]
_SERVED = "serve"  # runs an export's files, which lie on a disk


def run_job(
    job: str,
    network: Any,
    images: Any = None,
    labels: Any = None,
    /,
    *,
    train: tuple[Any, Any] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    title: str = "network",
    seed: int = 0,
    progress: Told | bool | None = None,
    memory: MutableMapping[bytes, bytes] | None = None,
    out: str = "",
    **settings: Any,
) -> Any:
    """Run a job of the command on a network and images in memory; its result, a frozen dataclass.

    `network`: from `afpjax.trace` or `load_onnx`, and then put into the number format of the
    setting `format`; or from `afpjax.quantize`, as it is. `images` [N, ...] are what the network
    reads (float, or integers), or bytes [N, rows, columns, C], which become (bytes / 255 - mean) /
    std; `labels` int [N]. They are split as the command splits a data set: some for a search, the
    others for what is reported (`data.order`, `search.images`, `search.held_out`). `train`: images
    and labels to calibrate and to score neurons with; `mean` and `std` per channel of bytes, by
    default measured on these, else on the images.

    `settings` are those of the experiment file, with the same names, units and checks: of the
    job's own section by name (`margin=0.02`), of others as a mapping (`faults={"bits": [14]}`).
    `progress`: True for bars, False for none, None for bars in a terminal or notebook, or a
    function that is told (what, steps done, steps). `memory` keeps what was worked out, so that a
    second call goes on where the first was stopped. `out`: a new folder for the page, CSV tables,
    charts and result.json. Raises `InputError` for whatever does not fit together.
    """
    started = time.monotonic()
    config = _config(job, network, title, seed, settings)
    if out:
        refuse_taken(out)

    if (images is None) != (labels is None):
        raise InputError("images, labels: one without the other; give both, or for profile neither")
    labelled = None if images is None else Labelled(images, labels, train, tuple(mean), tuple(std))
    given = Given.of(network, labelled)
    with _progress(progress) as bars:
        kept = {} if memory is None else memory
        outcome = JOBS[job](config, Work(kept, bars, given))
    if out:
        _written(out, config, outcome, started)
    return outcome.result


def campaign(network: Any, images: Any, labels: Any, /, **settings: Any) -> Any:
    """A Monte-Carlo fault campaign: how often faults in each layer, bit or device end in a wrong
    answer, with intervals. A `CampaignResult`; arguments and errors of `run_job`.

    `afpjax.campaign(network, images, labels, strata="layer", margin=0.02)`
    """
    return run_job("campaign", network, images, labels, **settings)


def profile(network: Any, /, **settings: Any) -> Any:
    """What every layer costs on every device: ms, mJ and bytes. A `ProfileResult`.

    `afpjax.profile(network, platform={"devices": ["eyeriss", "simba"]})`; no images are needed.
    Arguments and errors of `run_job`.
    """
    return run_job("profile", network, **settings)


def online_phase(network: Any, images: Any, labels: Any, /, **settings: Any) -> Any:
    """AFarePart's online phase: re-partition while the fault environment changes. An
    `OnlineResult`; arguments and errors of `run_job`.
    """
    return run_job("online", network, images, labels, **settings)


def export(network: Any, images: Any, labels: Any, /, out: str, **settings: Any) -> Any:
    """One ONNX file for each device, in the new folder `out`, checked against the network's own
    logits. An `ExportResult`; arguments and errors of `run_job`.
    """
    return run_job("export", network, images, labels, out=out, **settings)


def _config(job: str, network: Any, title: str, seed: int, settings: Mapping[str, Any]) -> Config:
    """The experiment that the settings say, with what follows from the network."""
    known = [name for name in job_names() if name != _SERVED]
    if job not in known:
        raise InputError(f"job: no job `{job}`{nearest(job, known)}; there are {', '.join(known)}")
    own = settings_of_network(network)
    said = dict(_said(job, settings))
    for name in said:
        if name in own or name.partition(".")[0] in ("train", "run"):
            raise InputError(f"{name}: follows from what is handed over; leave it out")
    own |= {"run.job": job, "run.seed": seed, "model.name": title}
    config = load(None, {**said, **own}, opening="")
    refuse_unused(config, said, opening="")
    return config


def _said(job: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`section.key` and value of each setting."""
    every = sections()
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in every:
            yield from ((f"{name}.{key}", each) for key, each in value.items())
        elif isinstance(value, Mapping) or job_settings()[job].section is None:
            hint = nearest(name, every) or f"; there are {', '.join(every)}"
            raise InputError(f"{name}: no section of settings has this name{hint}")
        else:
            yield f"{job}.{name}", value


def _written(out: str, config: Config, outcome: Outcome, started: float) -> None:
    """The folder that the command would leave, but that its network is not to be found again."""
    files = files_of(config, outcome, 0.0, started)
    publish(begin(replace(config, run=replace(config.run, out=out))), files)


def _progress(asked: Told | bool | None) -> AbstractContextManager[Progress]:
    if callable(asked):
        return nullcontext(_Teller(asked))
    if asked is None:
        notebook = "ipykernel" in sys.modules
        asked = notebook or sys.stderr.isatty()
    return terminal.Bars(Console(stderr=True)) if asked else nullcontext(SILENT)


class _Teller:
    """Tells a function how far each task is."""

    def __init__(self, told: Told) -> None:
        self._told = told

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Task]:
        yield _Steps(self._told, description, total)


class _Steps:
    def __init__(self, told: Told, description: str, total: int) -> None:
        self._told, self._description, self._total, self._done = told, description, total, 0

    def advance(self, amount: int = 1, /) -> None:
        self._done += amount
        self._told(self._description, self._done, self._total)
