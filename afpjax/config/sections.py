"""The sections of an experiment file that jobs share: one frozen dataclass each.

A field is `key: type and limits = setting(default, help)`; what must fit together within a section
is checked below its fields. Sections of one job each stand in `afpjax/jobs/JOB/settings.py`.
Relative paths are relative to the folder where the command runs, wherever the file lies.
"""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import LEARNS_FAULTS, ZOO, When, empty, given, is_, job_names, names_in
from afpjax.config.settings import (
    STRICT,
    FilePath,
    Many,
    OneOf,
    Pixels,
    Range,
    Text,
    setting,
)
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import rows_columns

_RATE_HELP = "one number for all devices or one per device"
_UNTRAINED = empty("model.weights")
_TRAINS = When(
    "the network is trained here (a name of the zoo without model.weights, or train.faults)",
    lambda config: ZOO.holds(config) and (not config.model.weights or config.train.faults),
)
_FILED = is_("data.name", "npz", "cifar10", "tiny-imagenet", "imagenet", "folder")
_FIXED = is_("format.kind", "fixed")
_CALIBRATED = When(
    "format.scale is tensor or channel, or job partition compares formats (search.formats)",
    lambda config: (
        config.format.scale != "global" or (config.run.job == "partition" and config.search.formats)
    ),
)
_PACKETS = When(
    "faults.kind is lost or lost-last, or faults.link is zero, last or resent",
    lambda config: config.faults.kind in ("lost", "lost-last") or config.faults.link != "bits",
)


#: Kinds of fault: the files of the folder.
FAULT_KINDS = tuple(name.replace("_", "-") for name in names_in("faults.kinds", ".py"))


@dataclass(frozen=True, config=STRICT)
class Run:
    """What is done, from which seed, and where the answer goes."""

    job: Annotated[str, OneOf(*job_names())] = setting("partition", "job to run")
    seed: Annotated[int, Range(0, 2**32 - 1)] = setting(0, "start of every random draw")
    out: FilePath = setting(
        "", "run folder to write", empty="runs/JOB-N, next free N", metavar="FOLDER"
    )
    memory_gb: Annotated[float, Range(0, 1e6)] = setting(
        0.0, "memory that fault evaluation may fill on each device, GB, 0 for half of what is free"
    )
    cluster: Text = setting(
        "",
        "Ray cluster that fault evaluation runs on, HOST:PORT or auto (this machine's own, "
        "begun if there is none); needs the extra `cluster`",
        empty="this process alone",
        metavar="ADDRESS",
    )
    workers: Annotated[int, Range(0, 10_000)] = setting(
        0,
        "workers on the cluster, 0 for one on each machine, or on each GPU",
        when=[given("run.cluster")],
    )


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network. Paths here and below are relative to the current folder."""

    name: FilePath = setting(
        "resnet18", "zoo name, path to an .onnx file, or package.module:function"
    )
    weights: FilePath = setting(
        "",
        "file with trained weights, .safetensors, .npz or .pth",
        empty="train once and cache, or the .onnx file's own",
        metavar="FILE",
        when=[ZOO],
    )
    classes: Annotated[int, Range(2, 1_000_000)] = setting(
        10, "classes that the network tells apart"
    )
    image_size: Annotated[Pixels, Range(1, 16_384)] = setting(
        32,
        "size of its images, pixels: one number where they are square, else rows and columns",
        metavar="ROWS [COLUMNS]",
    )
    channels: Annotated[int, Range(1, 4096)] = setting(
        3, "channels of its images; grey images fill all of them"
    )
    fold: bool = setting(
        True,
        "batch norm is part of the layer before it, whose weights it scales; false: it stays "
        "outside, and faults are in the weights that the network came with",
    )
    width: Annotated[float, Range(0.001, 16)] = setting(
        0.25, "channels of a zoo network, as a share of the original", when=[ZOO]
    )

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("model.name: must not be empty")


@dataclass(frozen=True, config=STRICT)
class Train:
    """Training of a zoo network that has no weights; done once, then cached."""

    epochs: Annotated[int, Range(1, 100_000)] = setting(
        20, "passes over the training images", when=[ZOO, _UNTRAINED]
    )
    batch: Annotated[int, Range(1, 65_536)] = setting(64, "images per step", when=[_TRAINS])
    learning_rate: Annotated[float, Range(1e-9, 1e3)] = setting(
        0.01, "AdamW's highest step size", when=[ZOO, _UNTRAINED]
    )
    weight_decay: Annotated[float, Range(0, 1e3)] = setting(
        0.01, "AdamW's weight decay per step", when=[_TRAINS]
    )
    augmentation: Annotated[str, OneOf("none", "shift", "shift-flip", "crop-flip")] = setting(
        "shift",
        "images moved by up to an eighth; also mirrored; or a random part of each, mirrored",
        when=[_TRAINS],
    )
    faults: bool = setting(False, "train on with the experiment's faults injected", when=[ZOO])
    fault_epochs: Annotated[int, Range(1, 100_000)] = setting(
        20, "passes with faults, after train.epochs without", when=[ZOO, LEARNS_FAULTS]
    )
    fault_learning_rate: Annotated[float, Range(1e-9, 1e3)] = setting(
        0.003, "AdamW's highest step size in these", when=[ZOO, LEARNS_FAULTS]
    )
    checkpoint_minutes: Annotated[float, Range(0, 525_600)] = setting(
        2.0,
        "time between checkpoints, from which a killed training goes on, minutes, 0 for every step",
        when=[_TRAINS],
    )


@dataclass(frozen=True, config=STRICT)
class Data:
    """Labelled images."""

    name: Annotated[
        str, OneOf("digits", "npz", "cifar10", "tiny-imagenet", "imagenet", "folder")
    ] = setting("digits", "data set; digits comes with scikit-learn, the others need data.path")
    path: FilePath = setting("", "where the data set lies", metavar="PATH", when=[_FILED])
    train_path: FilePath = setting(
        "",
        "another .npz with images to train and calibrate on, for data.name = npz",
        metavar="FILE",
        when=[is_("data.name", "npz")],
    )
    images: Annotated[int, Range(0, 10**9)] = setting(0, "how many test images to use, 0 for all")
    order: Annotated[str, OneOf("seed", "file")] = setting(
        "seed",
        "test images in an order drawn from run.seed, or as they lie in the files: the first "
        "are measured on, the last searched with",
    )
    mean: Annotated[Many[float], Range(-1e3, 1e3)] = setting(
        (),
        "mean per channel, of values in [0, 1]",
        empty="the zoo model's at its own image size, else the data set's",
    )
    std: Annotated[Many[float], Range(1e-6, 1e3)] = setting(
        (), "standard deviation per channel, of values in [0, 1]", empty="as data.mean"
    )
    resize: Annotated[int, Range(0, 16_384)] = setting(
        0,
        "shorter side after resizing, pixels, 0 for the zoo model's own or the least that "
        "covers model.image_size",
    )
    crop: Annotated[Pixels, Range(0, 16_384)] = setting(
        0, "centre to keep, as model.image_size, 0 for just that", metavar="ROWS [COLUMNS]"
    )
    corrupt: Annotated[str, OneOf("stop", "skip")] = setting(
        "stop",
        "what an unreadable image does: stop the run, or skip it",
        when=[is_("data.name", "tiny-imagenet", "imagenet", "folder")],
    )
    calibration: Annotated[int, Range(1, 10**7)] = setting(
        256, "training images that set the format's scales", when=[_FIXED, _CALIBRATED]
    )

    def __post_init__(self) -> None:
        if self.name != "digits" and not self.path:
            raise InputError(f"data.path: say where the {self.name} images lie")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise InputError(
                f"data.std: {len(self.std)} values for {len(self.mean)} of data.mean; give as many"
            )
        shorter = min(rows_columns(self.crop))
        if self.resize and shorter > self.resize:
            raise InputError(f"data.crop: {shorter} pixels do not fit data.resize = {self.resize}")


@dataclass(frozen=True, config=STRICT)
class Format:
    """The numbers that weights and activations are stored in."""

    kind: Annotated[str, OneOf("fixed", "float32", "bfloat16")] = setting("fixed", "number format")
    bits: Annotated[int, Range(4, 16)] = setting(
        16, "width of a fixed-point number, bits", when=[_FIXED]
    )
    frac: Annotated[int, Range(0, 15)] = setting(
        7,
        "bits after the binary point, for scale = global",
        when=[_FIXED, is_("format.scale", "global")],
    )
    scale: Annotated[str, OneOf("global", "tensor", "channel")] = setting(
        "global",
        "global: format.frac everywhere; tensor or channel: a scale from calibration images",
        when=[_FIXED],
    )
    step: Annotated[str, OneOf("power-of-two", "maximum")] = setting(
        "power-of-two",
        "a calibrated scale: the next power of two, or the very maximum",
        when=[_FIXED, _CALIBRATED],
    )

    def __post_init__(self) -> None:
        if self.kind == "fixed" and self.frac >= self.bits:
            raise InputError(
                f"format.frac: {self.frac} fraction bits do not fit a signed number of "
                f"{self.bits} bits, use {self.bits - 1} or fewer"
            )

    @property
    def width(self) -> int:
        """Bits of a stored number."""
        return {"float32": 32, "bfloat16": 16}.get(self.kind, self.bits)


@dataclass(frozen=True, config=STRICT)
class Faults:
    """Soft errors: bits that flip in what a layer reads."""

    strategy: Annotated[str, OneOf("platform", "layerwise")] = setting(
        "platform",
        "platform: each layer at its device's rates, and the link; layerwise: one layer "
        "faulty at a time, without the link",
    )
    bits: Annotated[Many[int], Range(0, 31)] = setting(
        (0, 1, 2, 3), "bits that may flip, lowest is 0"
    )
    bit_profile: Annotated[Many[float], Range(0, 1)] = setting(
        (), "factor on the rate for each of faults.bits", empty="every bit at the full rate"
    )
    weight_rate: Annotated[Many[float], Range(0, 1)] = setting(
        (), f"chance that a faulty bit of a weight flips: {_RATE_HELP}", empty="the devices' own"
    )
    activation_rate: Annotated[Many[float], Range(0, 1)] = setting(
        (),
        f"chance that a faulty bit of an activation flips: {_RATE_HELP}",
        empty="the devices' own",
    )
    link_rate: Annotated[Many[float], Range(0, 1)] = setting(
        (),
        "chance of a fault on the way from one device to another, of a bit or of a packet "
        "(faults.link says which), one number",
        empty="the link's own bit_error_rate or packet_loss_rate",
    )
    link: Annotated[str, OneOf("bits", "zero", "last", "resent")] = setting(
        "bits",
        "what the link does to values that cross: bits of their words flip (any of them, not "
        "only faults.bits); packets of faults.packet values are lost and read as zeros, or as "
        "the last value that arrived; or lost packets are sent again, which changes no value "
        "but takes 1/(1 - rate) of the link's latency and energy",
    )
    layers: Annotated[Many[int | Text], Range(1, 1_000_000)] = setting(
        ("all",), "layers that have faults: all, how many first ones, or names"
    )
    budget: Annotated[int, Range(0, 2**31 - 1)] = setting(
        0, "most flips in the whole model in one inference, 0 for no budget"
    )
    trials: Annotated[int, Range(1, 1_000_000)] = setting(
        2, "fault draws behind each accuracy that the search sees"
    )
    kind: Annotated[
        str,
        OneOf(*FAULT_KINDS),
    ] = setting(
        "flip",
        "what a fault does: bits (each of faults.bits at its rate) flip or are stuck; "
        "faults.burst adjacent bits flip; a value becomes zero or random; faults.packet "
        "values are lost on a link and read as zeros or as the last that arrived",
    )
    burst: Annotated[int, Range(1, 32)] = setting(
        2, "adjacent bits of a burst", when=[is_("faults.kind", "burst")]
    )
    packet: Annotated[int, Range(1, 2**31 - 1)] = setting(
        256, "values of a packet", when=[_PACKETS]
    )
    scope: Annotated[str, OneOf("", "run", "trial", "image")] = setting(
        "",
        "how long a drawn fault stays: the whole run, a trial, or one image",
        empty="weights a trial, activations an image",
    )
    shared: Annotated[str, OneOf("stored", "read")] = setting(
        "stored",
        "weights that several layer calls share are faulty as they are stored, in all calls "
        "alike, or as each call reads them, in each by itself",
    )
    generator: Annotated[str, OneOf("hash", "threefry")] = setting(
        "hash", "fault bits from a counter hash (fast) or from threefry (JAX's own)"
    )

    def __post_init__(self) -> None:
        if not self.bits:
            raise InputError("faults.bits: name one bit or more; for no faults set the rates to 0")
        if list(self.bits) != sorted(set(self.bits)):
            raise InputError(
                f"faults.bits: list each bit once, lowest first, got {list(self.bits)}"
            )
        if len(self.bit_profile) not in (0, len(self.bits)):
            raise InputError(
                f"faults.bit_profile: {len(self.bit_profile)} factors for {len(self.bits)} "
                "faulty bits; give one for each of faults.bits, or none"
            )
        counts = [layer for layer in self.layers if isinstance(layer, int)]
        if not self.layers or (len(self.layers) > 1 and (counts or "all" in self.layers)):
            raise InputError(
                "faults.layers: give `all`, one count of first layers, or names, got "
                f"{list(self.layers)}"
            )


@dataclass(frozen=True, config=STRICT)
class PlatformChoice:
    """The hardware."""

    devices: Many[FilePath] = setting(
        ("eyeriss", "simba", "simba-ecc"), "shipped devices or paths to their TOML"
    )
    link: FilePath = setting("ucie", "link between devices, shipped or a path to its TOML")
    batch: Annotated[int, Range(1, 1_000_000)] = setting(
        1, "images per inference, for latency and energy"
    )

    def __post_init__(self) -> None:
        if not self.devices:
            raise InputError("platform.devices: name one device or more")
        if not self.link:
            raise InputError("platform.link: must not be empty")


@dataclass(frozen=True, config=STRICT)
class Search:
    """The search for mappings of layers to devices, and the last measurement."""

    method: Annotated[str, OneOf("nsga2", "surrogate")] = setting(
        "nsga2",
        "search for the mapping: the paper's alone, or beside it one that learns from few "
        "measurements, with the accuracy that other allowances would buy",
    )
    population: Annotated[int, Range(4, 100_000)] = setting(32, "mappings per generation")
    generations: Annotated[int, Range(1, 1_000_000)] = setting(24, "generations")
    latency_cap_ms: Annotated[float, Range(0, 1e12)] = setting(
        0.0, "highest latency allowed, ms, 0 for none"
    )
    energy_cap_mj: Annotated[float, Range(0, 1e12)] = setting(
        0.0, "highest energy allowed, mJ, 0 for none"
    )
    allow_latency: Annotated[float, Range(0, 1e6)] = setting(
        0.10, "latency to give for accuracy, as a share of the fault-unaware choice's"
    )
    allow_energy: Annotated[float, Range(0, 1e6)] = setting(
        0.05, "energy to give for accuracy, as a share of the fault-unaware choice's"
    )
    images: Annotated[int, Range(1, 10**7)] = setting(
        64, "images behind each accuracy that the search sees"
    )
    renew_draws: bool = setting(False, "draw new faults every generation")
    effort: Annotated[int, Range(0, 10**15)] = setting(
        0,
        "most passes of an image under faults in one search, spent where the ranking is open; "
        "0 for no limit: every mapping meets every draw",
    )
    held_out: Annotated[int, Range(0, 10**9)] = setting(
        256, "images of the last measurement, 0 for all the rest"
    )
    final_trials: Annotated[int, Range(2, 1_000_000)] = setting(
        12, "fault draws of the last measurement, half as many of its curves"
    )
    formats: bool = setting(
        True,
        "measure the fault-unaware mapping also in number formats of the same width that "
        "calibration images give: another binary point, a scale per tensor, a scale per channel",
        when=[_FIXED],
    )
    segments: Annotated[int, Range(0, 10_000)] = setting(
        0, "most contiguous segments that CNNParted may cut, 0 for as many as devices"
    )


@dataclass(frozen=True, config=STRICT)
class Sections:
    """The shared sections of an experiment, and what two of them must be together."""

    run: Run = Run()
    model: Model = Model()
    train: Train = Train()
    data: Data = Data()
    format: Format = Format()
    faults: Faults = Faults()
    platform: PlatformChoice = PlatformChoice()
    search: Search = Search()

    def __post_init__(self) -> None:
        faults, width, devices = self.faults, self.format.width, len(self.platform.devices)
        if len(faults.bits) > width:
            raise InputError(
                f"faults.bits: {len(faults.bits)} faulty bits are more than the format has "
                f"({width})"
            )
        if faults.bits[-1] >= width:
            raise InputError(
                f"faults.bits: there is no bit {faults.bits[-1]} in a format of {width} bits, "
                f"the highest is {width - 1}"
            )
        for name in ("weight_rate", "activation_rate"):
            rates = getattr(faults, name)
            if len(rates) not in (0, 1, devices):
                raise InputError(
                    f"faults.{name}: {len(rates)} rates for {devices} devices; give one number, "
                    "one per device, or none for the devices' own"
                )
