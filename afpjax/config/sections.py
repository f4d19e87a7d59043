"""What an experiment file may say: one frozen dataclass per TOML section.

Each field's first argument is its default and the second what `--help` shows. Relative paths are
relative to the folder where the command runs, wherever the experiment file lies.
"""

from dataclasses import dataclass

from afpjax.config.deploy_sections import Export, Online, Serve
from afpjax.config.job_sections import Campaign, Distribute, Importance
from afpjax.config.settings import setting

#: Every job of the contract; `afpjax.run` knows which of them this version has.
JOB_NAMES = (
    "partition",
    "online",
    "distribute",
    "campaign",
    "importance",
    "profile",
    "export",
    "serve",
)
_RATE_HELP = "one number for all devices or one per device"


@dataclass(frozen=True)
class Run:
    """What is done, from which seed, and where the answer goes."""

    job: str = setting("partition", "job to run", choices=JOB_NAMES)
    seed: int = setting(0, "start of every random draw", low=0, high=2**32 - 1)
    out: str = setting(
        "", "run folder to write", path=True, empty="runs/JOB-N, next free N", metavar="FOLDER"
    )
    memory_gb: float = setting(
        0.0,
        "memory that fault evaluation may fill on each device, GB, 0 for half of what is free",
        low=0.0,
        high=1e6,
    )
    cluster: str = setting(
        "",
        "Ray cluster that fault evaluation runs on, HOST:PORT or auto (this machine's own, begun "
        "if there is none); needs the extra `cluster`",
        empty="this process alone",
        metavar="ADDRESS",
    )
    workers: int = setting(
        0, "workers on the cluster, 0 for one on each machine, or on each GPU", low=0, high=10_000
    )


@dataclass(frozen=True)
class Model:
    """The network. Paths here and below are relative to the current folder."""

    name: str = setting(
        "resnet18", "zoo name, path to an .onnx file, or package.module:function", path=True
    )
    weights: str = setting(
        "",
        "file with trained weights, .safetensors, .npz or .pth",
        path=True,
        empty="train once and cache, or the .onnx file's own",
        metavar="FILE",
    )
    classes: int = setting(10, "classes that the network tells apart", low=2, high=1_000_000)
    image_size: int | tuple[int, int] = setting(
        32,
        "size of its images, pixels: one number where they are square, else rows and columns",
        low=1,
        high=16_384,
        metavar="ROWS [COLUMNS]",
    )
    channels: int = setting(
        3, "channels of its images; grey images fill all of them", low=1, high=4096
    )
    fold: bool = setting(
        True,
        "batch norm is part of the layer before it, whose weights it scales; false: it stays "
        "outside, and faults strike the weights that the network came with",
    )
    width: float = setting(
        0.25, "channels of a zoo network, as a share of the original", low=0.001, high=16.0
    )


@dataclass(frozen=True)
class Train:
    """Training of a zoo network that has no weights; done once, then cached."""

    epochs: int = setting(20, "passes over the training images", low=1, high=100_000)
    batch: int = setting(64, "images per step", low=1, high=65_536)
    learning_rate: float = setting(0.01, "AdamW's highest step size", low=1e-9, high=1e3)
    weight_decay: float = setting(0.01, "AdamW's weight decay per step", low=0.0, high=1e3)
    augmentation: str = setting(
        "shift",
        "images moved by up to an eighth; also mirrored; or a random part of each, mirrored",
        choices=("none", "shift", "shift-flip", "crop-flip"),
    )
    faults: bool = setting(False, "train on with the experiment's faults injected")
    fault_epochs: int = setting(
        20, "passes with faults, after train.epochs without", low=1, high=100_000
    )
    fault_learning_rate: float = setting(
        0.003, "AdamW's highest step size in these", low=1e-9, high=1e3
    )
    checkpoint_minutes: float = setting(
        2.0,
        "time between checkpoints, from which a killed training goes on, minutes, 0 for every step",
        low=0.0,
        high=525_600.0,
    )


@dataclass(frozen=True)
class Data:
    """Labelled images."""

    name: str = setting(
        "digits",
        "data set; digits comes with scikit-learn, the others need data.path",
        choices=("digits", "npz", "cifar10", "tiny-imagenet", "imagenet", "folder"),
    )
    path: str = setting("", "where the data set lies", path=True, metavar="PATH")
    train_path: str = setting(
        "",
        "another .npz with images to train and calibrate on, for data.name = npz",
        path=True,
        metavar="FILE",
    )
    images: int = setting(0, "how many test images to use, 0 for all", low=0, high=10**9)
    order: str = setting(
        "seed",
        "test images in an order drawn from run.seed, or as they lie in the files: the first are "
        "measured on, the last searched with",
        choices=("seed", "file"),
    )
    mean: tuple[float, ...] = setting(
        (),
        "mean per channel, of values in [0, 1]",
        empty="the zoo model's at its own image size, else the data set's",
        low=-1e3,
        high=1e3,
    )
    std: tuple[float, ...] = setting(
        (),
        "standard deviation per channel, of values in [0, 1]",
        low=1e-6,
        high=1e3,
        empty="as data.mean",
    )
    resize: int = setting(
        0,
        "shorter side after resizing, pixels, 0 for the zoo model's own or the least that covers "
        "model.image_size",
        low=0,
        high=16_384,
    )
    crop: int | tuple[int, int] = setting(
        0,
        "centre to keep, as model.image_size, 0 for just that",
        low=0,
        high=16_384,
        metavar="ROWS [COLUMNS]",
    )
    corrupt: str = setting(
        "stop", "what an unreadable image does: stop the run, or skip it", choices=("stop", "skip")
    )
    calibration: int = setting(
        256, "training images that set the format's scales", low=1, high=10**7
    )


@dataclass(frozen=True)
class Format:
    """The numbers that weights and activations are stored in."""

    kind: str = setting("fixed", "number format", choices=("fixed", "float32", "bfloat16"))
    bits: int = setting(16, "width of a fixed-point number, bits", low=4, high=16)
    frac: int = setting(7, "bits after the binary point, for scale = global", low=0, high=15)
    scale: str = setting(
        "global",
        "global: format.frac everywhere; tensor or channel: a scale from calibration images",
        choices=("global", "tensor", "channel"),
    )
    step: str = setting(
        "power-of-two",
        "a calibrated scale: the next power of two, or the very maximum",
        choices=("power-of-two", "maximum"),
    )


@dataclass(frozen=True)
class Faults:
    """Soft errors: bits that flip in what a layer reads."""

    strategy: str = setting(
        "platform",
        "platform: each layer at its device's rates, and the link; layerwise: one layer struck at "
        "a time, without the link",
        choices=("platform", "layerwise"),
    )
    bits: tuple[int, ...] = setting((0, 1, 2, 3), "bits that may flip, lowest is 0", low=0, high=31)
    bit_profile: tuple[float, ...] = setting(
        (),
        "factor on the rate for each of faults.bits",
        low=0.0,
        high=1.0,
        empty="every bit at the full rate",
    )
    weight_rate: tuple[float, ...] = setting(
        (),
        f"chance that a faulty bit of a weight flips: {_RATE_HELP}",
        low=0.0,
        high=1.0,
        empty="the devices' own",
    )
    activation_rate: tuple[float, ...] = setting(
        (),
        f"chance that a faulty bit of an activation flips: {_RATE_HELP}",
        low=0.0,
        high=1.0,
        empty="the devices' own",
    )
    link_rate: tuple[float, ...] = setting(
        (),
        "chance of a fault on the way from one device to another, of a bit or of a packet "
        "(faults.link says which), one number",
        low=0.0,
        high=1.0,
        empty="the link's own bit_error_rate or packet_loss_rate",
    )
    link: str = setting(
        "bits",
        "what the link does to values that cross: bits of their words flip (any of them, not only "
        "faults.bits); packets of faults.packet values are lost and read as zeros, or as the last "
        "value that arrived; or lost packets are sent again, which changes no value but takes "
        "1/(1 - rate) of the link's latency and energy",
        choices=("bits", "zero", "last", "resent"),
    )
    layers: tuple[int | str, ...] = setting(
        ("all",),
        "layers that faults strike: all, how many first ones, or names",
        low=1,
        high=1_000_000,
    )
    budget: int = setting(
        0, "most flips in the whole model in one inference, 0 for no budget", low=0, high=2**31 - 1
    )
    trials: int = setting(
        2, "fault draws behind each accuracy that the search sees", low=1, high=1_000_000
    )
    kind: str = setting(
        "flip",
        "what a fault does: bits (each of faults.bits at its rate) flip or are stuck; faults.burst "
        "adjacent bits flip; a value becomes zero or random; faults.packet values are lost on a "
        "link and read as zeros or as the last that arrived",
        choices=(
            "flip",
            "stuck-at-0",
            "stuck-at-1",
            "burst",
            "zero",
            "random",
            "lost",
            "lost-last",
        ),
    )
    burst: int = setting(2, "adjacent bits of a burst", low=1, high=32)
    packet: int = setting(256, "values of a packet", low=1, high=2**31 - 1)
    scope: str = setting(
        "",
        "how long a drawn fault stays: the whole run, a trial, or one image",
        choices=("", "run", "trial", "image"),
        empty="weights a trial, activations an image",
    )
    shared: str = setting(
        "stored",
        "weights that several layer calls share are struck as they are stored, in all calls alike, "
        "or as each call reads them, in each by itself",
        choices=("stored", "read"),
    )
    generator: str = setting(
        "hash",
        "fault bits from a counter hash (fast) or from threefry (JAX's own)",
        choices=("hash", "threefry"),
    )


@dataclass(frozen=True)
class PlatformChoice:
    """The hardware."""

    devices: tuple[str, ...] = setting(
        ("eyeriss", "simba", "simba-ecc"), "shipped devices or paths to their TOML", path=True
    )
    link: str = setting("ucie", "link between devices, shipped or a path to its TOML", path=True)
    batch: int = setting(1, "images per inference, for latency and energy", low=1, high=1_000_000)


@dataclass(frozen=True)
class Search:
    """The search for mappings of layers to devices, and the last measurement."""

    population: int = setting(32, "mappings per generation", low=4, high=100_000)
    generations: int = setting(24, "generations", low=1, high=1_000_000)
    latency_cap_ms: float = setting(
        0.0, "highest latency allowed, ms, 0 for none", low=0.0, high=1e12
    )
    energy_cap_mj: float = setting(
        0.0, "highest energy allowed, mJ, 0 for none", low=0.0, high=1e12
    )
    allow_latency: float = setting(
        0.10,
        "latency to give for accuracy, as a share of the fault-unaware choice's",
        low=0.0,
        high=1e6,
    )
    allow_energy: float = setting(
        0.05,
        "energy to give for accuracy, as a share of the fault-unaware choice's",
        low=0.0,
        high=1e6,
    )
    images: int = setting(64, "images behind each accuracy that the search sees", low=1, high=10**7)
    renew_draws: bool = setting(False, "draw new faults every generation")
    effort: int = setting(
        0,
        "most passes of an image under faults in one search, spent where the ranking is open; "
        "0 for no limit: every mapping meets every draw",
        low=0,
        high=10**15,
    )
    held_out: int = setting(
        256, "images of the last measurement, 0 for all the rest", low=0, high=10**9
    )
    final_trials: int = setting(
        12, "fault draws of the last measurement, half as many of its curves", low=2, high=1_000_000
    )
    segments: int = setting(
        0,
        "most contiguous segments that CNNParted may cut, 0 for as many as devices",
        low=0,
        high=10_000,
    )


@dataclass(frozen=True)
class Config:
    """A whole experiment; every key has a default."""

    run: Run = Run()
    model: Model = Model()
    train: Train = Train()
    data: Data = Data()
    format: Format = Format()
    faults: Faults = Faults()
    platform: PlatformChoice = PlatformChoice()
    search: Search = Search()
    campaign: Campaign = Campaign()
    importance: Importance = Importance()
    distribute: Distribute = Distribute()
    online: Online = Online()
    export: Export = Export()
    serve: Serve = Serve()
