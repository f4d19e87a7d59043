"""Settings of job serve: an export that is run for real, and what is killed meanwhile."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import JobSettings, empty, given
from afpjax.config.settings import STRICT, FilePath, Many, Range, Text, setting
from afpjax.jobs.export.settings import JOB as EXPORT
from afpjax.jobs.export.settings import MAPPED, NEW, PLACED, SEARCHED

_UNEXPORTED = empty("serve.export")  # an export brings its own settings
_MAPPED = (_UNEXPORTED, MAPPED)  # it is searched for again when a device is lost
_SEARCHING = (
    "budget_ms",
    "passes_per_s",
    "population",
    "generations",
    "allow_latency",
    "allow_energy",
)


@dataclass(frozen=True, config=STRICT)
class Serve:
    """An export run for real: every device is a process, which may be killed."""

    export: FilePath = setting(
        "", "run folder of a job export", empty="exported first, as export.* says", metavar="FOLDER"
    )
    requests: Annotated[int, Range(1, 10**7)] = setting(256, "images that are asked for")
    in_flight: Annotated[int, Range(1, 10_000)] = setting(8, "images under way at once")
    kill: Many[Text] = setting((), "devices to kill, DEVICE@N: once N images have been asked for")
    kills: Annotated[int, Range(0, 1023)] = setting(
        0, "devices to kill at random instants, drawn from the seed"
    )
    timeout_ms: Annotated[float, Range(1, 1e9)] = setting(
        5000.0, "time after which a silent device counts as lost, ms"
    )
    heartbeat_ms: Annotated[float, Range(1, 1e9)] = setting(500.0, "time between heartbeats, ms")
    deadline_ms: Annotated[float, Range(1, 1e9)] = setting(
        60000.0, "time after which an unanswered image is refused, ms"
    )
    memory_mb: Annotated[float, Range(0, 1e9)] = setting(
        0.0, "memory that a device's model may take, MB, 0 for the device's own"
    )
    port: Annotated[int, Range(0, 65535)] = setting(
        0, "also answer HTTP on this port: POST /predict, GET /status; 0 for none"
    )
    listen_s: Annotated[float, Range(0, 1e7)] = setting(
        0.0,
        "with a port: time that HTTP is still answered after the images have ended, s",
        when=[given("serve.port")],
    )


JOB = JobSettings(
    line="run an export for real: every device a process",
    order=8,
    section=Serve,
    uses={
        **{
            name: None if when is None else (_UNEXPORTED, *when)
            for name, when in EXPORT.uses.items()
        },
        "run": (),
        "run.workers": None,
        "model.name": (),
        "export": (_UNEXPORTED,),
        "faults": _MAPPED,
        "faults.strategy": (_UNEXPORTED, *SEARCHED),
        "platform": _MAPPED,
        "platform.devices": (_UNEXPORTED, NEW, MAPPED),
        "platform.batch": (_UNEXPORTED,),
        "search.final_trials": _MAPPED,
        **{f"distribute.{key}": (_UNEXPORTED, NEW, PLACED) for key in ("board", "link", "stream")},
        **{f"online.{key}": _MAPPED for key in _SEARCHING},
    },
    sources={
        "serve.export": (*EXPORT.sources["export.source"], "export"),
        **EXPORT.sources,
    },
)
