"""From an experiment file to the objects that jobs work with: network, platform, data, faults."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from afpjax.config import Config
from afpjax.data import Dataset, Images, load, normalise
from afpjax.errors import InputError
from afpjax.faults.evaluate import Evaluator
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.hardware.platform import Platform, load_platform
from afpjax.hardware.tables import CostTables
from afpjax.network.fixed_point import QFormat
from afpjax.network.network import Network
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace
from afpjax.outcome import Work
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

    def key(self, name: str) -> PRNGKeyArray:
        """The random key of one part of the run: a function of the seed and the part's name."""
        return jax.random.fold_in(jax.random.key(self.config.run.seed), crc32(name.encode()))

    @cached_property
    def tables(self) -> CostTables:
        return tables_for(self.quantized, self.platform, self.config.platform.batch)

    @property
    def caps(self) -> Caps:
        search, none = self.config.search, float("inf")
        return Caps(search.latency_cap_ms or none, search.energy_cap_mj or none)

    @property
    def budget(self) -> Budget:
        search = self.config.search
        return Budget(search.population, search.generations, search.renew_draws)

    @cached_property
    def faults(self) -> FaultModel:
        """Faults in weights and activations together."""
        given = self.config.faults
        return FaultModel(
            bits=given.bits,
            weight_rate=_rates(given.weight_rate, self.platform.weight_rates),
            activation_rate=_rates(given.activation_rate, self.platform.activation_rates),
            bit_profile=given.bit_profile,
            layers=_layers(given.layers),
            budget=given.budget or None,
            generator=given.generator,
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
    def held_out(self) -> Evaluator:
        return self._evaluator("held out", self.held)

    def inputs(self, images: Images) -> Array:
        """Images as the network takes them."""
        return normalise(images.images, self.mean, self.std)

    def _evaluator(self, name: str, images: Images) -> Evaluator:
        return Evaluator(
            self.quantized,
            self.inputs(images),
            images.labels,
            self.key(f"draws {name}"),
            memory=self.work.memory,
            name=name,
        )


@contextmanager
def counted(work: Work, description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for readers that say `(done, total)`; the total is known at their first word."""
    with ExitStack() as stack:
        bar: list[Any] = [None, 0]

        def progress(done: int, total: int) -> None:
            bar[0] = bar[0] or stack.enter_context(work.progress.task(description, total))
            bar[0].advance(done - bar[1])
            bar[1] = done

        yield progress


def prepare(config: Config, work: Work) -> Experiment:
    """Build the experiment: read the data, load or train the network, trace and quantise it.

    Raises `InputError` for whatever in the experiment file does not fit together.
    """
    platform = load_platform(config.platform.devices, config.platform.link)
    fmt = _format(config)
    dataset = _load_data(config, work)
    apply_fn, params = _network(config, dataset, work)
    side = config.model.image_size
    channels = dataset.test.images.shape[-1]
    sample = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    network = _traced(config.model.name, apply_fn, params, sample)
    _check_classes(network, config, sample)
    searched, held = _split(dataset.test, config)
    calibration = (dataset.train or searched).images[: config.data.calibration]
    images = normalise(calibration, dataset.mean, dataset.std)
    quantized = quantize(network, fmt, images)
    experiment = Experiment(
        config, network, quantized, platform, searched, held, dataset.mean, dataset.std, work
    )
    layer_mask(experiment.faults, quantized.graph)  # refuses layers that are not there, now
    return experiment


def scaled(faults: FaultModel, *, weights: float, activations: float) -> FaultModel:
    """The fault model with its rates multiplied, and cut at 1."""

    def times(rates: Any, factor: float) -> tuple[float, ...]:
        return tuple(min(rate * factor, 1.0) for rate in rates)

    return replace(
        faults,
        weight_rate=times(faults.weight_rate, weights),
        activation_rate=times(faults.activation_rate, activations),
    )


def _rates(given: tuple[float, ...], own: tuple[float, ...]) -> tuple[float, ...]:
    """One rate per device: the experiment's, or the devices' own."""
    if not given:
        return own
    return given * len(own) if len(given) == 1 else given


def _layers(chosen: tuple[int | str, ...]) -> str | int | tuple[str, ...]:
    """`faults.layers` as the fault model takes it."""
    first = chosen[0]
    return first if isinstance(first, int) or first == "all" else tuple(map(str, chosen))


def _format(config: Config) -> QFormat:
    given = config.format
    return QFormat(given.bits, given.frac, given.kind, given.scale, given.step)


def _load_data(config: Config, work: Work) -> Dataset:
    with counted(work, "Reading images") as progress:
        return load(
            config.data,
            image_size=config.model.image_size,
            classes=config.model.classes,
            channels=config.model.channels,
            progress=progress,
        )


def _network(config: Config, dataset: Dataset, work: Work) -> tuple[Callable[..., Any], Any]:
    """`apply_fn(params, images) -> logits` and its parameters, from wherever the name points."""
    name = config.model.name
    if ":" in name:
        return _from_function(name, config.model.weights)
    model = config.model
    if name.endswith(".onnx"):
        if model.weights:
            raise InputError(f"model.weights: {name} brings its own parameters; leave it empty")
        onnx = importlib.import_module("afpjax.network.onnx")  # takes a while: only who needs it
        return onnx.read_onnx(name, model.image_size)[:2]
    # By name, as a user's own network would be: nothing here depends on the zoo.
    if model.weights:
        zoo = importlib.import_module("afpjax.models")
        size = {"image_size": model.image_size, "width": model.width}
        return zoo.load(name, model.weights, classes=model.classes, **size)
    training = importlib.import_module("afpjax.models.train")
    with counted(work, f"Training {name}") as progress:
        return training.trained(
            model, config.train, dataset, seed=config.run.seed, progress=progress
        )


def _from_function(name: str, weights: str) -> tuple[Callable[..., Any], Any]:
    """The pair that `package.module:function`, called without arguments, returns."""
    if weights:
        raise InputError(f"model.weights: `{name}` brings its own parameters; leave it empty")
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # as `python -m` has it, for the command `afpjax` too
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), function)
    # An empty name is a ValueError, a relative one a TypeError.
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"model.name: `{name}` cannot be imported: {error}") from error
    made = make() if callable(make) else None
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise InputError(f"model.name: `{name}()` must return (apply_fn, params)")
    return made


def _traced(
    name: str, apply_fn: Callable[..., Any], params: Any, sample: jax.ShapeDtypeStruct
) -> Network:
    try:
        return trace(apply_fn, params, sample)
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # what JAX raises for shapes that do not fit
        shape = " x ".join(map(str, sample.shape[1:]))
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"model.image_size: `{name}` does not take images of {shape}: {reason}"
        ) from error


def _check_classes(network: Network, config: Config, sample: jax.ShapeDtypeStruct) -> None:
    found = jax.eval_shape(network, sample).shape[1]
    if found != config.model.classes:
        raise InputError(
            f"model.classes: {config.model.classes}, but the network tells {found} classes apart"
        )


def _split(test: Images, config: Config) -> tuple[Images, Images]:
    """Images for the search and images that are held out, in an order drawn from the seed."""
    count = len(test.labels)
    if count < 2:
        raise InputError(f"data: {count} test images; a search and its measurement need one each")
    order = np.random.default_rng(config.run.seed).permutation(count)
    first = min(config.search.images, count // 2)
    rest = order[first:][: config.search.held_out or None]

    def pick(places: np.ndarray) -> Images:
        return Images(test.images[places], test.labels[places])

    return pick(order[:first]), pick(rest)
