"""Genomes that have been evaluated: which of them are best, and which a front has room for.

Shape legend: N genomes, M objectives, G genes (integers).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from afpjax.inputs.errors import InputError
from afpjax.search.hypervolume import non_dominated
from afpjax.search.pareto import Fitness, crowding

_ROWS = 64  # a front is filled up to a multiple, as every number of rows compiles
_crowding = jax.jit(crowding)


class Evaluated(NamedTuple):
    """Genomes with their fitness."""

    genomes: Int[np.ndarray, "N G"]
    objectives: Float[np.ndarray, "N M"]
    violation: Float[np.ndarray, " N"]

    def at(self, places: Any) -> "Evaluated":
        return Evaluated(*(column[places] for column in self))


class Infeasible(InputError):
    """Every genome that was tried breaks a limit; `closest` is the one that breaks them least."""

    def __init__(self, closest: Int[np.ndarray, " G"], what: str = "no mapping") -> None:
        super().__init__(f"{what} keeps within the limits on memory, latency and energy")
        self.closest = closest


def best(found: Evaluated) -> Evaluated:
    """Feasible genomes that no other beats, each once, in lexicographic order."""
    found = found.at(found.violation <= 0)
    found = found.at(np.unique(found.genomes, axis=0, return_index=True)[1])
    return found.at(non_dominated(found.objectives))


def feasible(found: Evaluated) -> Evaluated:
    """`best`, which must not be empty."""
    if (found.violation > 0).all():
        raise Infeasible(found.genomes[found.violation.argmin()])
    return best(found)


def joined(wide: Evaluated, near: Evaluated, most: int | None = None) -> Evaluated:
    """The best of both, thinned to `most`: of those near, half or what the others leave room for.

    Thinned by crowding distance, so that the ends of both stay.
    """
    both = Evaluated(*map(np.concatenate, zip(near, wide, strict=True)))
    front = best(both)
    if most is None:
        return front
    known = {genome.tobytes() for genome in near.genomes}
    is_near = np.array([genome.tobytes() in known for genome in front.genomes])
    return front.at(thinned(front.objectives, is_near, most))


def thinned(
    objectives: Float[np.ndarray, "N M"], is_near: Bool[np.ndarray, " N"], most: int
) -> Int[np.ndarray, " _"]:
    """Which points of a front to keep, `most` of them: of those near, half or more.

    By crowding distance, so that the ends of both parts stay.
    """
    near, far = np.flatnonzero(is_near), np.flatnonzero(~is_near)
    if len(objectives) <= most:
        return np.arange(len(objectives))
    near = near[_spread(objectives[near], max(most // 2, most - len(far)))]
    return np.sort(np.concatenate([near, far[_spread(objectives[far], most - len(near))]]))


def _spread(objectives: np.ndarray, most: int) -> np.ndarray:
    count = len(objectives)
    if count <= most:
        return np.arange(count)
    padded = np.pad(objectives, [(0, -count % _ROWS), (0, 0)])
    rank = (np.arange(len(padded)) >= count).astype(np.int32)
    distance = np.asarray(_crowding(padded, rank))[:count]
    return np.sort(np.argsort(-distance, kind="stable")[:most])


def as_fitness(objectives: Sequence[Any], violation: Any) -> Fitness:
    """Columns of objectives and a violation as the search takes them, float32."""
    columns = [jnp.asarray(np.asarray(column, np.float32)) for column in objectives]
    return Fitness(jnp.stack(columns, axis=1), jnp.asarray(np.asarray(violation, np.float32)))
