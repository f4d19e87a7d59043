"""What is scored: a network on images, in batches, with a memory of what is known already."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.digest import digest
from afpjax.network.program import Value
from afpjax.network.softmax import before_softmax
from afpjax.neurons import ablation
from afpjax.neurons.ablation import Scored
from afpjax.neurons.importance import images_at_once

Advance = Callable[[int], Any]
Vectors = dict[str, Float[np.ndarray, "_"]]


class Batch(NamedTuple):
    """Images and labels of one fixed size; `share` is 0 for padding, else 1."""

    images: Num[np.ndarray, "B ..."]
    labels: Int[np.ndarray, "B"]
    share: Float[np.ndarray, "B"]

    @property
    def count(self) -> int:
        return int(self.share.sum())


@dataclass(frozen=True)
class Subject:
    """A network, the images it is scored on, and what of the scores is known already.

    A softmax that ends the network is left out: scores are of its logits.

    `images` are the network's inputs. `memory` keeps results for the caller, under names that
    tell networks, images, labels and machines' arithmetic apart.
    """

    network: Scored
    images: Num[Any, "B ..."]
    labels: Int[Any, "B"]
    memory: MutableMapping[bytes, bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", before_softmax(self.network))

    def key(self, name: str) -> bytes:
        """What a result is remembered by."""
        return f"importance {name} ".encode() + self._digest

    @cached_property
    def _digest(self) -> bytes:
        return digest(self.network.program, self.network, self.images, self.labels)

    def first(self, count: int) -> "Subject":
        """The same on the first `count` images."""
        return Subject(self.network, self.images[:count], self.labels[:count], self.memory)

    def batches(self, size: int = 0) -> list[Batch]:
        """All images in batches of one size, the last one filled up with its last image."""
        size = min(size or images_at_once(self.network.program), len(self.images))
        images, labels = np.asarray(self.images), np.asarray(self.labels, np.int32)
        places = np.arange(-(-len(images) // size) * size)
        share = (places < len(images)).astype(np.float32)
        places = np.minimum(places, len(images) - 1)
        cuts = [slice(start, start + size) for start in range(0, len(places), size)]
        return [Batch(images[places[cut]], labels[places[cut]], share[cut]) for cut in cuts]

    @cached_property
    def right(self) -> float:
        """Accuracy of the whole network; raises `InputError` where it gives NaN or infinity."""
        (program,) = compiler.compile_all([lower(_logits, self.network, self.batches()[0].images)])
        found = []
        for batch in self.batches():
            (logits,) = program(self.network, batch.images)
            found.append(np.asarray(logits)[: batch.count])
        logits = np.concatenate(found)
        if not np.isfinite(logits).all():
            raise InputError("the network: its logits hold NaN or infinity on these images")
        return float(np.mean(logits.argmax(axis=1) == np.asarray(self.labels)))


def clean_values(network: Scored, images: Array) -> dict[Value, Array]:
    """`ablation.clean` of a batch."""
    return jax.vmap(lambda image: ablation.clean(network, image))(images)


def _logits(network: Scored, images: Array) -> Array:
    def one(image: Array) -> Array:
        return ablation.logits_of(network.program, ablation.clean(network, image))

    return jax.vmap(one)(images)


def lower(function: Callable[..., Any], *arguments: Any) -> Any:
    """Lower a function of pytrees as one of their bare arrays, as `compiler.Compiled` calls it."""
    trees = [jax.tree.flatten(argument) for argument in arguments]

    def bare(*leaves: tuple[Array, ...]) -> tuple[Array, ...]:
        given = [
            jax.tree.unflatten(tree, own) for own, (_, tree) in zip(leaves, trees, strict=True)
        ]
        return tuple(jax.tree.leaves(function(*given)))

    # Arguments that nobody reads stay: without them, programs that read others look alike.
    return jax.jit(bare, keep_unused=True).lower(*(tuple(leaves) for leaves, _ in trees))


def on_all_cores(
    work: Callable[[Batch], Any], batches: Sequence[Batch], steps: Sequence[int], advance: Advance
) -> list[Any]:
    """What `work` makes of every batch, in order."""
    found = []
    with ThreadPoolExecutor(compiler.workers()) as pool:
        try:
            for made, step in zip(pool.map(work, batches), steps, strict=True):
                found.append(made)
                advance(step)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def remembered(
    memory: MutableMapping[bytes, bytes],
    key: bytes,
    make: Callable[[], Vectors],
    advance: Advance,
    steps: int,
) -> Vectors:
    """Named vectors of float64 from memory, else made and put there."""
    if (known := memory.get(key)) is None:
        vectors = make()
        memory[key] = b"".join(_packed(vectors))
        return vectors
    advance(steps)
    return dict(_unpacked(known))


def _packed(vectors: Vectors) -> Iterator[bytes]:
    for name, vector in vectors.items():
        head = np.array([len(name.encode()), len(vector)], np.int64)
        yield head.tobytes() + name.encode() + np.asarray(vector, np.float64).tobytes()


def _unpacked(known: bytes) -> Iterator[tuple[str, Float[np.ndarray, "C"]]]:
    place = 0
    while place < len(known):
        letters, count = np.frombuffer(known, np.int64, 2, place)
        place += 16
        name = known[place : place + letters].decode()
        place += int(letters)
        yield name, np.frombuffer(known, np.float64, count, place).copy()
        place += 8 * int(count)
