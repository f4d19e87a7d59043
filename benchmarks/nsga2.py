"""`nsga2`: one generation of NSGA-II on DTLZ2, 12 variables and 3 objectives, against pymoo."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32

from afpjax.search.nsga2 import NSGA2, NSGA2State
from afpjax.search.pareto import Fitness
from benchmarks.agreement import Disagrees, check_equal
from benchmarks.rivals import NotInstalled, load
from benchmarks.table import Row, number, versus
from benchmarks.timing import Contestant, Effort, race

GENES, OBJECTIVES = 12, 3
LIMITS = {100: (5, 10), 1000: (8, 15), 5000: (8, 15)}  # population: required, aim
KEY = 11
MOST = 64  # generations of one call


def dtlz2(genomes: Float[Array, "P G"]) -> Float[Array, "P M"]:
    """Deb et al., "Scalable multi-objective optimization test problems", 2002: the second."""
    angles = genomes[:, : OBJECTIVES - 1] * (jnp.pi / 2)
    # In float32, cos(pi / 2) is below 0: a point on that bound would gain by being far off.
    cos, sin = jnp.maximum(jnp.cos(angles), 0), jnp.sin(angles)
    radius = 1 + ((genomes[:, OBJECTIVES - 1 :] - 0.5) ** 2).sum(axis=1)
    first, second = cos[:, 0] * cos[:, 1], cos[:, 0] * sin[:, 1]
    return radius[:, None] * jnp.stack([first, second, sin[:, 0]], axis=1)


class Search:
    """Ours, generations inside one compiled program, as `afpjax.search.nsga2` runs them."""

    def __init__(self, population: int) -> None:
        bounds = np.zeros(GENES, np.float32), np.ones(GENES, np.float32)
        algorithm = NSGA2.reals(population, *bounds)
        params, key = algorithm.default_params, jax.random.key(KEY)

        def generation(number: UInt32[Array, ""], state: NSGA2State) -> NSGA2State:
            ask_key, tell_key = jax.random.split(jax.random.fold_in(key, number))
            offspring, state = algorithm.ask(ask_key, state, params)
            return algorithm.tell(tell_key, offspring, _fitness(offspring), state, params)[0]

        start = algorithm.sample(key)
        self.state = algorithm.init(key, start, _fitness(start), params)
        self.generations = jax.jit(
            lambda numbers, count, state: lax.fori_loop(
                0, count, lambda place, state: generation(numbers[place], state), state
            )
        )

    def run(self, numbers: Sequence[int]) -> None:
        """Passes by number; the array's length is fixed, so that one program does for all."""
        for start in range(0, len(numbers), MOST):
            part = numbers[start : start + MOST]
            padded = np.zeros(MOST, np.uint32)
            padded[: len(part)] = part
            self.state = self.generations(padded, np.int32(len(part)), self.state)
        jax.block_until_ready(self.state)


def measure(effort: Effort) -> Iterator[Row | str]:
    sizes = [100] if effort.quick else list(LIMITS)
    try:
        rival = load("pymoo_rival")
        _check(rival)
    except (NotInstalled, Disagrees) as error:
        yield f"pymoo: {error}" if isinstance(error, Disagrees) else str(error)
        rival = None
    for size in sizes:
        contestants = [Contestant("ours", Search(size).run)]
        if rival is not None:
            contestants.append(Contestant("pymoo", rival.Search(size, GENES, OBJECTIVES).run))
        times = race(contestants, effort)
        what = f"NSGA-II, a generation of DTLZ2, N = {size:,}: pymoo ÷ ours"
        if "pymoo" in times:
            yield versus(what, times["ours"], times["pymoo"], "generations", *LIMITS[size])
        else:
            yield f"{what}: ours alone, {number(times['ours'].median_s * 1e3)} ms"


def _check(rival) -> None:
    """Equal objectives, and equal ranks of what our search kept."""
    search = Search(200)
    search.run(range(10))
    genomes, kept = np.asarray(search.state.population), search.state.fitness.objectives
    theirs = rival.objectives_of(genomes, OBJECTIVES)
    if not np.allclose(kept, theirs, rtol=0, atol=1e-5):
        raise Disagrees("other values of DTLZ2")
    ranks = rival.ranks(np.asarray(kept, np.float64))
    check_equal("ranks", np.asarray(search.state.rank), ranks)


def _fitness(genomes: Float[Array, "P G"]) -> Fitness:
    return Fitness(dtlz2(genomes), jnp.zeros(len(genomes)))
