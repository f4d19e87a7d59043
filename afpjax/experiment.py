"""From an experiment file to the objects that jobs work with: network, platform, data, faults."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

from afpjax.config import Config
from afpjax.data import Dataset, Images, Progress, Split, load, normalise
from afpjax.errors import InputError
from afpjax.experiment_faults import fault_model, scaled
from afpjax.faults.engine import Engine
from afpjax.faults.evaluate import Evaluator
from afpjax.faults.fleet import Fleet
from afpjax.faults.judge import OUTCOME, RIGHT, Judge
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.hardware.platform import Platform, load_platform
from afpjax.hardware.tables import CostTables
from afpjax.model_source import network_of, preset_of
from afpjax.network.fixed_point import QFormat
from afpjax.network.network import Network
from afpjax.network.quantized import Quantized, quantize
from afpjax.outcome import Work
from afpjax.progress import SILENT, counted
from afpjax.robust.substitutes import SUBSTITUTES, Values, substitutes
from afpjax.search.explore import Budget
from afpjax.search.partition import tables_for
from afpjax.search.problem import Caps, Struck, explained

SCENARIOS = ("weights", "activations", "both")


@dataclass(frozen=True)
class Experiment:
    """Everything that an experiment file stands for, ready to use.

    Images are split once: `searched` are those that a search scores accuracy on, `held_out` those
    that its answer is measured on. The two have nothing in common but the network.
    """

    config: Config
    network: Network
    quantized: Quantized
    platform: Platform
    searched: Images
    held: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    work: Work
    train: Split | None = None  # training images, where the data set has any

    def key(self, name: str) -> PRNGKeyArray:
        """The random key of one part of the run: a function of the seed and the part's name."""
        return jax.random.fold_in(jax.random.key(self.config.run.seed), crc32(name.encode()))

    @cached_property
    def tables(self) -> CostTables:
        batch = self.config.platform.batch
        return tables_for(self.quantized, self.platform, batch, self.faults)

    @property
    def caps(self) -> Caps:
        search, none = self.config.search, float("inf")
        return Caps(search.latency_cap_ms or none, search.energy_cap_mj or none)

    @property
    def budget(self) -> Budget:
        search = self.config.search
        return Budget(search.population, search.generations, search.renew_draws, search.effort)

    @cached_property
    def faults(self) -> FaultModel:
        """Faults in weights and activations together."""
        return fault_model(self.config, self.platform)

    def scenario(self, name: str, factor: float = 1.0) -> FaultModel:
        """Faults in `weights`, in `activations` or in `both`, all rates scaled (and cut at 1)."""
        return scaled(
            self.faults,
            weights=factor if name != "activations" else 0.0,
            activations=factor if name != "weights" else 0.0,
        )

    def explained(self) -> AbstractContextManager[None]:
        """Searches inside `with` say what is missing where no mapping is within the limits."""
        names = self.platform.names, self.quantized.graph.names
        return explained(self.tables, self.caps, *names)

    def struck(self, name: str) -> Struck:
        """How a search scores accuracy under one scenario."""
        faults = self.config.faults
        return Struck(self.search_evaluator, self.scenario(name), faults.trials, faults.strategy)

    @cached_property
    def search_evaluator(self) -> Evaluator:
        return self._evaluator("search", self.searched)

    @cached_property
    def scored(self) -> tuple[Images, str]:
        """Images that neurons are scored on, and where they are from: "training" or "search".

        Training images drawn from the seed, else those that a search sees.
        """
        split, wanted = self.train, self.config.importance.images
        if split is None or len(split) == 0:
            return Images(*(each[:wanted] for each in self.searched)), "search"
        order = np.random.default_rng(self.config.run.seed).permutation(len(split))
        with counted(self.work.progress, "Reading images to score on") as progress:
            return split.take(order[:wanted], progress), "training"

    @cached_property
    def by_reference(self) -> Evaluator:
        """The search's images, with what the fault-free network says of them for labels."""
        said = self.search_evaluator.reference.argmax(axis=1).astype(np.int32)
        return self._evaluator("reference", self.searched._replace(labels=said))

    @cached_property
    def held_out(self) -> Evaluator:
        return self._evaluator("held out", self.held)

    @cached_property
    def struck_images(self) -> Evaluator:
        """How each held-out image fails, not only whether."""
        return self._evaluator("campaign", self.held, OUTCOME)

    def without(self, substitute: str, *, held: bool = True) -> Evaluator:
        """Held-out (or searched) images where neurons can be lost: see `robust.substitutes`."""
        if (substitute, held) not in self._losing:
            images, name = (self.held, "held out") if held else (self.searched, "search")
            self._losing[substitute, held] = self._evaluator(
                f"{name} without {substitute}", images, substitutes=self.substitutes(substitute)
            )
        return self._losing[substitute, held]

    def substitutes(self, kind: str) -> Values:
        """What lost neurons give, by layer. Means: over the images that neurons are scored on."""
        images = np.asarray(self.inputs(self.scored[0])) if kind == "mean" else None
        return substitutes(self.quantized, kind, images)

    @cached_property
    def _losing(self) -> dict[tuple[str, bool], Evaluator]:
        return {}

    def inputs(self, images: Images) -> Array:
        """Images as the network takes them."""
        return self._prepare(images.images)

    @cached_property
    def _prepare(self) -> Callable[[Any], Array]:
        return partial(normalise, mean=self.mean, std=self.std)

    def _evaluator(
        self,
        name: str,
        images: Images,
        judge: Judge = RIGHT,
        substitutes: Sequence[Any] | None = None,
    ) -> Evaluator:
        return Evaluator(
            self.quantized,
            images.images,
            images.labels,
            self.key(f"draws {name}"),
            prepare=self._prepare,
            judge=judge,
            memory=self.work.memory,
            name=name,
            memory_bytes=round(self.config.run.memory_gb * 1e9),
            substitutes=substitutes,
            spread=self._spread(name) if self.config.run.cluster else None,
        )

    def _spread(self, name: str) -> Callable[[Engine], Fleet]:
        """Workers that build the evaluator of this name for themselves."""
        run = self.config.run
        here = replace(self.config, run=replace(run, cluster=""))
        make = partial(_worker_engine, here, name)
        return lambda own: Fleet(own, make, address=run.cluster, workers=run.workers)


_EVALUATORS: Mapping[str, Callable[[Experiment], Evaluator]] = {
    "search": lambda experiment: experiment.search_evaluator,
    "reference": lambda experiment: experiment.by_reference,
    "held out": lambda experiment: experiment.held_out,
    "campaign": lambda experiment: experiment.struck_images,
    **{
        f"{name} without {kind}": partial(Experiment.without, substitute=kind, held=held)
        for kind in SUBSTITUTES
        for name, held in (("held out", True), ("search", False))
    },
}


def _worker_engine(config: Config, name: str) -> Engine:
    """In a worker's process: the engine of one of the experiment's evaluators."""
    experiment = prepare(config, Work({}, SILENT))
    return _EVALUATORS[name](experiment).own_engine


def prepare(config: Config, work: Work) -> Experiment:
    """Build the experiment: find the data, load or train the network, trace and quantise it.

    Only the images that are used are read. Raises `InputError` for whatever in the experiment file
    does not fit together.
    """
    platform = load_platform(config.platform.devices, config.platform.link)
    faults, fmt, model = fault_model(config, platform), _format(config), config.model
    dataset = load(
        config.data,
        image_size=model.image_size,
        classes=model.classes,
        channels=model.channels,
        preset=preset_of(config),
    )
    network = network_of(config, dataset, faults, fmt, work)
    layer_mask(faults, network.graph)  # refuses layers that are not there, now
    with counted(work.progress, "Reading images") as progress:
        searched, held = _split(dataset.test, config, progress)
    if fmt.needs_calibration:
        calibration = _calibration(dataset, searched, config, work)
        images = normalise(calibration, dataset.mean, dataset.std)
    else:
        images = None
    quantized = quantize(network, fmt, images)
    means = dataset.mean, dataset.std
    return Experiment(
        config, network, quantized, platform, searched, held, *means, work, dataset.train
    )


def _format(config: Config) -> QFormat:
    given = config.format
    return QFormat(given.bits, given.frac, given.kind, given.scale, given.step)


def _split(test: Split, config: Config, progress: Progress) -> tuple[Images, Images]:
    """Images for the search and images that are held out, in an order drawn from the seed."""
    count = len(test)
    if count < 2:
        raise InputError(f"data: {count} test images; a search and its measurement need one each")
    order = np.random.default_rng(config.run.seed).permutation(count)
    first = min(config.search.images, count // 2)
    campaign = config.run.job == "campaign"
    wanted = config.campaign.images if campaign else config.search.held_out
    rest = order[first:][: wanted or None]
    taken = first + len(rest)
    return (
        test.take(order[:first], lambda done, _: progress(done, taken)),
        test.take(rest, lambda done, _: progress(first + done, taken)),
    )


def _calibration(
    dataset: Dataset, searched: Images, config: Config, work: Work
) -> UInt8[np.ndarray, "N H W C"]:
    """The first training images, else those that the search knows."""
    if dataset.train is None:
        return searched.images[: config.data.calibration]
    places = np.arange(min(config.data.calibration, len(dataset.train)))
    with counted(work.progress, "Reading images to calibrate with") as progress:
        return dataset.train.take(places, progress).images
