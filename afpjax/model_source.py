"""Where a network comes from: a zoo name, an `.onnx` file or a function of the user's own."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from afpjax.config import Config
from afpjax.data import Dataset, Preset
from afpjax.errors import InputError
from afpjax.faults.model import FaultModel
from afpjax.network.fixed_point import QFormat
from afpjax.network.network import Network
from afpjax.network.trace import trace
from afpjax.outcome import Work
from afpjax.progress import counted

#: `apply_fn(params, images) -> logits`, and its parameters.
Source = tuple[Callable[..., Any], Any]


def preset_of(config: Config) -> Preset | None:
    """How the zoo's network of this name wants photographs; None for other networks."""
    return _zoo().preset(config.model.name) if _in_zoo(config) else None


def network_of(
    config: Config, dataset: Dataset, faults: FaultModel, fmt: QFormat, work: Work
) -> Network:
    """The traced network that `config.model` names, loaded or trained.

    `faults` and `fmt` are what fault-aware training puts a zoo network under. Raises `InputError`
    for a name that leads nowhere, weights that do not fit, and a network that does not take the
    images or tells another number of classes apart.
    """
    apply_fn, params = _source(config, dataset, faults, fmt, work)
    side, channels = config.model.image_size, config.model.channels
    sample = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    network = _traced(config.model.name, apply_fn, params, sample)
    found = jax.eval_shape(network, sample).shape[1]
    if found != config.model.classes:
        raise InputError(
            f"model.classes: {config.model.classes}, but the network tells {found} classes apart"
        )
    return network


def _source(
    config: Config, dataset: Dataset, faults: FaultModel, fmt: QFormat, work: Work
) -> Source:
    model = config.model
    if not _in_zoo(config):
        own = _from_function if ":" in model.name else _from_onnx
        if model.weights:
            raise InputError(
                f"model.weights: `{model.name}` brings its own parameters; leave it empty"
            )
        if config.train.faults:
            raise InputError(
                f"train.faults: `{model.name}` is not of the zoo, and is not trained here; "
                "leave it out"
            )
        return own(config)
    if model.weights and not config.train.faults:
        size = {"image_size": model.image_size, "width": model.width}
        return _zoo().load(model.name, model.weights, classes=model.classes, **size)
    return _trained(config, dataset, faults, fmt, work)


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
