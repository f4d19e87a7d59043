"""Settings of job partition."""

from typing import Any

from afpjax.config.jobs import SEARCHES, JobSettings
from afpjax.inputs.errors import InputError


def _check(config: Any) -> None:
    if len(config.platform.devices) < 2:
        raise InputError("platform.devices: a partition needs two devices or more")


JOB = JobSettings(
    line="which layer runs where: latency, energy and accuracy under faults",
    order=1,
    uses=SEARCHES,
    check=_check,
)
