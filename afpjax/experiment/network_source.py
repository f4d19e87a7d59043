"""Where a network comes from: a zoo name, an `.onnx` file or a function of the user's own."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from afpjax.config.config import Config
from afpjax.config.work import Work, counted
from afpjax.data.dataset import Dataset, Preset
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError, one_line
from afpjax.inputs.image_size import ImageSize, rows_columns
from afpjax.inputs.memory import bytes_of, refuse_beyond
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Network
from afpjax.network.program import Program
from afpjax.network.trace import outline, trace

#: `apply_fn(params, images) -> logits`, and its parameters.
Source = tuple[Callable[..., Any], Any]
Traced = TypeVar("Traced", Network, Program)
# What images are tried with where those that were asked for do not fit.
_SIZES, _CHANNELS = (8, 28, 32, 64, 96, 128, 224, 227, 299), (1, 3, 4)


def preset_of(config: Config) -> Preset | None:
    """How the zoo's network of this name wants photographs; None for other networks."""
    return _zoo().preset(config.model.name) if _in_zoo(config) else None


def check_source(config: Config, *, weights: bool) -> None:
    """Raise `InputError` for a source that leads nowhere, or is told what it has no use for.

    No parameters are made; with `weights`, their file is read, so that a bad one is refused now,
    whatever comes first.
    """
    model = config.model
    if _in_zoo(config):
        _zoo().refuse_unknown(model.name)
        if model.weights and weights:
            _zoo().read(Path(model.weights))
        return
    if model.weights:
        raise InputError(f"model.weights: `{model.name}` brings its own parameters; leave it empty")
    if config.train.faults:
        raise InputError(
            f"train.faults: `{model.name}` is not of the zoo, and is not trained here; leave it out"
        )


def outlined(config: Config) -> Program | None:
    """The program of a zoo network, from the shapes of its parameters; None for other networks.

    Nothing is trained, drawn or read. Raises `InputError` as `network_of` does.
    """
    if not _in_zoo(config):
        return None
    apply_fn, shapes = _zoo().abstract(config.model.name, **_size(config))
    # As they are loaded, folded, and encoded in fixed point.
    advice = "lower model.width, model.classes or model.image_size"
    refuse_beyond(3 * bytes_of(shapes), f"model.name: `{config.model.name}` of this size", advice)
    fold = config.model.fold
    return _traced(config, lambda sample: outline(apply_fn, shapes, sample, fold=fold))


def network_of(
    config: Config, dataset: Callable[[], Dataset], faults: FaultModel, fmt: QFormat, work: Work
) -> Network:
    """The traced network that `config.model` names, loaded or trained.

    `dataset` is asked for where there is something to train, and `faults` and `fmt` are what
    fault-aware training puts a zoo network under. Raises `InputError` for a name that leads
    nowhere, weights that do not fit, and a network that does not take the images or tells another
    number of classes apart.
    """
    apply_fn, params = _source(config, dataset, faults, fmt, work)
    fold = config.model.fold
    network = _traced(config, lambda sample: trace(apply_fn, params, sample, fold=fold))
    classes = jax.eval_shape(network, _sample(config)).shape[1]
    if classes != config.model.classes:
        raise InputError(
            f"model.classes: {config.model.classes}, but the network tells {classes} classes apart"
        )
    return network


def _source(
    config: Config, dataset: Callable[[], Dataset], faults: FaultModel, fmt: QFormat, work: Work
) -> Source:
    model = config.model
    if not _in_zoo(config):
        return _from_function(config) if ":" in model.name else _from_onnx(config)
    if model.weights and not config.train.faults:
        return _zoo().load(model.name, model.weights, **_size(config))
    return _trained(config, dataset(), faults, fmt, work)


def _size(config: Config) -> dict[str, Any]:
    model = config.model
    return {"classes": model.classes, "image_size": model.image_size, "width": model.width}


def _trained(
    config: Config, dataset: Dataset, faults: FaultModel, fmt: QFormat, work: Work
) -> Source:
    training = importlib.import_module("afpjax.models.train")
    name = config.model.name
    with (
        counted(work.progress, "Reading images to train on") as reading,
        counted(work.progress, f"Training {name}") as progress,
    ):
        return training.trained(
            config.model,
            config.train,
            dataset,
            seed=config.run.seed,
            conditions=training.Conditions(faults, fmt, config.data.calibration),
            progress=progress,
            reading=reading,
        )


def _in_zoo(config: Config) -> bool:
    return ":" not in config.model.name and not config.model.name.endswith(".onnx")


def _zoo() -> Any:
    # By name, as a user's own network would be: nothing here depends on the zoo.
    return importlib.import_module("afpjax.models.zoo")


def _from_onnx(config: Config) -> Source:
    onnx = importlib.import_module("afpjax.network.onnx")  # takes a while: only who needs it
    return onnx.read_onnx(config.model.name, config.model.image_size)[:2]


def _from_function(config: Config) -> Source:
    """The pair that `package.module:function`, called without arguments, returns."""
    name = config.model.name
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # as `python -m` has it, for the command `afpjax` too
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
        raise InputError(f"model.name: `{name}` cannot be imported: {one_line(error)}") from error
    try:
        pair = make() if callable(make) else None
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise InputError(
            f"model.name: `{name}()` raised {kind}: {one_line(error)}; it must return "
            "(apply_fn, params) without arguments"
        ) from error
    if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[0])):
        raise InputError(f"model.name: `{name}()` must return (apply_fn, params)")
    return pair


def _sample(config: Config) -> jax.ShapeDtypeStruct:
    return _one_image(config.model.image_size, config.model.channels)


def _one_image(size: ImageSize, channels: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *rows_columns(size), channels), jnp.float32)


def _traced(config: Config, tracing: Callable[[jax.ShapeDtypeStruct], Traced]) -> Traced:
    sample = _sample(config)
    try:
        return tracing(sample)
    except InputError:
        raise
    except Exception as error:  # whatever a framework raises for shapes that do not fit
        shape = " x ".join(map(str, sample.shape[1:]))
        setting, mend = _fitting(config, tracing)
        raise InputError(
            f"{setting}: `{config.model.name}` does not take images of {shape}: {one_line(error)}"
            f"{mend}"
        ) from error


def _fitting(config: Config, tracing: Callable[[jax.ShapeDtypeStruct], Any]) -> tuple[str, str]:
    """Which setting is wrong, and its right value: channels, sizes, or both that are usual."""
    model = config.model
    tried = [
        *((model.image_size, channels) for channels in _CHANNELS),
        *((size, model.channels) for size in _SIZES),
        *((size, channels) for size in _SIZES for channels in _CHANNELS),
    ]
    for size, channels in tried:
        try:
            tracing(_one_image(size, channels))
        except Exception:
            continue
        fitting = {"model.image_size": size, "model.channels": channels}
        asked = {"model.image_size": model.image_size, "model.channels": model.channels}
        wrong = {name: value for name, value in fitting.items() if value != asked[name]}
        values = " and ".join(f"{name} = {value}" for name, value in wrong.items())
        return " and ".join(wrong), f"; it does with {values}"
    return "model.image_size", ""


def trains_here(config: Config) -> bool:
    """Whether the network is trained by afpjax, where the cache does not have it."""
    return _in_zoo(config) and (not config.model.weights or config.train.faults)
