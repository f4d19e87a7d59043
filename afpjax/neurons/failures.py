"""Accuracy when devices are gone: which sets fail, what every set leaves, and what stands in.

Legend: F sets of failed devices, K fault draws, B images, D devices.
"""

from collections.abc import Sequence
from itertools import combinations, product
from math import comb, prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from afpjax.evaluate.evaluator import Evaluator, Progress
from afpjax.faults.model import FaultModel
from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import execute
from afpjax.network.program import LayerCall, LayerParameters
from afpjax.neurons.ablation import AnyNetwork, hook_of, images_at_once
from afpjax.neurons.placement import Placement
from afpjax.statistics.intervals import accuracy_interval, difference_interval
from afpjax.statistics.proportions import CONFIDENCE, interval

MOST = 4096  # sets up to which all of them are run
SUBSTITUTES = ("zero", "mean", "bias")

Devices = tuple[int, ...]
#: What a neuron gives, [C] for each layer.
NeuronValues = tuple[Float[np.ndarray, "_"], ...]


class Failures(NamedTuple):
    """Sets of devices that fail together, and how likely each of them is."""

    sets: tuple[Devices, ...]
    weights: Float[np.ndarray, "F"]  # sums to 1
    sampled: bool  # these are some of the sets, drawn at random


class Preserved(NamedTuple):
    """Accuracy, a fraction of 1: the mean over sets of failed devices, and the extreme sets."""

    accuracy: float
    interval: tuple[float, float]  # 95 %, over new images, and new sets where these are a sample
    worst: float
    worst_set: Devices
    best: float
    best_set: Devices


class Expected(NamedTuple):
    """Accuracy of a system whose devices fail by chance."""

    accuracy: float
    interval: tuple[float, float]
    deviation_run: float  # standard deviation, where devices are lost for a whole run of B images
    deviation_image: float  # and where each of the B images meets failures of its own
    quantiles: dict[str, float]  # of a run's accuracy: 5, 25, 50, 75 and 95 % of the runs are lower


def every(among: Sequence[int], lost: int, *, most: int = MOST, seed: int = 0) -> Failures:
    """Every set of `lost` of the devices `among`, equally likely; `most` of them where more.

    Raises `InputError` where not a single device would be left.
    """
    if not 0 <= lost <= len(among):
        raise InputError(f"distribute.lost: {lost} of {len(among)} devices; lose 0 to all of them")
    count = comb(len(among), lost)
    if count <= most:
        sets = tuple(combinations(sorted(among), lost))
        return Failures(sets, np.full(count, 1 / count), sampled=False)
    rng = np.random.default_rng([seed, len(among), lost])
    drawn = set[Devices]()
    while len(drawn) < most:
        drawn.add(tuple(sorted(rng.choice(among, lost, replace=False).tolist())))
    return Failures(tuple(sorted(drawn)), np.full(most, 1 / most), sampled=True)


def probable(probabilities: Sequence[float], *, most: int = MOST, seed: int = 0) -> Failures:
    """Every set of devices that can fail, with its probability; each fails by itself.

    `probabilities` is one number in [0, 1] for each device. Beyond `most` sets, as many are drawn,
    with repetition. Raises `InputError` for a number that is no probability.
    """
    chances = [float(chance) for chance in probabilities]
    for chance in chances:
        if not 0 <= chance <= 1:
            raise InputError(f"distribute.failure: {chance} is outside [0, 1]; it is a probability")
    unsure = sum(0 < chance < 1 for chance in chances)
    if 2**unsure > most:
        rng = np.random.default_rng([seed, len(chances)])
        gone = rng.random((most, len(chances))) < np.array(chances)
        sets = [tuple(np.flatnonzero(row).tolist()) for row in gone]
        return Failures(tuple(sets), np.full(most, 1 / most), sampled=True)
    ways = product(*([state for state in (0, 1) if p != 1 - state] for p in chances))
    weights, sets = [], []
    for way in ways:
        sets.append(tuple(device for device, gone in enumerate(way) if gone))
        weights.append(prod(p if gone else 1 - p for p, gone in zip(chances, way, strict=True)))
    return Failures(tuple(sets), np.array(weights), sampled=False)


def outcomes(
    evaluator: Evaluator,
    placements: Sequence[tuple[Placement, Failures]],
    faults: FaultModel | None = None,
    trials: Sequence[int] = (0,),
    *,
    order: Sequence[int] | None = None,
    progress: Progress = lambda rows: None,
) -> list[Bool[np.ndarray, "F K B"]]:
    """Whether each image is classified right under every set of every placement.

    All are handed to the evaluator together, which runs once what they have in common. `order`: the
    devices whose copies are preferred come first. Where no device is left there is no answer, and
    every image counts as wrong.
    """
    devices_by_set = [
        placement.answering(failed, order)
        for placement, failures in placements
        for failed in failures.sets
    ]
    right = evaluator.evaluate_placements(devices_by_set, faults, trials, progress)
    parts, start = [], 0
    for placement, failures in placements:
        part = right[start : start + len(failures.sets)].copy()
        start += len(failures.sets)
        part[[len(failed) == placement.devices for failed in failures.sets]] = False
        parts.append(part)
    return parts


def preserved(failures: Failures, right: Bool[np.ndarray, "F K B"]) -> Preserved:
    """What is left of the accuracy, from outcomes."""
    by_set = right.mean(axis=(1, 2))
    low, high = int(by_set.argmin()), int(by_set.argmax())
    mean = np.clip(failures.weights @ by_set, by_set[low], by_set[high])  # but for rounding, it is
    return Preserved(
        float(mean),
        _interval(failures, right),
        float(by_set[low]),
        failures.sets[low],
        float(by_set[high]),
        failures.sets[high],
    )


def difference(
    one: tuple[Failures, Bool[np.ndarray, "_ _ _"]],
    other: tuple[Failures, Bool[np.ndarray, "_ _ _"]],
) -> tuple[float, tuple[float, float]]:
    """How much more accuracy `one` keeps than `other` on the same images, and its 95 % interval.

    Paired image by image; where both met one sample of sets, over new sets too.
    """
    mine, others = (
        np.tensordot(failures.weights, right.mean(axis=1), axes=1)
        for failures, right in (one, other)
    )
    mean = float(mine.mean() - others.mean())
    if one[0].sampled and one[0].sets == other[0].sets:
        low, high = difference_interval(one[1].mean(axis=1), other[1].mean(axis=1))
    else:
        low, high = difference_interval(mine[None], others[None])
    return mean, (min(low, mean), max(high, mean))


def expected(failures: Failures, right: Bool[np.ndarray, "F K B"]) -> Expected:
    """The accuracy to be expected, and how it varies, from outcomes of probable sets."""
    weights, images = failures.weights, right.shape[2]
    runs = right.mean(axis=2)  # [F, K]
    mean = float(weights @ runs.mean(axis=1))
    spread = float(weights @ ((runs - mean) ** 2).mean(axis=1))
    of_image = np.tensordot(weights, right.mean(axis=1), axes=1)
    # Rounding may leave a little less than nothing, whose root would be a complex number.
    single = max(float((of_image * (1 - of_image)).sum()), 0.0) / images**2
    order = np.argsort(runs.ravel(), kind="stable")
    total = np.cumsum(np.repeat(weights / runs.shape[1], runs.shape[1])[order])
    ends = {
        f"{level:.0%}": float(
            runs.ravel()[order][min(np.searchsorted(total, level - 1e-12), runs.size - 1)]
        )
        for level in (0.05, 0.25, 0.5, 0.75, 0.95)
    }
    return Expected(mean, _interval(failures, right), spread**0.5, single**0.5, ends)


def _interval(failures: Failures, right: Bool[np.ndarray, "F K B"]) -> tuple[float, float]:
    """Over new images where the sets are all there are; over what was drawn besides."""
    sets, draws, images = right.shape
    if failures.sampled or draws > 1:
        of_draws = np.tensordot(failures.weights, right, axes=1)  # [K, B]: means over sets
        rows = right.reshape(sets * draws, images) if failures.sampled else of_draws
        return accuracy_interval(rows)
    of_image = np.tensordot(failures.weights, right[:, 0], axes=1)
    squares = (of_image**2).sum()
    low, high = interval(
        "wilson", of_image.sum(), np.int64(images), squares=squares, confidence=CONFIDENCE
    )
    return float(low), float(high)


# What stands in for a lost neuron, before the activation, after the folded bias and batch norm.


def substitutes(
    network: AnyNetwork, kind: str, images: Num[np.ndarray, "B ..."] | None = None
) -> NeuronValues:
    """What every layer's lost neurons give, float32 [C] each.

    "zero" is the paper's. "mean" is the mean over `images` (network inputs) and positions of what
    the neuron gives when nothing is lost. "bias" is the layer's folded bias, which is what a neuron
    gives whose inputs are all zero. Raises `InputError` for an unknown kind, and for "mean" without
    images.
    """
    layers = network.program.graph.layers
    if kind == "zero":
        return tuple(np.zeros(layer.neurons, np.float32) for layer in layers)
    if kind == "bias":
        biases = [network.parameters.layers[layer.name].bias for layer in layers]
        return tuple(
            np.zeros(layer.neurons, np.float32)
            if bias is None
            else np.asarray(bias, np.float32).reshape(layer.neurons)
            for layer, bias in zip(layers, biases, strict=True)
        )
    if kind != "mean":
        raise InputError(
            f"distribute.substitute: {kind!r} is none of {', '.join(SUBSTITUTES)}; choose one"
        )
    if images is None or len(images) == 0:
        raise InputError("distribute.substitute: mean needs calibration images, and there are none")
    return _means(network, images)


def _means(network: AnyNetwork, images: Num[np.ndarray, "B ..."]) -> NeuronValues:
    """Sums of every batch are added in double precision, in the images' order."""
    names, size = network.program.graph.names, images_at_once(network.program)
    total = {name: np.zeros(()) for name in names}
    for start in range(0, len(images), size):
        part = jnp.asarray(images[start : start + size])
        for name, means in _means_of_batch(network, part).items():
            total[name] = total[name] + np.asarray(means, np.float64).sum(axis=0)
    return tuple((total[name] / len(images)).astype(np.float32) for name in names)


@jax.jit
def _means_of_batch(network: AnyNetwork, images: Array) -> dict[str, Float[Array, "B C"]]:
    def one(image: Array) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            outputs = hook_of(network)(call, value, parameters)
            others = [axis for axis in range(outputs.ndim) if axis not in call.output_axes]
            kept = sorted(call.output_axes)
            order = [kept.index(axis) for axis in call.output_axes]
            seen[call.layer.name] = outputs.mean(axis=others).transpose(order).reshape(-1)
            return outputs

        execute(network.program, network.parameters, image, hook)
        return seen

    return jax.vmap(one)(images)
