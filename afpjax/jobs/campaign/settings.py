"""Settings of job campaign: which faults are injected, how many, and how sure it must be."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import NETWORK, JobSettings, empty, is_, names
from afpjax.config.settings import (
    STRICT,
    FilePath,
    Many,
    OneOf,
    Range,
    Text,
    refuse_repeated,
    setting,
)
from afpjax.inputs.errors import InputError

_MASKS = is_("campaign.design", "bernoulli")
_LISTED = is_("campaign.design", "listed")
_SINGLE = is_("campaign.design", "single", "neyman", "exhaustive")
_DRAWN = is_("campaign.design", "single", "neyman", "bernoulli")
_UNLISTED = is_("campaign.design", "single", "neyman", "exhaustive", "bernoulli")


@dataclass(frozen=True, config=STRICT)
class Campaign:
    """A Monte-Carlo fault campaign: which faults, how many, and how sure the answer must be.

    faults.kind, burst, packet, scope and layers say what a fault is; rates are for bernoulli.
    """

    design: Annotated[str, OneOf("single", "neyman", "exhaustive", "bernoulli", "listed")] = (
        setting(
            "single",
            "single: faults drawn uniformly in each stratum; neyman: campaign.trials shared out "
            "after a pilot; exhaustive: every fault; bernoulli: masks at faults' rates; listed: "
            "those of campaign.list or campaign.sites",
        )
    )
    targets: Annotated[Many[str], OneOf("weights", "activations", "link")] = setting(
        ("weights",),
        "what has faults: weights, activations (layers' inputs), or those that cross a link",
        when=[_UNLISTED],
    )
    strata: Annotated[str, OneOf("network", "layer", "bit", "layer-bit")] = setting(
        "layer-bit", "what an answer is asked for each of", when=[_UNLISTED]
    )
    bits: Annotated[Many[int], Range(0, 31)] = setting(
        (), "bits that single faults are in, lowest is 0", empty="every bit", when=[_SINGLE]
    )
    count: Annotated[int, Range(1, 1_000_000)] = setting(
        1,
        "faults in each trial, of one stratum, none twice",
        when=[is_("campaign.design", "single", "neyman")],
    )
    margin: Annotated[float, Range(1e-5, 0.5)] = setting(
        0.1,
        "half the width of the interval that is wanted of each stratum's SDC rate",
        when=[_DRAWN],
    )
    confidence: Annotated[float, Range(0.01, 0.9999)] = setting(0.95, "how sure the intervals are")
    interval: Annotated[str, OneOf("wilson", "clopper-pearson")] = setting(
        "wilson", "kind of interval", when=[_SINGLE]
    )
    sequential: bool = setting(
        True,
        "strata stop when their interval is narrow enough",
        when=[is_("campaign.design", "single")],
    )
    trials: Annotated[int, Range(0, 10**12)] = setting(
        0,
        "most trials of each stratum, 0 for as many as the margin asks for; of all strata "
        "together for neyman; masks of each cell for bernoulli",
        when=[_DRAWN],
    )
    images: Annotated[int, Range(0, 10**9)] = setting(
        64, "test images that every fault meets, 0 for all"
    )
    rates: Annotated[Many[float], Range(0, 1)] = setting(
        (),
        "rates to sweep for bernoulli",
        empty="those of each device, faults.weight_rate and activation_rate",
        when=[_MASKS],
    )
    mapping: Annotated[Many[int], Range(0, 1023)] = setting(
        (),
        "device of each layer, for target link",
        empty="every layer on one of its own",
        when=[names("campaign.targets", "link")],
    )
    sites: Many[Text] = setting(
        (),
        "faults for listed, LAYER/TARGET/ELEMENT/BIT (BIT+BIT for several), as a report has them",
        when=[_LISTED, empty("campaign.list")],
    )
    list: FilePath = setting(
        "",
        "table of faults in weights for listed, .csv with the columns Layer, TensorIndex and "
        "Bit; where it says what they did (n_injections, masked, non_critical, critical), "
        "that is compared",
        metavar="FILE",
        when=[_LISTED],
    )
    not_finite: Annotated[str, OneOf("detected", "argmax")] = setting(
        "detected",
        "an image whose output is infinite or NaN: its failure is detected, and no silent "
        "change of class; or it has the class that argmax makes of it, the first NaN's, as in "
        "PyTorch, NumPy and JAX",
    )

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("campaign.targets: name one or more of weights, activations and link")
        refuse_repeated(self, "campaign", "targets", "bits", "rates", "sites")


JOB = JobSettings(
    line="how vulnerable each layer and bit is, by fault injection",
    order=3,
    section=Campaign,
    uses={
        **NETWORK,
        "faults": (),
        "faults.strategy": None,
        "faults.trials": None,
        "faults.bits": (_MASKS,),
        "faults.bit_profile": (_MASKS,),
        "faults.weight_rate": (_MASKS,),
        "faults.activation_rate": (_MASKS,),
        "faults.link_rate": (_MASKS,),
        "faults.budget": (_MASKS,),
        "faults.generator": (_MASKS,),
        "faults.layers": (_UNLISTED,),
        "platform.devices": (_MASKS,),
        "platform.link": (),
        "search.images": (),
    },
)
