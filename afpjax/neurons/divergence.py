"""Jensen-Shannon divergence of two output distributions, exact down to the smallest change."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST = 0.6931471805599453  # ln 2, of distributions that share no class


def jensen_shannon(
    logits: Float[Array, "classes"], others: Float[Array, "classes"]
) -> Float[Array, ""]:
    """Divergence of softmax(logits) and softmax(others), in nats: 0 to ln 2.

    With p, q the distributions, m = (p + q) / 2 and t = (ln q - ln p) / 2,

        JSD = (KL(p | m) + KL(q | m)) / 2 = Σ m · (t · tanh t - ln cosh t),

    a sum of terms that are never negative. The differences of nearly equal numbers in the usual
    form are noise wherever removing a neuron changes little. Differentiable everywhere. Where a
    logit is -inf in both (a class ruled out) its term is 0.
    """
    ours, theirs = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    possible = jnp.isfinite(ours) & jnp.isfinite(theirs)
    half = jnp.where(possible, theirs, 0) - jnp.where(possible, ours, 0)
    mean = (jnp.exp(ours) + jnp.exp(theirs)) / 2
    # A class that only one of them rules out has t = ±inf, and that term's limit is m · ln 2.
    one_sided = jnp.isfinite(ours) ^ jnp.isfinite(theirs)
    return jnp.sum(mean * jnp.where(one_sided, LARGEST, _term(half / 2)))


def _term(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """t · tanh t - ln cosh t, without overflow for large |t| and without cancellation for small."""
    small = jnp.abs(t) < 1
    near, far = jnp.where(small, t, 0), jnp.where(small, 1, jnp.abs(t))
    shrunk = jnp.exp(-2 * far)
    beyond = LARGEST - jnp.log1p(shrunk) - 2 * far * shrunk / (1 + shrunk)
    return jnp.where(small, near * jnp.tanh(near) - jnp.log1p(jnp.sinh(near) ** 2) / 2, beyond)
