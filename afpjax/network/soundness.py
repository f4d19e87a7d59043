"""Whether a network's accuracy means anything without faults: chance, and the number format.

Both look at the fault-free network on a few hundred images, and say what they find as notes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import stats

from afpjax.inputs.notes import Note
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import Network, affine, execute
from afpjax.network.program import LayerCall, LayerParameters
from afpjax.network.quantized import Quantized, quantize, run_clean
from afpjax.network.softmax import before_softmax

IMAGES = 256  # that are looked at, fewer where a network is large
WORK = 2e11  # multiply-accumulates of one pass over them
BATCH = 32
SURE = 0.999  # that a network which tells classes apart is not said to be guessing
MARGIN = 0.15
POINTS = 0.02  # of accuracy that a format may cost
FEWEST_LOST = 3  # images, so that one unlucky one says nothing
SATURATED = 0.001  # of a layer's values

Inputs = Float[Any, "B ..."]
Labels = Int[np.ndarray, " B"]
_LIKELY = (
    "Likely causes: labels counted from another number or in another order, images scaled "
    "otherwise than in training (data.mean, data.std), axes or channels in another order (NCHW), "
    "weights that were never trained."
)
#: Other readings of the same images, by what would have been wrong with them.
Readings = Mapping[str, Callable[[], Inputs]]


class Fit(NamedTuple):
    """How a layer's values fit a format."""

    inputs: float  # share that saturates
    weights: float
    largest: float  # magnitude of any of them


class Answers(NamedTuple):
    """The classes that the fault-free network predicts, and the right ones."""

    in_float: Int[np.ndarray, " B"]
    in_format: Int[np.ndarray, " B"]
    labels: Labels


def looked_at(quantized: Quantized | Network, count: int) -> int:
    """How many of so many images are looked at."""
    macs = max(1, sum(layer.macs for layer in quantized.graph.layers))
    return min(count, IMAGES, max(BATCH, int(WORK // macs)))


def notes(
    quantized: Quantized,
    inputs: Inputs,
    labels: Labels,
    *,
    calibration: Callable[[], Inputs] | None = None,
    readings: Readings | None = None,
) -> list[Note]:
    """What has to be known of a network on these inputs, of which the first few are looked at.

    `calibration` are images for the scales of formats that are tried, else the inputs.
    """
    if quantized.encoded:  # its kernels are codes: there is no float network to compare with
        return []
    quantized = before_softmax(quantized)
    count = looked_at(quantized, len(inputs))
    seen, labels = jnp.asarray(inputs[:count]), np.asarray(labels[:count])
    network = Network(quantized.program, quantized.parameters)
    in_float, fits = _in_float(network, quantized, seen)
    answers = Answers(in_float, _predicted(run_clean, quantized, seen), labels)
    best = max(answers[:2], key=lambda predicted: (predicted == labels).sum())
    both = (
        no_better_than_chance(network, best, labels, readings or {}),
        format_decides(network, quantized.format, fits, seen, answers, calibration),
    )
    return [note for note in both if note is not None]


def chance(
    network: Network, inputs: Inputs, labels: Labels, *, readings: Readings | None = None
) -> list[Note]:
    """What `notes` says of a network that nothing quantises: whether it does but guess."""
    network = before_softmax(network)
    count = looked_at(network, len(inputs))
    predicted = _predicted(Network.__call__, network, jnp.asarray(inputs[:count]))
    note = no_better_than_chance(network, predicted, np.asarray(labels[:count]), readings or {})
    return [] if note is None else [note]


def is_guessing(right: int, count: int, guess: float) -> bool:
    """Whether `right` of `count` is what guessing gives, and enough to say so.

    `guess` is what a constant answer gets. Nothing is said unless it could not be told from
    guessing (binomial, 5 %) and a network that is clearly better, by a share of what guessing
    leaves (`guess` or `MARGIN`, whichever is more), would have got more with a probability of
    `SURE` (Clopper and Pearson's bound): a few unlucky images are never enough.
    """
    if stats.binom.sf(right - 1, count, guess) < 0.05:
        return False
    most = 1.0 if right == count else float(stats.beta.ppf(SURE, right + 1, count - right))
    return most < guess + (1 - guess) * max(MARGIN, guess)


def guess_of(labels: Labels, classes: int) -> float:
    """What a constant answer gets at best."""
    return max(1 / classes, float(np.bincount(labels).max() / len(labels)))


def no_better_than_chance(
    network: Network, predicted: Int[np.ndarray, " B"], labels: Labels, readings: Readings
) -> Note | None:
    """A note where the answers are no better than guessing, with what would explain it."""
    count, right = len(labels), int((predicted == labels).sum())
    guess = guess_of(labels, network.program.classes)
    if not is_guessing(right, count, guess):
        return None
    causes = "; ".join(_causes(network, predicted, readings, labels, guess))
    text = (
        f"Without faults the network gets {_percent(right / count)} of {count} images right, no "
        f"better than guessing ({_percent(guess)}): accuracies under faults then say nothing. "
        + (f"Tried: {causes}." if causes else _LIKELY)
    )
    return Note("chance", text, {"accuracy": right / count, "guess": guess, "images": count})


def _causes(
    network: Network, predicted: np.ndarray, readings: Readings, labels: Labels, guess: float
) -> Iterator[str]:
    """What explains answers that are no better than guessing."""
    count = len(labels)
    for shift in (1, -1):
        right = int((predicted == labels + shift).sum())
        if _clearly(right, count, guess):
            yield (
                f"the answers are the labels {shift:+d} for {_percent(right / count)} of the "
                "images, so labels are counted from another number"
            )
    for what, inputs in readings.items():
        answers = _predicted(Network.__call__, network, jnp.asarray(inputs()[:count]))
        right = int((answers == labels).sum())
        if _clearly(right, count, guess):
            yield f"with {what} it gets {_percent(right / count)}"


def _clearly(right: int, count: int, guess: float) -> bool:
    """Better than guessing beyond doubt, and by a margin."""
    least = 0.0 if right == 0 else float(stats.beta.ppf(1 - SURE, right, count - right + 1))
    return least > guess + MARGIN * (1 - guess)


def format_decides(
    network: Network,
    fmt: QFormat,
    fits: Mapping[str, Fit],
    inputs: Array,
    answers: Answers,
    calibration: Callable[[], Inputs] | None,
) -> Note | None:
    """A note where quantising alone costs accuracy, or a layer's values saturate."""
    labels, count = answers.labels, len(answers.labels)
    in_float, in_format = (int((answer == labels).sum()) for answer in answers[:2])
    lost = in_float - in_format
    saturated = {
        name: round(share, 6)
        for name, fit in fits.items()
        if (share := max(fit.inputs, fit.weights)) > SATURATED
    }
    if not saturated and (lost <= POINTS * count or lost < FEWEST_LOST):
        return None
    facts = {
        "float_accuracy": in_float / count,
        "accuracy": in_format / count,
        "images": count,
        "saturated": saturated,
    }
    mend = (
        "No other format that was tried (fraction bits by range, scales per tensor and channel, "
        "16 bits) loses less than 2 points."
    )
    for other in _others(fmt, fits):
        images = inputs if calibration is None else jnp.asarray(calibration())
        tried = quantize(network, other, images if other.needs_calibration else None)
        right = int((_predicted(run_clean, tried, inputs) == labels).sum())
        if in_float - right <= POINTS * count:
            mend = (
                f"With {_settings(other)} {_percent(right / count)} are (measured on these images)."
            )
            facts |= {"instead": _settings(other), "accuracy_instead": right / count}
            break
    text = (
        f"The number format decides: without faults {_percent(in_format / count)} of {count} "
        f"images are right with {_settings(fmt)}, {_percent(in_float / count)} in floating "
        f"point{_saturating(saturated)}. {mend}"
    )
    return Note("format", text, facts)


def _saturating(shares: Mapping[str, float]) -> str:
    if not shares:
        return "; no layer's values saturate, its steps are too coarse"
    worst = sorted(shares, key=lambda name: -shares[name])
    named = ", ".join(f"{name} ({_percent(shares[name])})" for name in worst[:4])
    more = f" and {len(worst) - 4} more layers" if len(worst) > 4 else ""
    return f"; values saturate in {named}{more}"


def _settings(fmt: QFormat) -> str:
    if fmt.kind != "fixed":
        return f"format.kind = {fmt.kind}"
    if fmt.scale == "global":
        return f"format.bits = {fmt.bits}, format.frac = {fmt.frac}"
    return f"format.bits = {fmt.bits}, format.scale = {fmt.scale}"


def _others(fmt: QFormat, fits: Mapping[str, Fit]) -> Iterator[QFormat]:
    """Other formats, the cheapest first: fraction bits by range, scales, then more bits."""
    largest = max(max(fit.largest for fit in fits.values()), 2.0**-15)
    bits = fmt.bits if fmt.kind == "fixed" else 16
    whole = int(np.floor(np.log2(largest))) + 1
    for width in dict.fromkeys((bits, 16)):
        frac = max(-16, min(width - 1, width - 1 - whole))
        choices = [QFormat(width, frac)] + [QFormat(width, scale=s) for s in ("tensor", "channel")]
        yield from (choice for choice in choices if choice != fmt)


def _in_float(
    network: Network, quantized: Quantized, inputs: Array
) -> tuple[Int[np.ndarray, " B"], dict[str, Fit]]:
    """Answers in floating point, and how what layers read fits the format."""
    fmt = quantized.format
    fixed = fmt.kind == "fixed"
    limits = {
        name: jnp.float32(fmt.largest if fixed else np.inf) * step.inputs
        for name, step in quantized.steps.items()
    }

    def one(network: Network, image: Array) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        seen: dict[str, tuple[Array, Array]] = {}

        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            size, name = jnp.abs(value).astype(jnp.float32), call.layer.name
            beyond = size > limits[name] + quantized.steps[name].inputs / 2
            seen[name] = beyond.mean(dtype=jnp.float32), size.max()
            return affine(call, value, parameters)

        return execute(network.program, network.parameters, image, hook), seen

    run = jax.jit(jax.vmap(one, in_axes=(None, 0)), compiler_options=compiler.options())
    parts = [run(network, part) for part in _batches(inputs)]
    predicted = np.concatenate([np.asarray(logits).argmax(axis=1) for logits, _ in parts])
    fits = {}
    for call in network.program.calls:
        name = call.layer.name
        shares, sizes = (
            np.concatenate([np.asarray(seen[name][place]) for _, seen in parts]) for place in (0, 1)
        )
        kernel = np.abs(np.asarray(network.parameters.layers[name].kernel))
        step = np.asarray(call.per_kernel(quantized.steps[name].weights))
        over = (kernel > (fmt.largest + 0.5) * step).mean() if fixed else 0.0
        largest = max(float(sizes.max()), float(kernel.max()))
        fits[name] = Fit(float(shares.mean()), float(over), largest)
    return predicted, fits


def _predicted(run: Callable[[Any, Array], Array], network: Any, inputs: Array) -> np.ndarray:
    """The classes that a network predicts."""
    parts = [np.asarray(run(network, part)) for part in _batches(inputs)]
    return np.concatenate(parts).argmax(axis=1)


def _batches(inputs: Array) -> Sequence[Array]:
    return [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
