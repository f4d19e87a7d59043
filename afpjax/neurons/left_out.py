"""Neurons left out for real, one at a time: exact divergences, and the accuracy that is lost.

A batch of images runs once without loss; then a layer's neurons are left out, several in a call,
and what depends on the layer runs again. There is one program for each run of layers.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from afpjax.network import compiler
from afpjax.network.program import Value
from afpjax.neurons import ablation
from afpjax.neurons.ablation import LARGEST, AnyNetwork, LayerRun, at_once, jensen_shannon
from afpjax.neurons.scoring_data import (
    Advance,
    ScoringBatch,
    ScoringData,
    Vectors,
    clean_values,
    lower,
    on_all_cores,
)
from afpjax.neurons.stability import block_means


class LeftOut(NamedTuple):
    """What leaving neurons out, one at a time, does: means over images."""

    divergence: Float[np.ndarray, "N"]  # nats
    drop: Float[np.ndarray, "N"]  # of accuracy, a fraction of 1
    blocks: Float[np.ndarray, "G N"]  # divergence, means over `stability.blocks`


def left_out(
    data: ScoringData,
    wanted: Mapping[int, Int[np.ndarray, "N"]],
    advance: Advance = lambda passes: None,
) -> dict[int, LeftOut]:
    """What leaving out each of some neurons of some layers does, exactly, by layer.

    One step of progress for each neuron and image. A layer that is done is kept.
    """
    count = len(data.images)
    names = {n: f"left out {n} {count} {crc32(of.tobytes())}" for n, of in wanted.items()}
    missing = [layer for layer in wanted if data.key(names[layer]) not in data.memory]
    programs = _Programs(data, {n: wanted[n] for n in missing}) if missing else None
    results = {}
    for layer, neurons in wanted.items():

        def compute(layer: int = layer, neurons: Any = neurons) -> Vectors:
            assert programs is not None, "what is not known has its programs"
            return programs.run(layer, neurons, advance)

        sums = data.remembered(names[layer], compute, advance, len(neurons) * count)
        by_block = sums["blocks"].reshape(-1, len(neurons))
        results[layer] = LeftOut(sums["divergence"], data.right - sums["right"], by_block)
    return results


class _Programs:
    """A clean run of a batch, and for each run of layers one that leaves out some neurons."""

    def __init__(self, data: ScoringData, wanted: Mapping[int, Int[np.ndarray, "_"]]) -> None:
        network, batch = data.network, data.batches()[0]
        kept = jax.eval_shape(clean_values, network, batch.images)
        lowered, sizes = [lower(clean_values, network, batch.images)], {}
        for run in ablation.runs(network.program):
            if most := max((len(wanted[layer]) for layer in run if layer in wanted), default=0):
                calls = -(-most // at_once(network.program, run, most))
                sizes[run] = -(-most // calls)  # as many as go at once, in equal calls
                needed = _needed(network, run, kept)
                neurons = jax.ShapeDtypeStruct((sizes[run], 2), np.int32)
                lowered.append(lower(_without(run), network, needed, batch.labels, neurons))
        self._data, self._sizes = data, sizes
        self._values = sorted(kept)  # what a clean run gives, in order
        self._clean, *without = compiler.compile_all(lowered)
        self._without = dict(zip(sizes, without, strict=True))

    def run(self, layer: int, neurons: Int[np.ndarray, "N"], advance: Advance) -> Vectors:
        network = self._data.network
        (run,) = (run for run in self._sizes if layer in run)
        size = self._sizes[run]
        pairs = np.stack([np.full(len(neurons), layer), neurons], axis=1).astype(np.int32)
        pairs = np.pad(pairs, [(0, -len(pairs) % size), (0, 0)], mode="edge")
        calls = [pairs[start : start + size] for start in range(0, len(pairs), size)]

        def work(batch: ScoringBatch) -> Any:
            values = self._clean(network, batch.images)
            kept = _needed(network, run, dict(zip(self._values, values, strict=True)))
            parts = [self._without[run](network, kept, batch.labels, call) for call in calls]
            return [
                np.concatenate([np.asarray(part, np.float64) for part in both])[:, : batch.count]
                for both in zip(*parts, strict=True)
            ]

        batches = self._data.batches()
        steps = [len(neurons) * batch.count for batch in batches]
        results = on_all_cores(work, batches, steps, advance)
        moved, right = (
            np.concatenate(parts, axis=1)[: len(neurons)] for parts in zip(*results, strict=True)
        )
        return {
            "divergence": moved.mean(axis=1),
            "right": right.mean(axis=1),
            "blocks": block_means(moved).ravel(),
        }


def _needed(network: AnyNetwork, run: LayerRun, kept: Mapping[Value, Any]) -> dict[Value, Any]:
    return {value: kept[value] for value in ablation.read_again(network.program, run)}


def _without(run: LayerRun) -> Callable[..., Any]:
    """(network, kept [B], labels [B], neurons [N 2]) -> divergences [N B], right or wrong [N B].

    Where a neuron's absence makes logits NaN or infinite, nothing is left of the answer: the
    divergence is the largest, and the image is not right.
    """

    def one(network: AnyNetwork, kept: Any, label: Array, neuron: Array) -> tuple[Array, Array]:
        logits = ablation.logits_of(network.program, kept)
        others = ablation.without(network, kept, run, neuron)
        sound = jnp.isfinite(others).all()
        far = jnp.where(sound, jensen_shannon(logits, others), LARGEST)
        return far, sound & (others.argmax() == label)

    images = jax.vmap(one, in_axes=(None, 0, 0, None))
    return jax.vmap(images, in_axes=(None, None, None, 0))
