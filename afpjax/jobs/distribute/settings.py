"""Settings of job distribute: how neurons are shared out, and which devices are lost."""

from typing import Annotated, Any

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import NETWORK, JobSettings, When, empty, is_, names_in
from afpjax.config.settings import (
    STRICT,
    FilePath,
    Many,
    OneOf,
    Range,
    refuse_repeated,
    setting,
)
from afpjax.inputs.errors import InputError

#: Ways to share neurons out: the files of the folder.
METHODS = names_in("neurons.methods", ".py")
#: What a neuron's placement depends on, wherever it is made.
PLACING = ("devices", "thresholds", "scores", "normalise", "classifier", "importance", "substitute")
UNSCORED = empty("distribute.importance")
_SEARCHED = When("distribute.search is not 0", lambda config: config.distribute.search != 0)
_FLIPS = is_("distribute.flips", True)
_CROSSING = When(
    "distribute.flips is true or faults.link is resent",
    lambda config: config.distribute.flips or config.faults.link == "resent",
)


@dataclass(frozen=True, config=STRICT)
class Distribute:
    """Every layer's neurons shared out over devices, some of which are lost.

    search.images, held_out, population and generations apply; importance.* says how neurons are
    scored, faults.* and platform.devices how often bits flip where `flips` is set.
    """

    devices: Annotated[Many[int], Range(2, 128)] = setting(
        (4, 3, 2), "numbers of devices that neurons are shared out over"
    )
    thresholds: Annotated[Many[float], Range(0, 1e12)] = setting(
        (0.1,),
        "largest distance of neurons in one cluster, one for all layers or one for each; 0 "
        "replicates all",
    )
    scores: Annotated[Many[str], OneOf("l1", "taylor", "jsd")] = setting(
        ("l1", "taylor", "jsd"), "scores that clusters are made by"
    )
    normalise: Annotated[str, OneOf("minmax", "zscore", "rank", "raw")] = setting(
        "minmax", "scale that a layer's scores are brought to"
    )
    lost: Annotated[Many[int], Range(0, 127)] = setting(
        (), "how many devices are lost", empty="every number but all of them"
    )
    methods: Annotated[Many[str], OneOf(*METHODS)] = setting(
        ("robustdice", "lop", "cdc", "replication", "random", "topk", "randomk"),
        "methods that are measured",
    )
    substitute: Annotated[str, OneOf("zero", "mean", "bias")] = setting(
        "zero",
        "what a lost neuron gives, before the activation: zero, its mean over the images that "
        "neurons are scored on, or its layer's bias",
    )
    classifier: Annotated[str, OneOf("distributed", "whole")] = setting(
        "distributed",
        "the last layer: its neurons are shared out too, or every device computes the whole of it",
    )
    curve: Annotated[Many[float], Range(0, 1e12)] = setting(
        (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
        "thresholds of the curve of accuracy over memory, of the first number of devices and "
        "its smallest loss",
        empty="no curve",
    )
    compare: bool = setting(True, "also compare scores, scales and substitutes")
    failure: Annotated[Many[float], Range(0, 1)] = setting(
        (),
        "chance that a device fails, one for all or one for each of the first of "
        "distribute.devices",
        empty="no expected accuracy",
    )
    flips: bool = setting(
        False, "also with bits that flip at faults' rates, one for all or one per platform device"
    )
    importance: FilePath = setting(
        "",
        "run folder of a job importance, for its scores",
        empty="neurons are scored here",
        metavar="FOLDER",
    )
    search: Annotated[int, Range(-1, 10_000)] = setting(
        0,
        "search for thresholds, of so many groups of consecutive layers, -1 for each layer "
        "its own, 0 for no search",
    )
    objective: Annotated[str, OneOf("front", "all", "weighted")] = setting(
        "front",
        "what the search is for: a front of accuracy and memory (NSGA-II), with energy and "
        "throughput besides (all), or the best weighted sum (CMA-ES)",
        when=[_SEARCHED],
    )
    weights: Annotated[Many[float], Range(0, 1e6)] = setting(
        (1.0, 0.5, 0.0, 0.0),
        "weights of accuracy lost, memory, energy and time per image, as shares of full "
        "replication's, for objective = weighted",
        when=[_SEARCHED, is_("distribute.objective", "weighted")],
    )
    board: FilePath = setting(
        "jetson-xavier-nx", "board that all devices are, shipped or a path to its TOML"
    )
    link: FilePath = setting(
        "ethernet-1g", "link between the boards, shipped or a path to its TOML"
    )
    stream: Annotated[int, Range(1, 10**9)] = setting(
        1000, "images of the stream that energy and throughput are for"
    )

    def __post_init__(self) -> None:
        for name in ("devices", "thresholds", "scores", "methods"):
            if not getattr(self, name):
                raise InputError(f"distribute.{name}: give one or more")
        refuse_repeated(self, "distribute", "devices", "scores", "lost", "methods", "curve")
        if len(self.failure) not in (0, 1, self.devices[0]):
            raise InputError(
                f"distribute.failure: {len(self.failure)} probabilities for {self.devices[0]} "
                "devices; give one number, one per device, or none"
            )
        if len(self.weights) != 4 or not any(self.weights):
            raise InputError(
                "distribute.weights: give four, of accuracy, memory, energy and time, not all 0"
            )


def _check(config: Any) -> None:
    """What the job runs; others place neurons by one method and lose nothing."""
    own: Distribute = config.distribute
    most = max(own.devices)
    if own.lost and max(own.lost) >= most:
        raise InputError(
            f"distribute.lost: {max(own.lost)} of {most} devices leave none; lose "
            f"{most - 1} or fewer"
        )
    if "cdc" in own.methods and most < 3:
        raise InputError(
            "distribute.methods: cdc needs 3 devices, one of them the spare; give "
            "distribute.devices = 3 or more, or leave cdc out"
        )


JOB = JobSettings(
    line="spread and replicate neurons, so that devices may be lost",
    order=5,
    section=Distribute,
    uses={
        **NETWORK,
        "faults": (_FLIPS,),
        "faults.strategy": None,
        "faults.trials": None,
        "faults.link": (),
        "faults.link_rate": (_CROSSING,),
        "platform.devices": (_FLIPS,),
        "platform.link": (),
        "platform.batch": (),
        "search.images": (),
        "search.held_out": (),
        "search.population": (_SEARCHED,),
        "search.generations": (_SEARCHED,),
        "search.effort": (_SEARCHED,),
        "search.final_trials": (_FLIPS,),
        "importance": (UNSCORED,),
        "importance.sample": None,
        "importance.sample_images": None,
    },
    sources={"distribute.importance": ("run.seed", "model", "train", "data")},
    check=_check,
)
