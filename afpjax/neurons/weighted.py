"""RobustDiCE's thresholds for one weighted sum of what they cost, by evosax's CMA-ES.

Legend: N individuals, G genes (groups of layers), M objectives.
Hansen, "The CMA evolution strategy: a tutorial", 2016.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms.distribution_based.cma_es import CMA_ES
from jaxtyping import Float64, PRNGKeyArray

from afpjax.evaluate.evaluator import Progress
from afpjax.inputs.errors import InputError
from afpjax.neurons.cluster_thresholds import Trade

_OUTSIDE = 1e-3  # weight of the square of how far genes leave [0, 1]: enough to bring them back


@dataclass(frozen=True, eq=False)
class BestThresholds:
    """The thresholds with the least weighted sum of all that were tried."""

    thresholds: Float64[np.ndarray, "G"]
    objectives: Float64[np.ndarray, "M"]
    value: float
    start: float  # the value that the search began with
    evaluations: int  # rows: individuals times sets of failed devices
    history: tuple[float, ...]  # the least value after every generation


def weighted(
    key: PRNGKeyArray,
    trade: Trade,
    weights: Sequence[float | int] = (1.0, 0.5, 0.0, 0.0),
    *,
    rows: int,
    start: Sequence[float | int] | None = None,
    population: int = 0,
    progress: Progress = lambda rows: None,
) -> BestThresholds:
    """Thresholds of groups for weights of accuracy lost, memory, energy and time per image.

    Accuracy lost is in fractions of 1, the others are shares of full replication's. `start`: the
    thresholds to begin with, by default the middle of each ladder; `population`: 0 for CMA-ES's
    own size. Genes are places along `curve`, where equal steps save about equal memory; thresholds
    between its own are tried too. At most `rows` rows are evaluated; the result is a function of
    the key and the trade. Raises `InputError` for weights that are negative, not finite, all zero
    or of what is not measured, and for rows too few for a generation.
    """
    curve = trade.ladders.curve()
    full = trade.of_thresholds(np.zeros((1, len(curve))), progress)[0]
    scaled = _scaled(weights, full)
    first = np.array([0.5] * len(curve)) if start is None else _genes(start, curve)
    size = population or 4 + int(3 * np.log(len(curve)))
    left = rows // trade.rows_each - 2
    if left < size:
        raise InputError(
            f"distribute.search: {rows} rows; one generation of {size} and its start take "
            f"{(size + 2) * trade.rows_each}"
        )
    tried, costs, history = [_thresholds(first[None], curve)], [], []
    costs.append(trade.of_thresholds(tried[0], progress))

    def value(genes: Float64[np.ndarray, "N G"]) -> Float64[np.ndarray, "N"]:
        tried.append(_thresholds(genes, curve))
        costs.append(trade.of_thresholds(tried[-1], progress))
        outside = np.maximum(np.abs(genes - 0.5) - 0.5, 0)
        history.append(min(float((cost @ scaled).min()) for cost in costs))
        return costs[-1] @ scaled + _OUTSIDE * (outside**2).sum(axis=1)

    _evolve(key, first, size, left // size, value)
    thresholds, objectives = np.concatenate(tried), np.concatenate(costs)
    best = int((objectives @ scaled).argmin())
    spent = (len(thresholds) + 1) * trade.rows_each
    return BestThresholds(
        thresholds[best],
        objectives[best],
        float(objectives[best] @ scaled),
        float(objectives[0] @ scaled),
        spent,
        tuple(history),
    )


def _evolve(
    key: PRNGKeyArray,
    first: Float64[np.ndarray, "G"],
    size: int,
    generations: int,
    value: Callable[[Float64[np.ndarray, "N G"]], Float64[np.ndarray, "N"]],
) -> None:
    """CMA-ES around `first`, a quarter of the range wide, with a value that keeps what it saw."""
    # evosax mixes ranks and dtypes.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        algorithm = _algorithm(size, len(first))
        params = algorithm.default_params.replace(std_init=jnp.float32(0.25))
        state = algorithm.init(key, jnp.asarray(first, jnp.float32), params)
        for generation in range(generations):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, generation))
            genes, state = algorithm.ask(ask_key, state, params)
            fitness = jnp.asarray(value(np.asarray(genes, np.float64)), jnp.float32)
            state, _ = algorithm.tell(tell_key, genes, fitness, state, params)


@lru_cache(maxsize=8)
def _algorithm(population: int, genes: int) -> CMA_ES:
    """One instance for all searches of one size: an instance compiles once."""
    return CMA_ES(population, jnp.zeros(genes, jnp.float32))


def _scaled(
    weights: Sequence[float | int], full: Float64[np.ndarray, "M"]
) -> Float64[np.ndarray, "M"]:
    wanted = np.asarray(weights, np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.any():
        raise InputError(
            f"distribute.weights: {list(weights)}; give numbers from 0 up, one of them above 0"
        )
    if wanted[len(full) :].any() or len(wanted) < len(full):
        raise InputError(
            f"distribute.weights: {list(weights)} for {len(full)} objectives; give one weight for "
            "each, accuracy lost and memory first, 0 for what is not measured"
        )
    shares = np.concatenate([[1.0], full[1:]])
    return wanted[: len(full)] / shares


def _thresholds(
    genes: Float64[np.ndarray, "N G"], curve: list[Float64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "N G"]:
    """Places along the curves, from 0 to 1, as thresholds."""
    columns = [
        np.interp(column, np.linspace(0, 1, len(own)), own)
        for column, own in zip(genes.T, curve, strict=True)
    ]
    return np.stack(columns, axis=1)


def _genes(
    thresholds: Sequence[float | int], curve: list[Float64[np.ndarray, "_"]]
) -> Float64[np.ndarray, "G"]:
    pairs = zip(thresholds, curve, strict=True)
    return np.array([np.interp(t, own, np.linspace(0, 1, len(own))) for t, own in pairs])
