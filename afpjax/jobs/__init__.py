"""The jobs of the command, a folder each; a job's own module is imported when it runs."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from afpjax.config.jobs import job_names


def _late(name: str, function: str) -> Callable[[Any, Any], Any]:
    def call(config: Any, work: Any, /) -> Any:
        return getattr(import_module(f"{__name__}.{name}.run"), function)(config, work)

    return call


#: Name -> job, `run(config, work) -> Outcome` of `afpjax/jobs/NAME/run.py`.
JOBS: Mapping[str, Callable[[Any, Any], Any]] = {name: _late(name, "run") for name in job_names()}
#: Name -> what the job would take, for people: `plan(config, work)` there.
PLANS: Mapping[str, Callable[[Any, Any], Any]] = {name: _late(name, "plan") for name in job_names()}
