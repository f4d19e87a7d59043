"""A network and the images that its neurons are scored on, in batches, with a memory of results."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import DIVERGENCE
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.digest import digest
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.softmax import before_softmax
from afpjax.neurons.ablation import AnyNetwork, images_at_once

Advance = Callable[[int], Any]
Vectors = dict[str, Float[np.ndarray, "_"]]


class ScoringBatch(NamedTuple):
    """Images and labels of one fixed size; `share` is 0 for padding, else 1."""

    images: Num[np.ndarray, "B ..."]
    labels: Int[np.ndarray, "B"]
    share: Float[np.ndarray, "B"]

    @property
    def count(self) -> int:
        return int(self.share.sum())


@dataclass(frozen=True)
class ScoringData:
    """A network, the images it is scored on, and what of the scores is known already.

    A softmax that ends the network is left out: scores are of its logits.

    `images` are the network's inputs. `memory` keeps results for the caller, under names that
    tell networks, images, labels and machines' arithmetic apart.
    """

    network: AnyNetwork
    images: Num[Any, "B ..."]
    labels: Int[Any, "B"]
    memory: MutableMapping[bytes, bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", before_softmax(self.network))

    @cached_property
    def _digest(self) -> bytes:
        return digest(self.network.program, self.network, self.images, self.labels)

    def first(self, count: int) -> "ScoringData":
        """The same on the first `count` images."""
        return ScoringData(self.network, self.images[:count], self.labels[:count], self.memory)

    def batches(self, size: int = 0) -> list[ScoringBatch]:
        """All images in batches of one size, the last one filled up with its last image."""
        size = min(size or images_at_once(self.network.program), len(self.images))
        images, labels = np.asarray(self.images), np.asarray(self.labels, np.int32)
        numbers = np.arange(-(-len(images) // size) * size)
        share = (numbers < len(images)).astype(np.float32)
        numbers = np.minimum(numbers, len(images) - 1)
        cuts = [slice(start, start + size) for start in range(0, len(numbers), size)]
        return [ScoringBatch(images[numbers[c]], labels[numbers[c]], share[c]) for c in cuts]

    @cached_property
    def evaluator(self) -> Evaluator:
        """Runs the network without some of its neurons; each outcome is held against the whole."""
        network = self.network
        if not isinstance(network, Quantized):
            network = quantize(network, QFormat(kind="float32"))
        key = jax.random.key(0)  # nothing is drawn
        return Evaluator(network, self.images, self.labels, key, metric=DIVERGENCE)

    @cached_property
    def right(self) -> float:
        """Accuracy of the whole network; raises `InputError` where it gives NaN or infinity."""
        logits = self.evaluator.reference
        if not np.isfinite(logits).all():
            raise InputError("the network: its logits hold NaN or infinity on these images")
        return float(np.mean(logits.argmax(axis=1) == np.asarray(self.labels)))

    def remembered(
        self, name: str, compute: Callable[[], Vectors], advance: Advance, steps: int
    ) -> Vectors:
        """Named vectors of float64 from memory, else computed and put there."""
        key = self.key(name)
        if (known := self.memory.get(key)) is None:
            vectors = compute()
            self.memory[key] = b"".join(_packed(vectors))
            return vectors
        advance(steps)
        return dict(_unpacked(known))

    def key(self, name: str) -> bytes:
        """What a result is remembered by."""
        return f"importance {name} ".encode() + self._digest


def lower(function: Callable[..., Any], *arguments: Any) -> Any:
    """Lower a function of pytrees as one of their bare arrays, as `compiler.Compiled` calls it."""
    trees = [jax.tree.flatten(argument) for argument in arguments]

    def bare(*leaves: tuple[Array, ...]) -> tuple[Array, ...]:
        pairs = zip(leaves, trees, strict=True)
        whole = [jax.tree.unflatten(tree, own) for own, (_, tree) in pairs]
        return tuple(jax.tree.leaves(function(*whole)))

    # Arguments that nobody reads stay: without them, programs that read others look alike.
    return jax.jit(bare, keep_unused=True).lower(*(tuple(leaves) for leaves, _ in trees))


def on_all_cores(
    work: Callable[[ScoringBatch], Any],
    batches: Sequence[ScoringBatch],
    steps: Sequence[int],
    advance: Advance,
) -> list[Any]:
    """What `work` gives for every batch, in order."""
    results = []
    with ThreadPoolExecutor(compiler.workers()) as pool:
        try:
            for result, step in zip(pool.map(work, batches), steps, strict=True):
                results.append(result)
                advance(step)
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def _packed(vectors: Vectors) -> Iterator[bytes]:
    for name, vector in vectors.items():
        head = np.array([len(name.encode()), len(vector)], np.int64)
        yield head.tobytes() + name.encode() + np.asarray(vector, np.float64).tobytes()


def _unpacked(known: bytes) -> Iterator[tuple[str, Float[np.ndarray, "C"]]]:
    start = 0
    while start < len(known):
        letters, count = np.frombuffer(known, np.int64, 2, start)
        start += 16
        name = known[start : start + letters].decode()
        start += int(letters)
        yield name, np.frombuffer(known, np.float64, count, start).copy()
        start += 8 * int(count)
