"""Accuracy of many mappings under many fault draws.

The unit of work is a *row*: the thresholds of every layer and a trial number. A row is a call of
one compiled program per batch of images: a batch axis must not reach a kernel, and inside a loop
XLA's CPU convolutions run 17 times slower (ResNet-20, jaxlib 0.10). Equal rows run once, whoever
asks for them: mappings that give every layer the same rates are the same row.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from afpjax import compiler
from afpjax.errors import InputError
from afpjax.faults import bits
from afpjax.faults.model import FaultModel, Thresholds, thresholds
from afpjax.faults.strike import Draws, logits_of_trial
from afpjax.network.quantized import Quantized, encoded

BATCH = 64  # images per forward pass; a last batch of fewer is padded, not compiled anew

Progress = Callable[[int], Any]
#: Images as they are kept, [B, ...], to the network's inputs, float32 [B, ...].
Prepare = Callable[[Array], Array]
Row = tuple[np.ndarray, np.ndarray, np.uint32]  # thresholds of weights and activations, and a trial


def as_they_are(images: Array) -> Array:
    """Images that are the network's inputs already."""
    return images.astype(jnp.float32)


class Evaluator:
    """Fault evaluation of one quantised network on one set of images.

    `images` stay in the host's memory as they are given, uint8 for instance, and go to the device
    in batches, where `prepare` makes the network's inputs of them (evaluators with the same
    function share a compiled program); `labels` are int32 [B]. Image i keeps the number i whatever
    the batch. `correct` remembers every row it has run; `memory` may be given by the caller to keep
    rows beyond this object (row bytes -> packed answers), `name` then tells evaluators apart that
    share it.
    Raises `InputError` for images and labels that do not match.
    """

    def __init__(
        self,
        quantized: Quantized,
        images: Num[Any, "B ..."],
        labels: Int[Any, " N"],
        key: Any,
        *,
        prepare: Prepare = as_they_are,
        memory: MutableMapping[bytes, bytes] | None = None,
        name: str = "",
    ) -> None:
        _check_images(quantized, jax.eval_shape(prepare, images), labels)
        self.quantized = quantized
        self.count = len(images)
        self.seed = bits.seed_words(key)
        self.memory = {} if memory is None else memory
        self.name = name
        self.evaluations = 0
        self._prepare = prepare
        self._encoded = encoded(quantized)
        self._batches = list(_batches(np.asarray(images), np.asarray(labels)))

    def correct(
        self,
        faults: FaultModel,
        limits: Thresholds,
        trials: Sequence[int],
        progress: Progress = lambda rows: None,
    ) -> Bool[np.ndarray, "P K B"]:
        """Whether each image is classified right, for P thresholds under the given trials.

        An image whose logits are not finite (float formats) counts as wrong.
        """
        weights, inputs = (np.asarray(part, np.uint32) for part in limits)
        draws = Draws.of(faults)
        rows = [
            (weights[p], inputs[p], np.uint32(trial))
            for p in range(len(weights))
            for trial in trials
        ]
        keys = [self._key(draws, row) for row in rows]
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in self.memory}
        progress(len(rows) - len(missing))
        for key, answer in zip(missing, self._answers(draws, list(missing.values())), strict=True):
            self.memory[key] = np.packbits(answer).tobytes()
            self.evaluations += 1
            progress(1)
        packed = np.array([np.frombuffer(self.memory[key], np.uint8) for key in keys])
        shape = (len(weights), len(trials), self.count)
        return np.unpackbits(packed, axis=1, count=self.count).astype(bool).reshape(shape)

    def clean(self, faults: FaultModel | None = None) -> Bool[np.ndarray, "B"]:
        """Whether each image is classified right without faults.

        The answer is the same for any `faults`; naming those that are evaluated anyway spares
        compiling another program.
        """
        faults = faults or FaultModel()
        none = np.zeros((1, len(self.quantized.layers), len(faults.bits)), np.uint32)
        return self.correct(faults, Thresholds(none, none), [0])[0, 0]

    def _key(self, draws: Draws, row: Row) -> bytes:
        if not row[0].any() and not row[1].any():  # without faults, every trial is the same
            return f"{self.name} clean".encode()
        kind = f"{self.name} {draws}".encode()
        return b"|".join([kind, *(part.tobytes() for part in row)])

    def _answers(self, draws: Draws, rows: list[Row]) -> Iterator[Bool[np.ndarray, " B"]]:
        """What `_run` gives for each row, in order; the first one compiles, alone.

        Compiled with `compiler.options`, a program keeps to one core (measured: wall = CPU time),
        and Python's lock is free meanwhile: rows in threads use the others.
        """
        alone = 0 if self.evaluations else 1
        yield from (self._run(draws, row) for row in rows[:alone])
        with ThreadPoolExecutor(compiler.workers()) as pool:
            yield from pool.map(lambda row: self._run(draws, row), rows[alone:])

    def _run(self, draws: Draws, row: Row) -> Bool[np.ndarray, " B"]:
        run = _compiled()
        answers = [
            run(draws, self._prepare, self._encoded, *batch, *row, self.seed)
            for batch in self._batches
        ]
        return np.concatenate([np.asarray(answer) for answer in answers])[: self.count]


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Bool[Array, " B"]]:
    return jax.jit(_correct_row, static_argnums=(0, 1), compiler_options=compiler.options())


def _correct_row(
    draws: Draws,
    prepare: Prepare,
    quantized: Quantized,
    images: Array,
    labels: Array,
    indices: Array,
    weights: Array,
    activations: Array,
    trial: Array,
    seed: Array,
) -> Bool[Array, " B"]:
    limits = Thresholds(weights, activations)
    logits = logits_of_trial(draws, quantized, prepare(images), indices, limits, seed, trial)
    return is_correct(logits, labels)


def is_correct(logits: Float[Array, "B classes"], labels: Int[Array, "B"]) -> Bool[Array, "B"]:
    """Top-1 agreement; logits that are not finite are never right."""
    return (logits.argmax(axis=1) == labels) & jnp.isfinite(logits).all(axis=1)


def accuracy(
    quantized: Quantized,
    images: Float[Any, "B ..."],
    labels: Int[Any, " N"],
    mappings: Int[Any, "P L"],
    faults: FaultModel,
    key: Any,
    *,
    trials: int = 32,
) -> Float[np.ndarray, "P K"]:
    """Top-1 accuracy of every mapping under every fault draw, [mappings, trials], fractions of 1.

    All mappings meet the same draws (common random numbers), so they can be compared in pairs.
    """
    evaluator = Evaluator(quantized, images, labels, key)
    limits = thresholds(faults, quantized, np.asarray(mappings))
    return evaluator.correct(faults, limits, range(trials)).mean(axis=2)


def _batches(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one fixed size (images, labels, image numbers); padding is never right."""
    size = min(BATCH, len(images))
    for start in range(0, len(images), size):
        part, missing = images[start : start + size], max(0, start + size - len(images))
        if missing:
            part = np.pad(part, [(0, missing)] + [(0, 0)] * (images.ndim - 1))
        wanted = np.pad(labels[start : start + size], (0, missing), constant_values=-1)
        yield part, wanted, np.arange(start, start + size, dtype=np.uint32)


def _check_images(quantized: Quantized, images: Any, labels: Any) -> None:
    shape = quantized.program.image_shape
    if len(images) == 0:
        raise InputError("images: none given; fault evaluation needs at least one")
    if len(images) != len(labels):
        raise InputError(f"data: {len(images)} images but {len(labels)} labels; they must match")
    if tuple(images.shape[1:]) != shape:
        raise InputError(
            f"data: images of shape {tuple(images.shape[1:])}, but the network takes {shape}"
        )
