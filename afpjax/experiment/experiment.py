"""From an experiment file to the objects that jobs work with: network, platform, data, faults."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from afpjax.config.config import Config
from afpjax.config.work import SILENT, Work, counted
from afpjax.data.dataset import Dataset, load, normalise
from afpjax.data.images import Images, Split
from afpjax.evaluate import fleet
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.evaluator import Evaluator, as_they_are
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import LOSS, RIGHT, Metric
from afpjax.experiment.given import Given
from afpjax.experiment.network_source import check_source, network_of, outlined, preset_of
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.hardware.platform import Link, Platform, load_platform
from afpjax.hardware.tables import CostTables
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import pixels
from afpjax.inputs.memory import refuse_beyond
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Network
from afpjax.network.layers import LayerGraph
from afpjax.network.program import Parameters, Program
from afpjax.network.quantized import Quantized, calibrated_formats, quantize
from afpjax.search.explore import Budget
from afpjax.search.objectives import Caps, LossObjective, RobustnessObjective, explained
from afpjax.search.partition import tables_of

T = TypeVar("T")

SCENARIOS = ("weights", "activations", "both")
FEW_IMAGES = 32  # behind each measurement that a search learns from


class EvaluatorParts(NamedTuple):
    """What an evaluator is made of beside the network. Draws follow from `name` and the seed."""

    name: str
    images: Images
    metric: Metric = RIGHT
    format: QFormat | None = None  # None: the experiment's
    substitutes: Sequence[Any] | None = None  # of lost neurons, by layer


@dataclass(frozen=True)
class Experiment:
    """Everything that an experiment file stands for; each part is made when it is asked for.

    Images are split once: `searched` are those that a search scores accuracy on, `held` those
    that its answer is measured on. The two have nothing in common but the network. A job that
    searches for nothing says in `measured_images` how many it measures on (0: all).
    """

    config: Config
    work: Work
    measured_images: int | None = None
    _parts: dict[Any, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def platform(self) -> Platform:
        return load_platform(self.config.platform.devices, self.config.platform.link)

    @property
    def given(self) -> Given | None:
        """A network and images that are in memory, instead of those that the file names."""
        return self.work.given

    @property
    def data_name(self) -> str:
        return self.config.data.name if self.given is None else "given"

    @cached_property
    def format(self) -> QFormat:
        if self.given is not None and self.given.quantized is not None:
            return self.given.quantized.format
        settings = self.config.format
        return QFormat(settings.bits, settings.frac, settings.kind, settings.scale, settings.step)

    @cached_property
    def program(self) -> Program:
        """What the network computes. No zoo network is trained for it, nor are weights read."""
        if self.given is not None:
            return self.given.network.program
        return outlined(self.config) or self.network.program

    @property
    def graph(self) -> LayerGraph:
        return self.program.graph

    @cached_property
    def network(self) -> Network:
        """The network with its parameters, trained where there are none yet."""
        if self.given is not None:
            return self.given.network
        return network_of(self.config, lambda: self.dataset, self.faults, self.format, self.work)

    @cached_property
    def dataset(self) -> Dataset:
        """Which images there are and their labels; photographs are not yet opened."""
        if self.given is not None:
            return self.given.dataset
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

    @property
    def image_counts(self) -> tuple[int, int]:
        """How many test images a search sees, and how many are held out for its answer."""
        searched, held = self._places
        return len(searched), len(held)

    @cached_property
    def _places(self) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " H"]]:
        """Which of the test images the search gets, and which are held out.

        In an order drawn from the seed, or in the file's, where the search has the last ones; a job
        that searches for nothing may then measure on these too.
        """
        count, wanted = len(self.dataset.test), self.measured_images
        searched = min(self.config.search.images, count // 2)
        if wanted is None:
            wanted, overlap = self.config.search.held_out, False
        else:
            overlap = wanted > 0
        if self.config.data.order == "seed":
            order = np.random.default_rng(self.config.run.seed).permutation(count)
            return order[:searched], order[searched:][: wanted or None]
        order = np.arange(count)
        left = order if overlap else order[: count - searched]
        return order[count - searched :], left[: wanted or None]

    @cached_property
    def _split(self) -> tuple[Images, Images]:
        searched, held = self._places
        count, test = len(searched) + len(held), self.dataset.test
        with counted(self.work.progress, "Reading images") as progress:
            return (
                test.take(searched, lambda done, _: progress(done, count)),
                test.take(held, lambda done, _: progress(len(searched) + done, count)),
            )

    @cached_property
    def outline(self) -> Quantized:
        """The network's layers in its number format, without parameters: nothing to run."""
        return Quantized(self.program, self.format, Parameters({}, ()), {})

    @cached_property
    def quantized(self) -> Quantized:
        if self.given is not None and self.given.quantized is not None:
            return self.given.quantized
        return self.quantized_in(self.format)

    def quantized_in(self, fmt: QFormat) -> Quantized:
        """The network in a number format."""
        network = self.network  # first, for what it refuses
        images = self.inputs(self.calibration) if fmt.needs_calibration else None
        return quantize(network, fmt, images)

    @cached_property
    def other_formats(self) -> tuple[QFormat, ...]:
        """Formats of the same width, and so of the same costs, from calibration images."""
        if self.format.kind != "fixed":
            return ()
        network = self.network
        return calibrated_formats(network, self.format, self.inputs(self.calibration))

    @cached_property
    def calibration(self) -> Images:
        """The first training images, else those that the search knows."""
        wanted = self.config.data.calibration
        if self.train is None:
            return self.searched.first(wanted)
        places = np.arange(min(wanted, len(self.train)))
        with counted(self.work.progress, "Reading images to calibrate with") as progress:
            return self.train.take(places, progress)

    def key(self, name: str) -> PRNGKeyArray:
        """The random key of one part of the run: a function of the seed and the part's name."""
        return jax.random.fold_in(jax.random.key(self.config.run.seed), crc32(name.encode()))

    @cached_property
    def tables(self) -> CostTables:
        batch = self.config.platform.batch
        return tables_of(self.graph, self.format.width, self.platform, batch, self.faults)

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
        """Faults in weights and activations together, at the experiment's or the devices' rates."""
        settings, platform = self.config.faults, self.platform
        return FaultModel(
            bits=settings.bits,
            weight_rate=_rates(settings.weight_rate, platform.weight_rates),
            activation_rate=_rates(settings.activation_rate, platform.activation_rates),
            bit_profile=settings.bit_profile,
            layers=_layers(settings.layers),
            budget=settings.budget or None,
            generator=settings.generator,
            kind=settings.kind,
            burst=settings.burst,
            packet=settings.packet,
            scope=settings.scope,
            link_rate=_link_rate(settings.link_rate, platform.link, settings.link),
            link_kind=settings.link,
            shared=settings.shared,
        )

    def scenario(self, name: str, factor: float = 1.0) -> FaultModel:
        """Faults in `weights`, in `activations` or in `both`, all rates scaled (and cut at 1)."""
        return scaled(
            self.faults,
            weights=factor if name != "activations" else 0.0,
            activations=factor if name != "weights" else 0.0,
        )

    def explained(self) -> AbstractContextManager[None]:
        """Searches inside `with` say what is missing where no mapping is within the limits."""
        return explained(self.tables, self.caps, self.platform.names, self.graph.names)

    def objective(self, name: str) -> RobustnessObjective:
        """How a search scores accuracy under one scenario."""
        faults = self.config.faults
        return RobustnessObjective(
            self.search_evaluator, self.scenario(name), faults.trials, faults.strategy
        )

    def loss_objective(self, name: str) -> LossObjective:
        """How a search that learns compares mappings under one scenario, on few images."""
        return LossObjective(self.evaluator(_on_few_searched), partial(self.scenario, name))

    @property
    def search_evaluator(self) -> Evaluator:
        return self.evaluator(_on_searched)

    @property
    def held_out(self) -> Evaluator:
        return self.evaluator(_on_held_out)

    def held_out_in(self, fmt: QFormat) -> Evaluator:
        """The same images and draws, the network in another number format."""
        return self.evaluator(_on_held_out, fmt)

    def evaluator(self, parts: Callable[..., EvaluatorParts], *args: Any) -> Evaluator:
        """The evaluator of `parts(self, *args)`, made once.

        Workers build it for themselves: `parts` is a function that they can import, and a job's
        own evaluators are such functions of the job's.
        """
        return self.once(Experiment._evaluator, parts, *args)

    def once(self, part: Callable[..., T], *args: Any) -> T:
        """`part(self, *args)`, worked out when it is first asked for."""
        if (part, args) not in self._parts:
            self._parts[part, args] = part(self, *args)
        return self._parts[part, args]

    def inputs(self, images: Images) -> Array:
        """Images as the network takes them."""
        return self.inputs_of(images.images)

    def inputs_of(self, images: Any) -> Array:
        """The same of an array: bytes normalised, or what a network reads as it is."""
        return self._prepare(jnp.asarray(images))

    @cached_property
    def _prepare(self) -> Callable[[Any], Array]:
        if self.dataset.test.dtype != np.uint8:
            return as_they_are
        return partial(normalise, mean=self.mean, std=self.std)

    def _evaluator(self, parts: Callable[..., EvaluatorParts], *args: Any) -> Evaluator:
        name, images, metric, fmt, substitutes = parts(self, *args)
        run, spread = self.config.run, None
        if run.cluster:
            here = replace(self.config, run=replace(run, cluster=""))
            make = partial(_worker_engine, here, self.measured_images, parts, *args)
            spread = partial(_fleet, make, run.cluster, run.workers)
        return Evaluator(
            self.quantized if fmt is None else self.once(Experiment.quantized_in, fmt),
            images.images,
            images.labels,
            self.key(f"draws {name}"),
            prepare=self._prepare,
            metric=metric,
            memory=self.work.memory,
            name=name,
            memory_bytes=round(run.memory_gb * 1e9),
            substitutes=substitutes,
            spread=spread,
        )


def prepare(
    config: Config,
    work: Work,
    *,
    images: bool = True,
    measured_images: int | None = None,
    batch: int = 1,
) -> Experiment:
    """The experiment, with what can be checked of it before there is anything to wait for.

    That is its platform, faults, network's layers, and, with `images`, which of these there are,
    and whether so many, and a network that runs `batch` of them at a time, fit into memory.
    `measured_images`: see `Experiment`. Raises `InputError` for whatever in the experiment file
    does not fit together.
    """
    if work.given is None:
        check_source(config, weights=images)
    if config.run.cluster:
        fleet.require()
    if config.run.cluster and work.given is not None:
        raise InputError(
            "run.cluster: workers make the network from the experiment's file, and this one is in "
            "memory; leave it empty, or run the job from the command with model.name"
        )
    experiment = Experiment(config, work, measured_images)
    faults = experiment.faults
    if images and len(experiment.dataset.test) < 2:
        raise InputError(
            f"data: {len(experiment.dataset.test)} test images; a search and its measurement need "
            "one each"
        )
    layer_mask(faults, experiment.graph)  # refuses layers that are not there
    if images:
        _refuse_beyond_memory(experiment, batch)
    return experiment


def scaled(faults: FaultModel, *, weights: float, activations: float) -> FaultModel:
    """The fault model with its rates multiplied, and cut at 1.

    The link's faults strike activations. A link that sends again costs the same in all scenarios.
    """

    def times(rates: Any, factor: float) -> tuple[float, ...]:
        return tuple(min(rate * factor, 1.0) for rate in rates)

    link_rate = faults.link_rate
    return replace(
        faults,
        weight_rate=times(faults.weight_rate, weights),
        activation_rate=times(faults.activation_rate, activations),
        link_rate=times([link_rate], activations)[0] if faults.corrupts_link else link_rate,
    )


def _on_searched(experiment: Experiment) -> EvaluatorParts:
    return EvaluatorParts("search", experiment.searched)


def _on_few_searched(experiment: Experiment) -> EvaluatorParts:
    """The search's first images under its draws, with what they lose."""
    return EvaluatorParts("search", experiment.searched.first(FEW_IMAGES), LOSS)


def _on_held_out(experiment: Experiment, fmt: QFormat | None = None) -> EvaluatorParts:
    return EvaluatorParts("held out", experiment.held, format=fmt)


def _fleet(make: Callable[[], Engine], address: str, workers: int, own: Engine) -> Fleet:
    return Fleet(own, make, address=address, workers=workers)


def _worker_engine(
    config: Config,
    measured_images: int | None,
    parts: Callable[..., EvaluatorParts],
    *args: Any,
) -> Engine:
    """In a worker's process: the engine of one of the experiment's evaluators."""
    experiment = prepare(config, Work({}, SILENT), measured_images=measured_images)
    return experiment.evaluator(parts, *args).own_engine


def _link_rate(rates: tuple[float, ...], link: Link, kind: str) -> float:
    """How often bits flip, or packets get lost: the experiment's rate, or the link's own."""
    if len(rates) > 1:
        raise InputError(
            f"faults.link_rate: {len(rates)} rates for the one link between devices; give one "
            "number, or none for the link's own"
        )
    if rates:
        return rates[0]
    return link.bit_error_rate if kind == "bits" else link.packet_loss_rate


def _rates(rates: tuple[float, ...], of_devices: tuple[float, ...]) -> tuple[float, ...]:
    """One rate per device: the experiment's, or the devices' own."""
    if not rates:
        return of_devices
    return rates * len(of_devices) if len(rates) == 1 else rates


def _layers(chosen: tuple[int | str, ...]) -> str | int | tuple[str, ...]:
    """`faults.layers` as the fault model takes it."""
    first = chosen[0]
    return first if isinstance(first, int) or first == "all" else tuple(map(str, chosen))


def _refuse_beyond_memory(experiment: Experiment, batch: int) -> None:
    """Images as bytes and floats, parameters, and one image's activations at once."""
    model, graph = experiment.config.model, experiment.graph
    count = sum(experiment.image_counts)
    values = math.prod(experiment.dataset.test.shape)
    activations = max(layer.inputs + layer.outputs for layer in graph.layers)
    parameters = sum(layer.weights + layer.biases for layer in graph.layers)
    wanted = count * values * 5 + parameters * 12 + batch * activations * 8
    size = pixels(model.image_size) if experiment.given is None else f"{values:,}"
    what = f"{count:,} images of {size} pixels, and their network,"
    advice = "lower model.image_size, search.images, search.held_out or campaign.images"
    refuse_beyond(wanted, what, f"{advice}, or export.batch" if batch > 1 else advice)
