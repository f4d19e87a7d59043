"""Settings of job importance: how every neuron is scored."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import LEARNS_FAULTS, ZOO, JobSettings
from afpjax.config.settings import STRICT, OneOf, Range, setting

_TRAINED = (ZOO, LEARNS_FAULTS)  # the network that is scored learns with faults


@dataclass(frozen=True, config=STRICT)
class Importance:
    """Scores of every neuron, for job importance."""

    images: Annotated[int, Range(1, 10**7)] = setting(
        256, "images behind the scores, training images where there are any"
    )
    target: Annotated[str, OneOf("winner", "label", "loss")] = setting(
        "winner",
        "y of the Taylor score: the winning logit, the label's logit, or the cross-entropy loss",
    )
    exact_passes: Annotated[int, Range(0, 10**15)] = setting(
        100_000,
        "most passes of an image through the network for exact divergences; where leaving out "
        "every neuron takes more, they are estimated",
    )
    classes: Annotated[int, Range(2, 1_000_000)] = setting(
        16, "likeliest classes whose logits an estimate follows"
    )
    sample: Annotated[int, Range(3, 1_000_000)] = setting(
        16, "neurons of each layer that are left out for real to check an estimate"
    )
    sample_images: Annotated[int, Range(1, 10**7)] = setting(64, "images that they are left out on")


JOB = JobSettings(
    line="how much each neuron matters",
    order=4,
    section=Importance,
    uses={
        "run": (),
        "run.memory_gb": None,
        "run.cluster": None,
        "run.workers": None,
        "model": (),
        "train": (),
        "data": (),
        "data.calibration": _TRAINED,
        "format": _TRAINED,
        "faults": _TRAINED,
        "faults.strategy": None,
        "faults.trials": None,
        "platform.devices": _TRAINED,
        "search.images": (),
    },
)
