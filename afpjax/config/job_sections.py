"""What an experiment file may say of campaigns, importance and distributed neurons.

Sections of one job each; `sections` has those that jobs share, and says how fields are written.
"""

from dataclasses import dataclass

from afpjax.config.settings import setting


@dataclass(frozen=True)
class Campaign:
    """A Monte-Carlo fault campaign: which faults, how many, and how sure the answer must be.

    faults.kind, burst, packet, scope and layers say what a fault is; rates are for bernoulli.
    """

    design: str = setting(
        "single",
        "single: faults drawn uniformly in each stratum; neyman: campaign.trials shared out after "
        "a pilot; exhaustive: every fault; bernoulli: masks at faults' rates; listed: those of "
        "campaign.list or campaign.sites",
        choices=("single", "neyman", "exhaustive", "bernoulli", "listed"),
    )
    targets: tuple[str, ...] = setting(
        ("weights",),
        "what is struck: weights, activations (layers' inputs), or those that cross a link",
        choices=("weights", "activations", "link"),
    )
    strata: str = setting(
        "layer-bit",
        "what an answer is asked for each of",
        choices=("network", "layer", "bit", "layer-bit"),
    )
    bits: tuple[int, ...] = setting(
        (), "bits that single faults strike, lowest is 0", low=0, high=31, empty="every bit"
    )
    count: int = setting(
        1, "faults in each trial, of one stratum, none twice", low=1, high=1_000_000
    )
    margin: float = setting(
        0.1,
        "half the width of the interval that is wanted of each stratum's SDC rate",
        low=1e-5,
        high=0.5,
    )
    confidence: float = setting(0.95, "how sure the intervals are", low=0.01, high=0.9999)
    interval: str = setting("wilson", "kind of interval", choices=("wilson", "clopper-pearson"))
    sequential: bool = setting(True, "strata stop when their interval is narrow enough")
    trials: int = setting(
        0,
        "most trials of each stratum, 0 for as many as the margin asks for; of all strata together "
        "for neyman; masks of each cell for bernoulli",
        low=0,
        high=10**12,
    )
    images: int = setting(64, "test images that every fault meets, 0 for all", low=0, high=10**9)
    rates: tuple[float, ...] = setting(
        (),
        "rates to sweep for bernoulli",
        low=0.0,
        high=1.0,
        empty="those of each device, faults.weight_rate and activation_rate",
    )
    mapping: tuple[int, ...] = setting(
        (),
        "device of each layer, for target link",
        low=0,
        empty="every layer on one of its own",
        high=1023,
    )
    sites: tuple[str, ...] = setting(
        (),
        "faults for listed, LAYER/TARGET/ELEMENT/BIT (BIT+BIT for several), as a report has them",
    )
    list: str = setting(
        "",
        "table of faults in weights for listed, .csv with the columns Layer, TensorIndex and Bit; "
        "where it says what they did (n_injections, masked, non_critical, critical), that is "
        "compared",
        path=True,
        metavar="FILE",
    )
    not_finite: str = setting(
        "detected",
        "an image whose output is infinite or NaN: its failure is detected, and no silent change "
        "of class; or it has the class that argmax makes of it, the first NaN's, as in PyTorch, "
        "NumPy and JAX",
        choices=("detected", "argmax"),
    )


@dataclass(frozen=True)
class Importance:
    """Scores of every neuron, for job importance."""

    images: int = setting(
        256, "images behind the scores, training images where there are any", low=1, high=10**7
    )
    target: str = setting(
        "winner",
        "y of the Taylor score: the winning logit, the label's logit, or the cross-entropy loss",
        choices=("winner", "label", "loss"),
    )
    exact_passes: int = setting(
        100_000,
        "most passes of an image through the network for exact divergences; where leaving out "
        "every neuron takes more, they are estimated",
        low=0,
        high=10**15,
    )
    classes: int = setting(
        16, "likeliest classes whose logits an estimate follows", low=2, high=1_000_000
    )
    sample: int = setting(
        16,
        "neurons of each layer that are left out for real to check an estimate",
        low=3,
        high=1_000_000,
    )
    sample_images: int = setting(64, "images that they are left out on", low=1, high=10**7)


@dataclass(frozen=True)
class Distribute:
    """Every layer's neurons shared out over devices, some of which are lost.

    search.images, held_out, population and generations apply; importance.* says how neurons are
    scored, faults.* and platform.devices how often bits flip where `flips` is set.
    """

    devices: tuple[int, ...] = setting(
        (4, 3, 2), "numbers of devices that neurons are shared out over", low=2, high=128
    )
    thresholds: tuple[float, ...] = setting(
        (0.1,),
        "largest distance of neurons in one cluster, one for all layers or one for each; 0 "
        "replicates all",
        low=0.0,
        high=1e12,
    )
    scores: tuple[str, ...] = setting(
        ("l1", "taylor", "jsd"),
        "scores that clusters are made by",
        choices=("l1", "taylor", "jsd"),
    )
    normalise: str = setting(
        "minmax",
        "scale that a layer's scores are brought to",
        choices=("minmax", "zscore", "rank", "raw"),
    )
    lost: tuple[int, ...] = setting(
        (), "how many devices are lost", low=0, high=127, empty="every number but all of them"
    )
    methods: tuple[str, ...] = setting(
        ("robustdice", "lop", "cdc", "replication", "random", "topk", "randomk"),
        "methods that are measured",
        choices=("robustdice", "lop", "cdc", "replication", "random", "topk", "randomk"),
    )
    substitute: str = setting(
        "zero",
        "what a lost neuron gives, before the activation: zero, its mean over the images that "
        "neurons are scored on, or its layer's bias",
        choices=("zero", "mean", "bias"),
    )
    classifier: str = setting(
        "distributed",
        "the last layer: its neurons are shared out too, or every device computes the whole of it",
        choices=("distributed", "whole"),
    )
    curve: tuple[float, ...] = setting(
        (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
        "thresholds of the curve of accuracy over memory, of the first number of devices and its "
        "smallest loss",
        low=0.0,
        empty="no curve",
        high=1e12,
    )
    compare: bool = setting(True, "also compare scores, scales and substitutes")
    failure: tuple[float, ...] = setting(
        (),
        "chance that a device fails, one for all or one for each of the first of "
        "distribute.devices",
        low=0.0,
        high=1.0,
        empty="no expected accuracy",
    )
    flips: bool = setting(
        False, "also with bits that flip at faults' rates, one for all or one per platform device"
    )
    importance: str = setting(
        "",
        "run folder of a job importance, for its scores",
        path=True,
        empty="neurons are scored here",
        metavar="FOLDER",
    )
    search: int = setting(
        0,
        "search for thresholds, of so many groups of consecutive layers, -1 for each layer its "
        "own, 0 for no search",
        low=-1,
        high=10_000,
    )
    objective: str = setting(
        "front",
        "what the search is for: a front of accuracy and memory (NSGA-II), with energy and "
        "throughput besides (all), or the best weighted sum (CMA-ES)",
        choices=("front", "all", "weighted"),
    )
    weights: tuple[float, ...] = setting(
        (1.0, 0.5, 0.0, 0.0),
        "weights of accuracy lost, memory, energy and time per image, as shares of full "
        "replication's, for objective = weighted",
        low=0.0,
        high=1e6,
    )
    board: str = setting(
        "jetson-xavier-nx", "board that all devices are, shipped or a path to its TOML", path=True
    )
    link: str = setting(
        "ethernet-1g", "link between the boards, shipped or a path to its TOML", path=True
    )
    stream: int = setting(
        1000, "images of the stream that energy and throughput are for", low=1, high=10**9
    )
