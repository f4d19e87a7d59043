"""Training from scratch: AdamW on augmented images, with dropout where the network has it.

A step is one compiled program and an epoch is a Python loop over it: on a CPU, XLA (jaxlib 0.10)
runs convolutions inside `lax.scan` eight times slower than outside. The switch of
`afpjax.network.compiler` was measured too, and gains nothing here.
"""

from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from afpjax.config import sections
from afpjax.data.dataset import normalise
from afpjax.data.images import Images

from .augment import augmented
from .batches import Batches
from .checkpoint import Checkpoints
from .loop import Progress, Stage, run
from .recipe import climbing, loss_of, optimiser, stepped

_DROPOUT = crc32(b"dropout")  # a branch of the random draws; epochs do not count that far


class _State(NamedTuple):
    weights: Any  # an nnx.State, as are
    statistics: Any  # batch norm's running mean and variance
    optimiser: optax.OptState


class _Keys(NamedTuple):
    """Of one epoch."""

    looks: PRNGKeyArray
    dropout: PRNGKeyArray


def train(
    model: nnx.Module,
    batches: Batches,
    *,
    settings: sections.Train,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    checkpoints: Checkpoints | None = None,
    progress: Progress = lambda done, steps: None,
) -> nnx.Module:
    """A trained copy of `model`, in inference mode.

    AdamW on kernels (biases and scales do not decay), a cosine schedule with warm-up, smoothed
    labels, images augmented as `settings` say, dropout where the network has it. The last,
    incomplete batch of an epoch is left out; every epoch has its own order. The same seed gives the
    same weights, whether or not training went on from one of its `checkpoints`. `progress(done,
    total)` counts steps. Raises `InputError` when the loss stops being finite.
    """
    model = nnx.clone(model)
    model.train()
    definition, weights, statistics, draws = nnx.split(
        model, nnx.Param, nnx.BatchStat, nnx.RngState
    )
    steps = settings.epochs * batches.steps
    state = _State(weights, statistics, _rule(settings, steps).init(weights))
    step = partial(_step, definition, settings, steps, mean, std)
    root = jax.random.key(seed)
    roots = root, jax.random.fold_in(root, _DROPOUT)

    def follow(epoch: int, number: int, state: _State, batch: Images) -> tuple[_State, Array]:
        keys = _Keys(*(jax.random.fold_in(each, epoch) for each in roots))
        return step(state, draws, keys, np.int32(number), *batch)

    stage = Stage(
        epochs=settings.epochs,
        seeds=(seed,),
        begin=lambda epoch, state: state,
        step=follow,
        learning_rate="train.learning_rate",
    )
    state = run(stage, batches, state, checkpoints, progress)
    trained = nnx.merge(definition, state.weights, state.statistics, draws)
    trained.eval()
    return trained


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _step(
    definition: Any,
    settings: sections.Train,
    steps: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    state: _State,
    draws: Any,
    keys: _Keys,
    number: Int32[Array, ""],
    images: UInt8[Array, "B H W C"],
    labels: Int32[Array, " B"],
) -> tuple[_State, Float[Array, ""]]:
    looks, dropout = (jax.random.fold_in(each, number) for each in keys)
    seen = augmented(settings.augmentation, looks, images)
    draws = _drawn(draws, dropout)

    def loss(weights: Any) -> tuple[Array, Any]:
        model: Any = nnx.merge(definition, weights, state.statistics, draws, copy=True)
        value = loss_of(model(normalise(seen, mean, std)), labels)
        return value, nnx.state(model, nnx.BatchStat)

    (value, statistics), slopes = jax.value_and_grad(loss, has_aux=True)(state.weights)
    weights, memory = stepped(_rule(settings, steps), slopes, state.optimiser, state.weights)
    return _State(weights, statistics, memory), value


def _rule(settings: sections.Train, steps: int) -> optax.GradientTransformation:
    return optimiser(climbing(settings.learning_rate, steps), settings.weight_decay)


def _drawn(draws: Any, key: PRNGKeyArray) -> Any:
    """The random state of a network's dropouts for one step: each its own key, nothing counted."""
    leaves, structure = jax.tree.flatten(draws)
    fresh = [
        jax.random.fold_in(key, place)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros_like(leaf)
        for place, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, fresh)
