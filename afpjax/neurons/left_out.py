"""Neurons left out for real, one at a time: exact divergences, and the accuracy that is lost.

A batch of images runs once without loss; then a layer's neurons are left out, several in a call,
and what depends on the layer runs again. There is one program for each layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from afpjax.network import compiler
from afpjax.network.program import Value
from afpjax.neurons import ablation
from afpjax.neurons.ablation import Run, Scored
from afpjax.neurons.divergence import LARGEST, jensen_shannon
from afpjax.neurons.halvings import block_means
from afpjax.neurons.importance import at_once
from afpjax.neurons.subject import (
    Advance,
    Batch,
    Subject,
    Vectors,
    clean_values,
    lower,
    on_all_cores,
    remembered,
)


class Lost(NamedTuple):
    """What leaving neurons out, one at a time, does: means over images."""

    divergence: Float[np.ndarray, "N"]  # nats
    drop: Float[np.ndarray, "N"]  # of accuracy, a fraction of 1
    blocks: Float[np.ndarray, "G N"]  # divergence, means over `halvings.blocks`


def left_out(
    subject: Subject,
    wanted: Mapping[int, Int[np.ndarray, "N"]],
    advance: Advance = lambda passes: None,
) -> dict[int, Lost]:
    """What leaving out each of some neurons of some layers does, exactly, by layer.

    One step of progress for each neuron and image. A layer that is done is kept.
    """
    count = len(subject.images)
    keys = {
        n: subject.key(f"left out {n} {count} {crc32(of.tobytes())}") for n, of in wanted.items()
    }
    missing = [layer for layer in wanted if keys[layer] not in subject.memory]
    programs = _Programs.of(subject, {n: wanted[n] for n in missing}) if missing else None
    found = {}
    for layer, neurons in wanted.items():

        def make(layer: int = layer, neurons: Any = neurons) -> Vectors:
            assert programs is not None, "what is not known has its programs"
            return programs.run(subject, layer, neurons, advance)

        steps = len(neurons) * count
        sums = remembered(subject.memory, keys[layer], make, advance, steps)
        by_block = sums["blocks"].reshape(-1, len(neurons))
        found[layer] = Lost(sums["divergence"], subject.right - sums["right"], by_block)
    return found


@dataclass(frozen=True)
class _Programs:
    """A clean run of a batch, and for each layer one that leaves some of its neurons out."""

    clean: compiler.Compiled
    values: Sequence[Value]  # what a clean run gives, in order
    without: Mapping[Run, compiler.Compiled]
    sizes: Mapping[Run, int]  # neurons of a call

    @classmethod
    def of(cls, subject: Subject, wanted: Mapping[int, Int[np.ndarray, "_"]]) -> "_Programs":
        network, batch = subject.network, subject.batches()[0]
        kept = jax.eval_shape(clean_values, network, batch.images)
        lowered, sizes = [lower(clean_values, network, batch.images)], {}
        for run in ablation.runs(network.program):
            if most := max((len(wanted[layer]) for layer in run if layer in wanted), default=0):
                sizes[run] = _size(network, run, most)
                needed = _needed(network, run, kept)
                neurons = jax.ShapeDtypeStruct((sizes[run], 2), np.int32)
                lowered.append(lower(_without(run), network, needed, batch.labels, neurons))
        first, *rest = compiler.compile_all(lowered)
        return cls(first, sorted(kept), dict(zip(sizes, rest, strict=True)), sizes)

    def run(
        self, subject: Subject, layer: int, neurons: Int[np.ndarray, "N"], advance: Advance
    ) -> Vectors:
        network = subject.network
        (run,) = (run for run in self.sizes if layer in run)
        size = self.sizes[run]
        pairs = np.stack([np.full(len(neurons), layer), neurons], axis=1).astype(np.int32)
        pairs = np.pad(pairs, [(0, -len(pairs) % size), (0, 0)], mode="edge")
        several = [pairs[start : start + size] for start in range(0, len(pairs), size)]

        def work(batch: Batch) -> Any:
            made = self.clean(network, batch.images)
            kept = _needed(network, run, dict(zip(self.values, made, strict=True)))
            parts = [self.without[run](network, kept, batch.labels, each) for each in several]
            return [
                np.concatenate([np.asarray(each, np.float64) for each in both])[:, : batch.count]
                for both in zip(*parts, strict=True)
            ]

        batches = subject.batches()
        steps = [len(neurons) * batch.count for batch in batches]
        found = on_all_cores(work, batches, steps, advance)
        moved, right = (
            np.concatenate(each, axis=1)[: len(neurons)] for each in zip(*found, strict=True)
        )
        return {
            "divergence": moved.mean(axis=1),
            "right": right.mean(axis=1),
            "blocks": block_means(moved).ravel(),
        }


def _needed(network: Scored, run: Run, kept: Mapping[Value, Any]) -> dict[Value, Any]:
    return {value: kept[value] for value in ablation.read_again(network.program, run)}


def _size(network: Scored, run: Run, count: int) -> int:
    """Neurons of one call: of `count` of a layer as many as go at once, in equal calls."""
    calls = -(-count // at_once(network.program, run, count))
    return -(-count // calls)


def _without(run: Run) -> Callable[..., Any]:
    """(network, kept [B], labels [B], neurons [N 2]) -> divergences [N B], right or wrong [N B].

    Where a neuron's absence makes logits NaN or infinite, nothing is left of the answer: the
    divergence is the largest, and the image is not right.
    """

    def one(network: Scored, kept: Any, label: Array, neuron: Array) -> tuple[Array, Array]:
        logits = ablation.logits_of(network.program, kept)
        others = ablation.without(network, kept, run, neuron)
        sound = jnp.isfinite(others).all()
        far = jnp.where(sound, jensen_shannon(logits, others), LARGEST)
        return far, sound & (others.argmax() == label)

    images = jax.vmap(one, in_axes=(None, 0, 0, None))
    return jax.vmap(images, in_axes=(None, None, None, 0))
