"""Settings of job online: a stream of images while the environment changes."""

from typing import Annotated

from pydantic.dataclasses import dataclass

from afpjax.config.jobs import SEARCHES, JobSettings, names_in
from afpjax.config.settings import STRICT, FilePath, Many, OneOf, Range, refuse_repeated, setting
from afpjax.inputs.errors import InputError

_POLICIES = (
    "never",
    "online",
    "safest",
    "safest-within-limits",
    "stored",
    "surrogate",
    "oracle",
)
_SHIPPED = names_in("online.traces", ".toml")
#: What is run unless other environments are named.
_TRACES = ("radiation-burst", "ageing", "voltage-scaling", "attacker", "device-loss")


@dataclass(frozen=True, config=STRICT)
class Online:
    """A stream of images while the environment changes, watched and re-partitioned.

    faults.* and platform.* are the environment that the system was built for; search.* is the
    offline search that its first mapping and front come from.
    """

    trace: Many[FilePath] = setting(
        _TRACES,
        f"environments: {', '.join(_SHIPPED)}, `random` (bursts drawn from the seed), or paths to "
        ".toml or .csv files of changes",
    )
    policies: Annotated[Many[str], OneOf(*_POLICIES)] = setting(
        _POLICIES,
        "what is compared: the first mapping stays; AFarePart's online phase; without a "
        "search, the safest mapping at estimated rates, exactly the fewest faulty bits within the "
        "limits, the best of the stored front, or exactly the least of what layers were learnt to "
        "lose; true rates, and a search at every change",
    )
    theta: Annotated[float, Range(1e-4, 0.9999)] = setting(
        0.1, "accuracy drop above which the system acts, a fraction of 1"
    )
    oracle: bool = setting(
        False, "current fault rates are read from the trace instead of estimated from canaries"
    )
    seeds: Annotated[int, Range(1, 10_000)] = setting(
        3, "streams for each trace, with seeds of their own"
    )
    batch: Annotated[int, Range(1, 65_536)] = setting(32, "images of one step of the stream")
    fps: Annotated[float, Range(1e-3, 1e6)] = setting(30.0, "images per second of the stream")
    canaries: Annotated[float, Range(1e-3, 1)] = setting(
        0.25, "share of images whose right answer is known"
    )
    labels: bool = setting(
        True, "canaries are labelled; false: they are images that a clean reference is run on too"
    )
    false_alarms: Annotated[float, Range(1e-6, 3600)] = setting(
        0.1, "false alarms per hour of the stream that are accepted"
    )
    budget_ms: Annotated[float, Range(1e-3, 1e8)] = setting(
        2000.0, "time that a search while the system runs may take, ms"
    )
    passes_per_s: Annotated[float, Range(1, 1e12)] = setting(
        5000.0,
        "passes of an image under faults per second of the machine that searches while the "
        "system runs: with budget_ms it bounds a search's work, so that what is found does "
        "not depend on how busy that machine is",
    )
    population: Annotated[int, Range(4, 100_000)] = setting(
        16, "mappings per generation of that search"
    )
    generations: Annotated[int, Range(1, 1_000_000)] = setting(6, "most generations of that search")
    allow_latency: Annotated[float, Range(0, 1e6)] = setting(
        0.5, "latency to give for accuracy, as a share of the fault-unaware choice's"
    )
    allow_energy: Annotated[float, Range(0, 1e6)] = setting(
        0.5, "energy to give for accuracy, as a share of the fault-unaware choice's"
    )
    gain: Annotated[float, Range(0, 1)] = setting(
        0.02, "drop that a switch must be expected to remove, a fraction of 1"
    )
    dwell: Annotated[int, Range(0, 10**9)] = setting(
        10, "steps after a decision before the next, but for lost devices"
    )
    review: Annotated[int, Range(0, 10**9)] = setting(
        60,
        "steps after a decision until it is seen whether the first mapping would do again, 0 "
        "for never",
    )
    front: FilePath = setting(
        "",
        "run folder of a job partition, for its front",
        empty="the offline search is done here",
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        for name in ("trace", "policies"):
            if not getattr(self, name):
                raise InputError(f"online.{name}: give one or more")
        refuse_repeated(self, "online", "trace", "policies")
        if "online" not in self.policies:
            raise InputError("online.policies: the others are compared with `online`; name it too")


JOB = JobSettings(
    line="the same while the faults change: watch, search again, switch",
    order=6,
    section=Online,
    # Its front is NSGA-II's, in the one format.
    uses={**SEARCHES, "search.method": None, "search.formats": None},
    sources={"online.front": ("run.seed", "model", "train", "data", "format", "platform")},
)
