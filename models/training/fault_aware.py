"""Fault-aware training: a trained network learns on while the bits of what its layers read flip.

Each step runs the network as the experiment does, through the one interpreter: folded, quantised,
its layers on devices drawn at random, under a fault draw of its own. The gradient passes rounding
and flips as if they were not there (straight-through, Bengio et al. 2013, arXiv 1308.3432) and
reaches the original weights through the folding. Batch norm's statistics stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Float32, Int32, PRNGKeyArray, UInt8

from afpjax.config import sections
from afpjax.data.dataset import normalise
from afpjax.data.images import Images
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Network
from afpjax.network.program import Parameters, Program
from afpjax.network.quantized import Quantized, Steps, quantize
from afpjax.network.trace import trace_with_refold

from .. import zoo
from .augment import augmented
from .batches import Batches
from .checkpoint import Checkpoints
from .loop import Progress, Stage, run
from .recipe import loss_of, optimiser, stepped

_BRANCH = crc32(b"fault-aware")  # of all random draws


@dataclass(frozen=True)
class Conditions:
    """What an experiment puts a network under.

    `calibration`: how many of the first training images set the scales of a format that has them.
    """

    faults: FaultModel
    format: QFormat
    calibration: int = 256

    @property
    def devices(self) -> int:
        return max(len(self.faults.rates(target)) for target in ("weight", "activation"))


class _State(NamedTuple):
    weights: Any  # an nnx.State, as are
    statistics: Any  # batch norm's running mean and variance, which stay
    optimiser: optax.OptState
    scales: dict[str, Steps]  # of the number format, as the epoch began

    @property
    def params(self) -> zoo.Params:
        return nnx.to_pure_dict(nnx.merge_state(self.weights, self.statistics))


@dataclass(frozen=True, eq=False)
class _Exposed:
    """A network under conditions, as a function of its original parameters."""

    program: Program
    refold: Callable[[zoo.Params], Parameters]
    conditions: Conditions
    calibration: Float32[Array, "N H W C"]

    def scales(self, params: zoo.Params) -> dict[str, Steps]:
        """The number format's, for these parameters."""
        network = Network(self.program, self.refold(params))
        return quantize(network, self.conditions.format, self.calibration).steps

    def logits(
        self, state: _State, images: Array, devices: PRNGKeyArray, flips: PRNGKeyArray, trial: Array
    ) -> Float[Array, "B classes"]:
        """Under one fault draw, with each layer on a device of its own draw."""
        given, layers = self.conditions, self.program.graph.layers
        network = Quantized(self.program, given.format, self.refold(state.params), state.scales)
        mapping = jax.random.randint(devices, (len(layers),), 0, given.devices)
        return network(images, mapping=mapping, faults=given.faults, key=flips, trial=trial)


def train_under_faults(
    apply_fn: zoo.ApplyFn,
    model: nnx.Module,
    batches: Batches,
    conditions: Conditions,
    *,
    settings: sections.Train,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    checkpoints: Checkpoints | None = None,
    progress: Progress = lambda done, steps: None,
) -> zoo.Params:
    """The parameters of a trained `model` after it has learnt under faults.

    `apply_fn(params, images)` is the model in inference mode, of `zoo.params_of(model)`.
    `settings.fault_epochs` epochs of AdamW, whose step size falls along a cosine from
    `fault_learning_rate`; the number format's scales follow the weights at the start of each epoch.
    The same seed gives the same weights. Raises `InputError` when the loss stops being finite, and
    for faults in bits or layers that there are not.
    """
    _, weights, statistics, _ = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    falling = optax.cosine_decay_schedule(
        settings.fault_learning_rate, settings.fault_epochs * batches.steps
    )
    rule = optimiser(falling, settings.weight_decay)
    state = _State(weights, statistics, rule.init(weights), {})
    calibration = normalise(batches.first(conditions.calibration), mean, std)
    network, refold = trace_with_refold(apply_fn, state.params, calibration)
    layer_mask(conditions.faults, network.graph)  # refuses layers that are not there
    exposed = _Exposed(network.program, refold, conditions, calibration)
    key = jax.random.fold_in(jax.random.key(seed), _BRANCH)
    step = jax.jit(partial(_step, exposed, rule, settings.augmentation, mean, std))

    def begin(epoch: int, state: _State) -> _State:
        return state._replace(scales=exposed.scales(state.params))

    def follow(epoch: int, number: int, state: _State, batch: Images) -> tuple[_State, Array]:
        return step(state, key, np.int32(epoch * batches.steps + number), *batch)

    stage = Stage(
        epochs=settings.fault_epochs,
        seeds=(seed, _BRANCH),
        begin=begin,
        step=follow,
        learning_rate="train.fault_learning_rate",
    )
    return run(stage, batches, begin(0, state), checkpoints, progress).params


def _step(
    exposed: _Exposed,
    rule: optax.GradientTransformation,
    augmentation: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    state: _State,
    key: PRNGKeyArray,
    number: Int32[Array, ""],
    images: UInt8[Array, "B H W C"],
    labels: Int32[Array, " B"],
) -> tuple[_State, Float[Array, ""]]:
    flips, others = jax.random.split(key)
    looks, devices = jax.random.split(jax.random.fold_in(others, number))
    seen = normalise(augmented(augmentation, looks, images), mean, std)

    def loss(weights: Any) -> Array:
        moved = state._replace(weights=weights)
        return loss_of(exposed.logits(moved, seen, devices, flips, number), labels)

    value, slopes = jax.value_and_grad(loss)(state.weights)
    weights, memory = stepped(rule, slopes, state.optimiser, state.weights)
    return state._replace(weights=weights, optimiser=memory), value
