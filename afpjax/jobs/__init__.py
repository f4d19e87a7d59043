"""The jobs of the command, one module each; `JOBS` imports a module when its job runs."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from afpjax.config.sections import JOB_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from afpjax.config.config import Config
    from afpjax.config.work import Work
    from afpjax.jobs.shared.outcome import Job, Outcome


def _late(name: str) -> "Job":
    def job(config: "Config", work: "Work", /) -> "Outcome":
        return import_module(f"{__name__}.{name}.run").run(config, work)

    return job


#: Name -> job; a new job is a module with `run(config, work) -> Outcome` and `plan`, and a name
#: there.
JOBS: Mapping[str, "Job"] = {name: _late(name) for name in JOB_NAMES}


def _late_plan(name: str) -> "Callable[[Config, Work], object]":
    def plan(config: "Config", work: "Work", /) -> object:
        return import_module(f"{__name__}.{name}.run").plan(config, work)

    return plan


#: Name -> what the job would take, for people: `plan(config, work)` in its module.
PLANS: "Mapping[str, Callable[[Config, Work], object]]" = {
    name: _late_plan(name) for name in JOB_NAMES
}
