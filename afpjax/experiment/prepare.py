"""From an experiment file to the objects that jobs work with: network, platform, data, faults."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from afpjax.config.config import Config
from afpjax.config.work import SILENT, Work, counted
from afpjax.data.dataset import Dataset, Images, Progress, Split, load, normalise
from afpjax.evaluate import fleet
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import RIGHT, Metric, outcomes
from afpjax.experiment.fault_model import fault_model, scaled
from afpjax.experiment.model_source import check_source, network_of, outlined, preset_of
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.hardware.platform import Platform, load_platform
from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import pixels, rows_columns
from afpjax.inputs.memory import refuse_beyond
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Network
from afpjax.network.layers import LayerGraph
from afpjax.network.program import Parameters, Program
from afpjax.network.quantized import Quantized, quantize
from afpjax.neurons.failures import SUBSTITUTES, NeuronValues, substitutes
from afpjax.search.explore import Budget
from afpjax.search.objectives import Caps, RobustnessObjective, explained
from afpjax.search.partition import tables_of

SCENARIOS = ("weights", "activations", "both")


@dataclass(frozen=True)
class Experiment:
    """Everything that an experiment file stands for; each part is made when it is asked for.

    Images are split once: `searched` are those that a search scores accuracy on, `held` those
    that its answer is measured on. The two have nothing in common but the network.
    """

    config: Config
    work: Work

    @cached_property
    def platform(self) -> Platform:
        return load_platform(self.config.platform.devices, self.config.platform.link)

    @cached_property
    def format(self) -> QFormat:
        given = self.config.format
        return QFormat(given.bits, given.frac, given.kind, given.scale, given.step)

    @cached_property
    def program(self) -> Program:
        """What the network computes. No zoo network is trained for it, nor are weights read."""
        return outlined(self.config) or self.network.program

    @property
    def graph(self) -> LayerGraph:
        return self.program.graph

    @cached_property
    def network(self) -> Network:
        """The network with its parameters, trained where there are none yet."""
        return network_of(self.config, lambda: self.dataset, self.faults, self.format, self.work)

    @cached_property
    def dataset(self) -> Dataset:
        """Which images there are and their labels; photographs are not yet opened."""
        model = self.config.model
        return load(
            self.config.data,
            image_size=model.image_size,
            classes=model.classes,
            channels=model.channels,
            preset=preset_of(self.config),
        )

    @property
    def train(self) -> Split | None:
        """Training images, where the data set has any."""
        return self.dataset.train

    @property
    def mean(self) -> tuple[float, ...]:
        return self.dataset.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.dataset.std

    @property
    def searched(self) -> Images:
        return self._split[0]

    @property
    def held(self) -> Images:
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Images, Images]:
        with counted(self.work.progress, "Reading images") as progress:
            return _split(self.dataset.test, self.config, progress)

    @cached_property
    def outline(self) -> Quantized:
        """The network's layers in its number format, without parameters: nothing to run."""
        return Quantized(self.program, self.format, Parameters({}, ()), {})

    @cached_property
    def quantized(self) -> Quantized:
        network = self.network  # first, for what it refuses
        images = self.inputs(self.calibration) if self.format.needs_calibration else None
        return quantize(network, self.format, images)

    @property
    def calibration(self) -> Images:
        """The first training images, else those that the search knows."""
        wanted = self.config.data.calibration
        if self.train is None:
            return Images(*(each[:wanted] for each in self.searched))
        places = np.arange(min(wanted, len(self.train)))
        with counted(self.work.progress, "Reading images to calibrate with") as progress:
            return self.train.take(places, progress)

    def key(self, name: str) -> PRNGKeyArray:
        """The random key of one part of the run: a function of the seed and the part's name."""
        return jax.random.fold_in(jax.random.key(self.config.run.seed), crc32(name.encode()))

    @cached_property
    def tables(self) -> CostTables:
        batch = self.config.platform.batch
        width = self.format.width
        return tables_of(self.graph, width, self.platform, batch, self.faults)

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
        names = self.platform.names, self.graph.names
        return explained(self.tables, self.caps, *names)

    def objective(self, name: str) -> RobustnessObjective:
        """How a search scores accuracy under one scenario."""
        faults = self.config.faults
        return RobustnessObjective(
            self.search_evaluator, self.scenario(name), faults.trials, faults.strategy
        )

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
    def campaign_evaluator(self) -> Evaluator:
        """How each held-out image fails, not only whether."""
        settings = self.config.campaign
        metric = outcomes(settings.not_finite, exact=settings.design == "listed")
        return self._evaluator("campaign", self.held, metric)

    def without(self, substitute: str, *, held: bool = True) -> Evaluator:
        """Held-out (or searched) images where neurons can be lost: see `robust.substitutes`."""
        if (substitute, held) not in self._losing:
            images, name = (self.held, "held out") if held else (self.searched, "search")
            self._losing[substitute, held] = self._evaluator(
                f"{name} without {substitute}", images, substitutes=self.substitutes(substitute)
            )
        return self._losing[substitute, held]

    def substitutes(self, kind: str) -> NeuronValues:
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
        metric: Metric = RIGHT,
        substitutes: Sequence[Any] | None = None,
    ) -> Evaluator:
        return Evaluator(
            self.quantized,
            images.images,
            images.labels,
            self.key(f"draws {name}"),
            prepare=self._prepare,
            metric=metric,
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
    "campaign": lambda experiment: experiment.campaign_evaluator,
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


def prepare(config: Config, work: Work, *, images: bool = True) -> Experiment:
    """The experiment, with what can be checked of it before there is anything to wait for.

    That is its platform, faults, network's layers, and, with `images`, which of these there are.
    Raises `InputError` for whatever in the experiment file does not fit together.
    """
    check_source(config)
    if config.run.cluster:
        fleet.require()
    experiment = Experiment(config, work)
    faults = experiment.faults
    if images:
        _refuse_too_few(experiment.dataset.test)
    layer_mask(faults, experiment.graph)  # refuses layers that are not there
    if images:
        _refuse_beyond_memory(experiment)
    return experiment


def _refuse_beyond_memory(experiment: Experiment) -> None:
    """Images as bytes and floats, parameters, and one image's activations at once."""
    config, graph = experiment.config, experiment.graph
    count = sum(image_counts(len(experiment.dataset.test), config))
    values = math.prod(rows_columns(config.model.image_size)) * config.model.channels
    each = max(layer.inputs + layer.outputs for layer in graph.layers)
    batch = config.export.batch if config.run.job in ("export", "serve") else 1
    parameters = sum(layer.weights + layer.biases for layer in graph.layers)
    wanted = count * values * 5 + parameters * 12 + batch * each * 8
    what = f"{count:,} images of {pixels(config.model.image_size)} pixels, and their network,"
    advice = "lower model.image_size, search.images, search.held_out or campaign.images"
    refuse_beyond(wanted, what, f"{advice}, or export.batch" if batch > 1 else advice)


def _refuse_too_few(test: Split) -> None:
    if len(test) < 2:
        raise InputError(
            f"data: {len(test)} test images; a search and its measurement need one each"
        )


def image_counts(test: int, config: Config) -> tuple[int, int]:
    """How many of so many test images a search sees, and how many are held out for its answer."""
    first, rest = _places(test, config)
    return len(first), len(rest)


def _split(test: Split, config: Config, progress: Progress) -> tuple[Images, Images]:
    """Images for the search and images that are held out, in an order drawn from the seed."""
    count = len(test)
    first, rest = _places(count, config)
    taken = len(first) + len(rest)
    return (
        test.take(first, lambda done, _: progress(done, taken)),
        test.take(rest, lambda done, _: progress(len(first) + done, taken)),
    )


def _places(count: int, config: Config) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " H"]]:
    """Which of the test images the search gets, and which are held out.

    In the file's order, the search has the last ones. A campaign searches for nothing: it has any
    number that it asks for.
    """
    campaign = config.run.job == "campaign"
    wanted = config.campaign.images if campaign else config.search.held_out
    first = min(config.search.images, count // 2)
    if config.data.order == "seed":
        order = np.random.default_rng(config.run.seed).permutation(count)
        return order[:first], order[first:][: wanted or None]
    order = np.arange(count)
    left = count if campaign and wanted else count - first
    return order[count - first :], order[:left][: wanted or None]
