"""What training minimises and how it steps: smoothed cross-entropy, AdamW, a cosine schedule."""

from typing import Any

import jax
import optax
from jaxtyping import Array, Float, Int32

_WARMUP = 0.1  # share of the steps in which the step size climbs
_SMOOTHING = 0.1  # share of each label that is spread over all classes


def loss_of(logits: Float[Array, "B classes"], labels: Int32[Array, " B"]) -> Float[Array, ""]:
    """Mean cross-entropy with smoothed labels (Szegedy et al. 2016, arXiv 1512.00567)."""
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), _SMOOTHING)
    return optax.softmax_cross_entropy(logits, wanted).mean()


def climbing(peak: float, steps: int) -> optax.Schedule:
    """A step size that climbs to `peak` in the first tenth, then falls to zero along a cosine."""
    climb = min(max(1, round(_WARMUP * steps)), steps - 1)  # a single step is taken at the peak
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=climb, decay_steps=steps)


def optimiser(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101); biases and scales, which have one axis, do not decay."""

    def kernels(weights: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)

    return optax.adamw(schedule, weight_decay=weight_decay, mask=kernels)


def stepped(
    rule: optax.GradientTransformation, slopes: Any, memory: optax.OptState, weights: Any
) -> tuple[Any, optax.OptState]:
    """Weights and optimiser state after one step down the slopes."""
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by its step count
        updates, memory = rule.update(slopes, memory, weights)
    return optax.apply_updates(weights, updates), memory
