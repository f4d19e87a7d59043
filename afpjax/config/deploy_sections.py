"""What an experiment file may say of systems that run: the online phase, exports, and serving.

Sections of one job each; `sections` has those that jobs share, and says how fields are written.
"""

from dataclasses import dataclass

from afpjax.config.settings import setting

#: What runs a stream (`online/policies.py`).
POLICIES = ("never", "online", "safest", "stored", "oracle")
#: Environments that come with afpjax, in `search/traces`.
TRACES = ("radiation-burst", "ageing", "voltage-scaling", "attacker", "device-loss")


@dataclass(frozen=True)
class Online:
    """A stream of images while the environment changes, watched and re-partitioned.

    faults.* and platform.* are the environment that the system was built for; search.* is the
    offline search that its first mapping and front come from.
    """

    trace: tuple[str, ...] = setting(
        TRACES,
        f"environments: {', '.join(TRACES)}, `random` (bursts drawn from the seed), or paths to "
        ".toml or .csv files of changes",
        path=True,
    )
    policies: tuple[str, ...] = setting(
        POLICIES,
        "what is compared: the first mapping stays; AFarePart's online phase; without a search, "
        "the safest mapping at estimated rates, or the best of the stored front; true rates, and a "
        "search at every change",
        choices=POLICIES,
    )
    theta: float = setting(
        0.1, "accuracy drop above which the system acts, a fraction of 1", low=1e-4, high=0.9999
    )
    oracle: bool = setting(
        False, "current fault rates are read from the trace instead of estimated from canaries"
    )
    seeds: int = setting(3, "streams for each trace, with seeds of their own", low=1, high=10_000)
    batch: int = setting(32, "images of one step of the stream", low=1, high=65_536)
    fps: float = setting(30.0, "images per second of the stream", low=1e-3, high=1e6)
    canaries: float = setting(
        0.25, "share of images whose right answer is known", low=1e-3, high=1.0
    )
    labels: bool = setting(
        True,
        "canaries are labelled; false: they are images that a clean reference is run on too",
    )
    false_alarms: float = setting(
        0.1, "false alarms per hour of the stream that are accepted", low=1e-6, high=3600.0
    )
    budget_ms: float = setting(
        2000.0, "time that a search while the system runs may take, ms", low=1e-3, high=1e8
    )
    passes_per_s: float = setting(
        5000.0,
        "passes of an image under faults per second of the machine that searches while the system "
        "runs: with budget_ms it bounds a search's work, so that what is found does not depend on "
        "how busy that machine is",
        low=1.0,
        high=1e12,
    )
    population: int = setting(16, "mappings per generation of that search", low=4, high=100_000)
    generations: int = setting(6, "most generations of that search", low=1, high=1_000_000)
    allow_latency: float = setting(
        0.5,
        "latency to give for accuracy, as a share of the fault-unaware choice's",
        low=0.0,
        high=1e6,
    )
    allow_energy: float = setting(
        0.5,
        "energy to give for accuracy, as a share of the fault-unaware choice's",
        low=0.0,
        high=1e6,
    )
    gain: float = setting(
        0.02, "drop that a switch must be expected to remove, a fraction of 1", low=0.0, high=1.0
    )
    dwell: int = setting(
        10, "steps after a decision before the next, but for lost devices", low=0, high=10**9
    )
    review: int = setting(
        60,
        "steps after a decision until it is seen whether the first mapping would do again, 0 for "
        "never",
        low=0,
        high=10**9,
    )
    front: str = setting(
        "",
        "run folder of a job partition, for its front",
        path=True,
        empty="the offline search is done here",
        metavar="FOLDER",
    )


@dataclass(frozen=True)
class Export:
    """One deployable model per device, for a mapping or for distributed neurons."""

    source: str = setting(
        "",
        "run folder of a job partition or distribute, whose choice is exported",
        path=True,
        empty="export.kind is worked out here",
        metavar="FOLDER",
    )
    kind: str = setting(
        "mapping",
        "without a source: AFarePart's mapping of layers, or RobustDiCE's placement of neurons",
        choices=("mapping", "placement"),
    )
    mapping: tuple[int, ...] = setting(
        (),
        "device of each layer, instead of a searched mapping",
        low=0,
        empty="searched",
        high=1023,
    )
    method: str = setting(
        "robustdice",
        "how neurons are placed on the first number of distribute.devices",
        choices=("robustdice", "lop", "cdc", "replication", "random", "topk", "randomk"),
    )
    batch: int = setting(1, "images that an exported model takes at once", low=1, high=65_536)
    images: int = setting(
        1000,
        "most test images that exported models are checked on, beside afpjax itself",
        low=1,
        high=10**9,
    )


@dataclass(frozen=True)
class Serve:
    """An export run for real: every device is a process, which may be killed."""

    export: str = setting(
        "",
        "run folder of a job export",
        path=True,
        empty="exported first, as export.* says",
        metavar="FOLDER",
    )
    requests: int = setting(256, "images that are asked for", low=1, high=10**7)
    in_flight: int = setting(8, "images under way at once", low=1, high=10_000)
    kill: tuple[str, ...] = setting(
        (), "devices to kill, DEVICE@N: once N images have been asked for"
    )
    kills: int = setting(
        0, "devices to kill at random instants, drawn from the seed", low=0, high=1023
    )
    timeout_ms: float = setting(
        5000.0, "time after which a silent device counts as lost, ms", low=1.0, high=1e9
    )
    heartbeat_ms: float = setting(500.0, "time between heartbeats, ms", low=1.0, high=1e9)
    deadline_ms: float = setting(
        60000.0, "time after which an unanswered image is refused, ms", low=1.0, high=1e9
    )
    memory_mb: float = setting(
        0.0, "memory that a device's model may take, MB, 0 for the device's own", low=0.0, high=1e9
    )
    port: int = setting(
        0,
        "also answer HTTP on this port: POST /predict, GET /status; 0 for none",
        low=0,
        high=65535,
    )
    listen_s: float = setting(
        0.0,
        "with a port: time that HTTP is still answered after the images have ended, s",
        low=0.0,
        high=1e7,
    )
