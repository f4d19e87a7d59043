"""Training from scratch (optax), and the networks trained here before.

A step is one compiled program and an epoch is a Python loop over it: on a CPU, XLA (jaxlib 0.10)
runs convolutions inside `lax.scan` eight times slower than outside. The switch of
`afpjax.compiler` was measured too, and gains nothing here.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from afpjax import sections
from afpjax.cache import cache_folder
from afpjax.data import Dataset, normalise
from afpjax.errors import InputError

from . import zoo

#: Told after each epoch: how many are done, and of how many.
Progress = Callable[[int, int], Any]

_RECIPE = 1  # part of a cached network's name: raise it whenever training changes
_WARMUP = 0.1  # share of the steps in which the step size climbs
_SMOOTHING = 0.1  # share of each label that is spread over all classes
_SHIFT = 8  # images are moved by up to their size over this


class _State(NamedTuple):
    weights: Any  # an nnx.State, as are
    statistics: Any  # batch norm's running mean and variance
    optimiser: optax.OptState


def train(
    model: nnx.Module,
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int32[np.ndarray, " N"],
    *,
    settings: sections.Train,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    progress: Progress = lambda done, epochs: None,
) -> nnx.Module:
    """A trained copy of `model`, in inference mode.

    AdamW on kernels (biases and scales do not decay), a cosine schedule with warm-up, smoothed
    labels, images moved by up to an eighth of their size. The last, incomplete batch of an epoch
    is left out; every epoch has its own order. The same seed gives the same weights. Raises
    `InputError` when the loss stops being finite.
    """
    model = nnx.clone(model)
    model.train()
    definition, weights, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    batch = min(settings.batch, len(images))
    steps = len(images) // batch
    optimiser = _optimiser(settings, steps * settings.epochs)
    step = partial(_step, definition, settings, steps * settings.epochs, tuple(mean), tuple(std))
    state = _State(weights, statistics, optimiser.init(weights))
    for epoch in range(settings.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        key, loss = jax.random.fold_in(jax.random.key(seed), epoch), jnp.float32(0)
        for number, chosen in enumerate(order[: steps * batch].reshape(steps, batch)):
            state, loss = step(state, key, np.int32(number), images[chosen], labels[chosen])
        if not np.isfinite(loss):
            raise InputError(
                f"train.learning_rate: the loss is no number after epoch {epoch + 1}; "
                f"take a smaller one than {settings.learning_rate:g}"
            )
        progress(epoch + 1, settings.epochs)
    trained = nnx.merge(definition, state.weights, state.statistics)
    trained.eval()
    return trained


def trained(
    model: sections.Model,
    settings: sections.Train,
    dataset: Dataset,
    *,
    seed: int,
    progress: Progress = lambda done, epochs: None,
) -> tuple[zoo.ApplyFn, zoo.Params]:
    """The zoo's network trained on a data set's training images: once, then from the cache.

    The cache is an `.npz` state dict in `afpjax.cache.cache_folder()`, named after everything that
    the weights depend on; one that cannot be read is made again. Raises `InputError` where there
    are no training images, the network cannot read them, or the cache cannot be written.
    """
    if dataset.train is None:
        raise InputError("model.weights: the data set has no training images; name trained weights")
    zoo.refuse_images(model.name, dataset.train.images.shape, model.image_size)
    size = {"classes": model.classes, "width": model.width}
    path = cache_folder() / f"{model.name}-{_fingerprint(model, settings, dataset, seed)}.npz"
    if path.is_file():
        with suppress(InputError):
            return zoo.load(model.name, path, image_size=model.image_size, **size)
    _refuse_unwritable(path.parent)
    made = train(
        zoo.create(model.name, seed=seed, **size),
        *dataset.train,
        settings=settings,
        mean=dataset.mean,
        std=dataset.std,
        seed=seed,
        progress=progress,
    )
    params = zoo.params_of(made)
    zoo.save(path, params)
    return zoo.apply_fn_of(model.name, image_size=model.image_size, **size), params


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _step(
    definition: Any,
    settings: sections.Train,
    steps: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    state: _State,
    key: PRNGKeyArray,
    number: Int32[Array, ""],
    images: UInt8[Array, "B H W C"],
    labels: Int32[Array, " B"],
) -> tuple[_State, Float[Array, ""]]:
    moved = _shifted(jax.random.fold_in(key, number), images)

    def loss_of(weights: Any) -> tuple[Array, Any]:
        model: Any = nnx.merge(definition, weights, state.statistics, copy=True)
        logits = model(normalise(moved, mean, std))
        wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), _SMOOTHING)
        loss = optax.softmax_cross_entropy(logits, wanted).mean()
        return loss, nnx.state(model, nnx.BatchStat)

    (loss, statistics), slopes = jax.value_and_grad(loss_of, has_aux=True)(state.weights)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by its step count
        optimiser = _optimiser(settings, steps)
        updates, memory = optimiser.update(slopes, state.optimiser, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return _State(weights, statistics, memory), loss


def _optimiser(settings: sections.Train, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup_steps=max(1, round(_WARMUP * steps)), decay_steps=steps
    )

    def kernels(weights: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)

    return optax.adamw(schedule, weight_decay=settings.weight_decay, mask=kernels)


def _shifted(key: PRNGKeyArray, images: UInt8[Array, "B H W C"]) -> UInt8[Array, "B H W C"]:
    """Each image moved by its own draw of rows and columns; black comes in at the edges."""
    reach = images.shape[1] // _SHIFT
    wide = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * reach + 1)

    def cut(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(cut)(wide, corners)


def _fingerprint(
    model: sections.Model, settings: sections.Train, dataset: Dataset, seed: int
) -> str:
    """Sixteen hexadecimal digits of everything that trained weights depend on."""
    known = {**asdict(model), **asdict(settings)}
    known.update(mean=dataset.mean, std=dataset.std, seed=seed, recipe=_RECIPE)
    del known["weights"]  # where weights are named, nothing is trained
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for array in dataset.train or ():
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _refuse_unwritable(folder: Path) -> None:
    """Before a long training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be written ({error.strerror}); "
            "set AFPJAX_CACHE to a folder that can"
        ) from error
