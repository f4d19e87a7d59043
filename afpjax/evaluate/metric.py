"""What is kept of the logits that a faulty network gives: right or wrong, or how it failed.

What is not finite has no class, so it is wrong; whether a class changed, the user says
(`NOT_FINITE`).
"""

import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

# The flags of `OUTCOME`, after Li et al. (SC 2017); what is not finite is seen, so not silent.
RIGHT_BIT, CHANGED, SDC1, SDC5, SDC10, SDC20, NON_FINITE = (1 << n for n in range(7))
#: What becomes of an image whose logits are not finite: it is seen, or has `argmax`'s class.
NOT_FINITE = ("detected", "argmax")
CLASS_SHIFT = 8  # the class that was said stands above the flags
ROUNDING = 2.0**-18  # of the largest logit: what two orders of summation may differ by
LARGEST = 0.6931471805599453  # ln 2, the divergence of distributions that share no class


class Targets(NamedTuple):
    """What logits are held against."""

    labels: Int[Any, "B"]  # -1: padding
    reference: Float[Any, "B classes"] | None  # fault-free logits


class Metric(NamedTuple):
    """One outcome for each image from its logits, and how a trial's outcomes are stored."""

    of: Callable[[Array, Targets], Array]  # (logits [B, classes], ...) -> [B] or [B, ...]
    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[bytes, int], np.ndarray]  # (stored, images)
    compares: bool  # with the fault-free logits
    exact: bool = False  # to the bit: only programs of one shape are then compared
    tag: str = ""  # tells its outcomes from another metric's, where they are kept together


def _right(logits: Float[Array, "B classes"], targets: Targets) -> Bool[Array, "B"]:
    """Top-1 agreement; logits that are not finite are never right."""
    return (logits.argmax(axis=1) == targets.labels) & jnp.isfinite(logits).all(axis=1)


def _outcome(
    logits: Float[Array, "B classes"], targets: Targets, *, classed: bool, exact: bool
) -> Int[Array, "B"]:
    """Flags, and the class that was said, in one int32.

    Against the fault-free logits: `CHANGED`, any logit beyond rounding (any bit of one, if
    `exact`); `SDC1`, another class; `SDC5`, the fault-free class is not among the five highest (of
    four classes or more it always is among five of five); `SDC10` and `SDC20`, the probability of
    the fault-free class is off by more than 10 and 20 % of itself.

    Logits that are not finite are seen to be wrong, and no SDC. If `classed`, nobody looks: they
    say the class that `argmax` makes of them, where NaN is above all numbers.
    """
    clean = targets.reference
    assert clean is not None, "outcomes are held against the fault-free logits"
    finite = jnp.isfinite(logits).all(axis=1)
    moved = (logits != clean).any(axis=1)
    if classed:  # NaN ranks with infinity, the probabilities are none
        taken, said = jnp.ones_like(finite), logits.argmax(axis=1)
        logits = jnp.where(jnp.isnan(logits), jnp.inf, logits)
    else:
        taken, logits = finite, jnp.where(finite[:, None], logits, 0.0)
        said = logits.argmax(axis=1)
    top = clean.argmax(axis=1)
    own = jnp.take_along_axis(logits, top[:, None], axis=1)
    if not exact:
        moved = jnp.abs(logits - clean).max(axis=1) > ROUNDING * jnp.abs(clean).max(axis=1)
    before, after = (_probability(each, top) for each in (clean, logits))
    off = jnp.where(finite, jnp.abs(after - before) / before, jnp.inf)
    ahead = (logits > own).sum(axis=1)
    flags = [
        (RIGHT_BIT, taken & (said == targets.labels)),
        (CHANGED, moved | ~finite),
        (SDC1, taken & (said != top)),
        (SDC5, taken & (ahead >= 5)),
        (SDC10, taken & (off > 0.10)),
        (SDC20, taken & (off > 0.20)),
        (NON_FINITE, ~taken),
    ]
    word = said.astype(jnp.int32) << jnp.int32(CLASS_SHIFT)
    for bit, holds in flags:
        word = word | jnp.where(holds, jnp.int32(bit), jnp.int32(0))
    return word


def _divergence(logits: Float[Array, "B classes"], targets: Targets) -> Float[Array, "B 2"]:
    """How far the answer moved from the fault-free one (`jensen_shannon`), and 1 where it is right.

    Of logits that are not finite nothing is left: they are as far off as can be, and not right.
    """
    clean = targets.reference
    assert clean is not None, "divergences are from the fault-free logits"
    moved = jax.vmap(jensen_shannon)(clean, logits)
    far = jnp.where(jnp.isfinite(logits).all(axis=1), moved, LARGEST)
    return jnp.stack([far, _right(logits, targets).astype(jnp.float32)], axis=1)


def jensen_shannon(
    logits: Float[Array, "classes"], others: Float[Array, "classes"]
) -> Float[Array, ""]:
    """Jensen-Shannon divergence of softmax(logits) and softmax(others), in nats: 0 to ln 2.

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
    return jnp.sum(mean * jnp.where(one_sided, LARGEST, _divergence_term(half / 2)))


def _divergence_term(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """t · tanh t - ln cosh t, without overflow for large |t| and without cancellation for small."""
    small = jnp.abs(t) < 1
    near, far = jnp.where(small, t, 0), jnp.where(small, 1, jnp.abs(t))
    shrunk = jnp.exp(-2 * far)
    beyond = LARGEST - jnp.log1p(shrunk) - 2 * far * shrunk / (1 + shrunk)
    return jnp.where(small, near * jnp.tanh(near) - jnp.log1p(jnp.sinh(near) ** 2) / 2, beyond)


def _probability(logits: Array, of: Array) -> Array:
    return jnp.take_along_axis(jax.nn.softmax(logits, axis=1), of[:, None], axis=1)[:, 0]


def _bits(stored: bytes, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(stored, np.uint8), count=count).astype(bool)


def _compressed(outcomes: Shaped[np.ndarray, "..."]) -> bytes:
    return zlib.compress(outcomes.tobytes(), 1)


def _bytes(outcomes: Float[np.ndarray, "B n"]) -> bytes:
    return outcomes.tobytes()


def _stored(dtype: Any) -> Callable[[bytes, int], np.ndarray]:
    def read(stored: bytes, count: int) -> np.ndarray:
        return np.frombuffer(zlib.decompress(stored), dtype).reshape(count, -1).squeeze(axis=1)

    return read


def _numbers(stored: bytes, count: int) -> np.ndarray:
    return np.frombuffer(stored, np.float32).reshape(count, -1)


#: Right or wrong, bool [B].
RIGHT = Metric(_right, lambda right: np.packbits(right).tobytes(), _bits, False)
#: The logits themselves, float32 [B, classes].
LOGITS = Metric(lambda logits, targets: logits, _bytes, _numbers, False, tag=" logits")
#: How far the answer moved, in nats, and whether it is right (1 or 0), float32 [B, 2].
DIVERGENCE = Metric(_divergence, _bytes, _numbers, True, tag=" divergence")


LOSS_STEPS = 64  # of one nat: rounding of logits seldom moves a loss to another step
MOST_LOSS = 16.0  # nats; what is not finite loses as much


def _right_and_loss(logits: Float[Array, "B classes"], targets: Targets) -> Int[Array, "B"]:
    """Whether the label is said, in the lowest bit, and above it the log loss in steps, int32."""
    right, finite = _right(logits, targets), jnp.isfinite(logits).all(axis=1)
    labels = jnp.maximum(targets.labels, 0)  # padding has none
    safe = jnp.where(finite[:, None], logits, jnp.zeros((), logits.dtype))
    own = jnp.take_along_axis(jax.nn.log_softmax(safe, axis=1), labels[:, None], axis=1)[:, 0]
    loss = jnp.where(finite, jnp.clip(-own, 0.0, MOST_LOSS), MOST_LOSS)
    steps = jnp.round(loss * LOSS_STEPS).astype(jnp.int32)
    return (steps << jnp.int32(1)) | right.astype(jnp.int32)


def right_and_loss(
    outcomes: Int[np.ndarray, "*any"],
) -> tuple[Bool[np.ndarray, "*any"], Float[np.ndarray, "*any"]]:
    """What outcomes of `LOSS` say: right or wrong, and the log loss in nats."""
    return (outcomes & 1).astype(bool), (outcomes >> 1) / LOSS_STEPS


#: Right or wrong and the log loss, which tells more where few images or draws are behind it.
LOSS = Metric(_right_and_loss, _compressed, _stored(np.int32), False, tag=" loss")


@lru_cache
def outcomes(not_finite: str = "detected", *, exact: bool = False) -> Metric:
    """Flags and class, int32 [B]; `not_finite` is one of `NOT_FINITE`, `exact` `Metric`'s."""
    of = partial(_outcome, classed=not_finite == "argmax", exact=exact)
    tag = f" outcome {not_finite}{' exact' * exact}"
    return Metric(of, _compressed, _stored(np.int32), True, exact, tag)


#: Where what is not finite is seen, and rounding is no change.
OUTCOME = outcomes()
