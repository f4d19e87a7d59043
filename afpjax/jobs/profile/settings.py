"""Settings of job profile."""

from afpjax.config.jobs import LINK_RESENDS, JobSettings

JOB = JobSettings(
    line="the layers, and what they cost on every device",
    order=2,
    uses={
        "run": (),
        "run.memory_gb": None,
        "run.cluster": None,
        "run.workers": None,
        "model": (),
        "model.weights": None,
        "format.kind": (),
        "format.bits": (),
        "faults.link": (),
        "faults.link_rate": (LINK_RESENDS,),
        "platform": (),
    },
)
