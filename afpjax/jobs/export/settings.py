"""Settings of job export: what is made a deployable model of."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import NETWORK, JobSettings, empty, is_
from afpjax.config.settings import STRICT, FilePath, Many, OneOf, Range, setting
from afpjax.jobs.distribute.settings import METHODS, PLACING, UNSCORED

NEW = empty("export.source")
MAPPED = is_("export.kind", "mapping")
PLACED = is_("export.kind", "placement")
SEARCHED = (NEW, MAPPED, empty("export.mapping"))


@dataclass(frozen=True, config=STRICT)
class Export:
    """One deployable model per device, for a mapping or for distributed neurons."""

    source: FilePath = setting(
        "",
        "run folder of a job partition or distribute, whose choice is exported",
        empty="export.kind is worked out here",
        metavar="FOLDER",
    )
    kind: Annotated[str, OneOf("mapping", "placement")] = setting(
        "mapping",
        "without a source: AFarePart's mapping of layers, or RobustDiCE's placement of neurons",
        when=[NEW],
    )
    mapping: Annotated[Many[int], Range(0, 1023)] = setting(
        (),
        "device of each layer, instead of a searched mapping",
        empty="searched",
        when=[NEW, MAPPED],
    )
    method: Annotated[str, OneOf(*METHODS)] = setting(
        "robustdice",
        "how neurons are placed on the first number of distribute.devices",
        when=[NEW, PLACED],
    )
    batch: Annotated[int, Range(1, 65_536)] = setting(
        1, "images that an exported model takes at once"
    )
    images: Annotated[int, Range(1, 10**9)] = setting(
        1000, "most test images that exported models are checked on, beside afpjax itself"
    )


JOB = JobSettings(
    line="one deployable model per device, from an earlier run",
    order=7,
    section=Export,
    uses={
        **NETWORK,
        "faults": SEARCHED,
        "platform": SEARCHED,
        "platform.devices": (NEW, MAPPED),
        "search": SEARCHED,
        "search.images": (),
        "search.held_out": (),
        "importance": (NEW, PLACED, UNSCORED),
        "importance.sample": None,
        "importance.sample_images": None,
        **{f"distribute.{key}": (NEW, PLACED) for key in PLACING},
    },
    sources={
        "export.source": ("run.seed", "model", "train", "data", "format", "platform", "distribute")
    },
)
