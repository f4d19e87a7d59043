"""NSGA-II in evosax's ask/tell form, constraints by Deb's rule, copies of genomes ranked last.

Legend: P individuals, M objectives, G genes (the flattened solution).
Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.

    algorithm = NSGA2.integers(40, cardinality)  # categories; NSGA2.reals(40, lower, upper)
    params = algorithm.default_params
    population = algorithm.sample(key)
    state = algorithm.init(key, population, evaluate(population), params)
    for key in keys:
        ask_key, tell_key = jax.random.split(key)
        offspring, state = algorithm.ask(ask_key, state, params)
        state, metrics = algorithm.tell(tell_key, offspring, evaluate(offspring), state, params)
    best = algorithm.get_population(state)[algorithm.get_front(state)]

`run` is that loop as one compiled program. Keys are used once; nothing here draws by itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.types import Metrics, Population, Solution
from evosax.types import Params as BaseParams
from evosax.types import State as BaseState
from flax import struct
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from afpjax.inputs.errors import InputError
from afpjax.search.operators import (
    polynomial_mutation,
    random_categories,
    reset_mutation,
    simulated_binary_crossover,
    tournament,
    two_point_crossover,
)
from afpjax.search.pareto import Fitness, assess, failed, guard


@struct.dataclass
class NSGA2State(BaseState):
    """P individuals and what is known of them, always in one order."""

    population: Any  # [P, G], flattened solutions
    fitness: Fitness  # objectives [P, M], violation [P], guarded: every number is finite
    rank: Any  # [P] int32, 0 is the best front, P marks the copy of another genome
    crowding: Any  # [P], at the survival that kept them
    generation_counter: Any  # [] int32


@struct.dataclass
class NSGA2Params(BaseParams):
    """Numbers that may change without compiling anew."""

    crossover_rate: Any  # per pair of parents
    mutation_rate: Any  # per gene


def front_metrics(
    key: PRNGKeyArray,
    population: Population,
    fitness: Fitness,
    state: NSGA2State,
    params: NSGA2Params,
) -> dict[str, Array]:
    """What one generation's `tell` reports: of the offspring's raw fitness, and the new state."""
    del key, population, params
    return {
        "generation_counter": state.generation_counter,
        "failed": failed(fitness).sum(),  # offspring with a NaN or infinite number
        "feasible": (state.fitness.violation == 0).sum(),  # survivors
        "front_size": (state.rank == 0).sum(),
        "copies": (state.rank == state.rank.shape[0]).sum(),
        "ideal": state.fitness.objectives.min(axis=0),
    }


class NSGA2(PopulationBasedAlgorithm):
    """Elitist multi-objective search; survival does not depend on the operators given.

    `sample(key)` makes one flat genome, `crossover(key, first, second, rate)` two children,
    `mutate(key, genome, rate)` one genome (see `operators`); `mutation_rate` is per gene.
    One instance compiles once: keep it. Raises InputError where sizes do not fit.
    """

    def __init__(
        self,
        population_size: int,
        solution: Solution,
        *,
        sample: Callable,
        crossover: Callable,
        mutate: Callable,
        mutation_rate: float | None = None,
        metrics_fn: Callable = front_metrics,
    ):
        if population_size < 2:
            raise InputError(f"population is {population_size}: give at least 2")
        super().__init__(population_size, solution, metrics_fn=metrics_fn)
        if not self.num_dims:
            raise InputError("a genome has no genes: give a solution with at least one number")
        self.sample_genome = sample
        self.crossover = crossover
        self.mutate = mutate
        self.mutation_rate = 1 / self.num_dims if mutation_rate is None else mutation_rate

    @classmethod
    def integers(
        cls, population_size: int, cardinality: Int[Array | np.ndarray, "..."], **options: Any
    ) -> "NSGA2":
        """For categories: gene g is one of 0 … cardinality[g]-1, int32.

        Two-point crossover, and reset to a different value at one gene per child on average.
        """
        choices = np.asarray(cardinality)
        if choices.ndim != 1 or (choices < 1).any():
            raise InputError(f"cardinality {choices.tolist()}: give at least 1 choice per gene")
        movable = max(int((choices > 1).sum()), 1)
        cardinality = jnp.asarray(choices, jnp.int32)
        defaults = {
            "sample": partial(random_categories, cardinality=cardinality),
            "crossover": two_point_crossover,
            "mutate": partial(reset_mutation, cardinality=cardinality),
            "mutation_rate": 1 / movable,
        }
        return cls(population_size, jnp.zeros(choices.size, jnp.int32), **(defaults | options))

    @classmethod
    def reals(
        cls,
        population_size: int,
        lower: Float[Array | np.ndarray, " G"],
        upper: Float[Array | np.ndarray, " _"],
        **options: Any,
    ) -> "NSGA2":
        """For continuous genes between two bounds: SBX (index 15), polynomial mutation (20)."""
        lower, upper = jnp.asarray(lower), jnp.asarray(upper)
        finite = all(bool(jnp.isfinite(bound).all()) for bound in (lower, upper))
        if lower.shape != upper.shape or not finite or not bool((lower < upper).all()):
            raise InputError("bounds: give one finite lower and one greater upper per gene")
        bounds = {"lower": lower, "upper": upper}
        defaults = {
            "sample": lambda key: jax.random.uniform(key, lower.shape, lower.dtype, lower, upper),
            "crossover": partial(simulated_binary_crossover, **bounds),
            "mutate": partial(polynomial_mutation, **bounds),
            "mutation_rate": min(0.5, 1 / lower.size),
        }
        return cls(population_size, jnp.zeros_like(lower), **(defaults | options))

    @property
    def _default_params(self) -> NSGA2Params:
        return NSGA2Params(
            crossover_rate=jnp.float32(0.9), mutation_rate=jnp.float32(self.mutation_rate)
        )

    @partial(jax.jit, static_argnames=("self",))
    def sample(self, key: PRNGKeyArray) -> Population:
        """P random solutions."""
        genomes = jax.vmap(self.sample_genome)(jax.random.split(key, self.population_size))
        return jax.vmap(self._unravel_solution)(genomes)

    @partial(jax.jit, static_argnames=("self",))
    def init(
        self, key: PRNGKeyArray, population: Population, fitness: Fitness, params: NSGA2Params
    ) -> NSGA2State:
        """The state that holds P evaluated solutions. `key` is not used; evosax passes one."""
        del key, params
        genomes, fitness = self._check(population, fitness)
        rank, distance = assess(genomes, fitness, enough=self.population_size)
        return NSGA2State(genomes, fitness, rank, distance, jnp.int32(0))

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self,
        key: PRNGKeyArray,
        population: Population,
        fitness: Fitness,
        state: NSGA2State,
        params: NSGA2Params,
    ) -> tuple[NSGA2State, Metrics]:
        """Keep the best P of the state's individuals and the offspring."""
        survival_key, metrics_key = jax.random.split(key)
        genomes, guarded = self._check(population, fitness)
        state = self._tell(survival_key, genomes, guarded, state, params)
        state = state.replace(generation_counter=state.generation_counter + 1)
        return state, self.metrics_fn(metrics_key, genomes, fitness, state, params)

    @partial(jax.jit, static_argnames=("self",))
    def rescore(self, state: NSGA2State, fitness: Fitness) -> NSGA2State:
        """The same individuals, measured anew (P rows in the state's order).

        For noisy objectives: call it before `tell`, so parents and offspring meet on one draw.
        """
        genomes, fitness = self._check(self.get_population(state), fitness)
        rank, distance = assess(genomes, fitness, enough=self.population_size)
        return state.replace(fitness=fitness, rank=rank, crowding=distance)

    def get_population(self, state: NSGA2State) -> Population:
        """The P solutions, unflattened, in the state's order."""
        return jax.vmap(self._unravel_solution)(state.population)

    def get_front(self, state: NSGA2State) -> Bool[Array, " P"]:
        """Which individuals no other beats; where none is feasible, the least violating."""
        return state.rank == 0

    def get_best_solution(self, state: NSGA2State) -> Solution:
        """Refused: several objectives have no one best solution."""
        raise InputError("NSGA2 has no single best solution: choose one of get_front(state)")

    def _ask(
        self, key: PRNGKeyArray, state: NSGA2State, params: NSGA2Params
    ) -> tuple[Population, NSGA2State]:
        select_key, cross_key, mutate_key = jax.random.split(key, 3)
        pairs = -(-self.population_size // 2)
        winners = tournament(select_key, [state.fitness.violation, state.rank, -state.crowding])
        parents = state.population[jnp.resize(winners, (2, pairs))]
        children = jax.vmap(self.crossover, in_axes=(0, 0, 0, None))(
            jax.random.split(cross_key, pairs), parents[0], parents[1], params.crossover_rate
        )
        children = jnp.concatenate(children)[: self.population_size]
        keys = jax.random.split(mutate_key, self.population_size)
        mutate = jax.vmap(self.mutate, in_axes=(0, 0, None))
        return mutate(keys, children, params.mutation_rate), state

    def _tell(
        self,
        key: PRNGKeyArray,
        population: Population,
        fitness: Fitness,
        state: NSGA2State,
        params: NSGA2Params,
    ) -> NSGA2State:
        del params
        genomes = jnp.concatenate([state.population, population])
        both = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), state.fitness, fitness)
        rank, distance = assess(genomes, both, enough=self.population_size)
        coin = jax.random.uniform(key, rank.shape)
        kept = jnp.lexsort((coin, -distance, rank))[: self.population_size]
        rank = jnp.minimum(rank, self.population_size)  # only copies had more
        arranged = jax.tree.map(lambda leaf: leaf[kept], (genomes, both, rank, distance))
        genomes, both, rank, distance = arranged
        return NSGA2State(genomes, both, rank, distance, state.generation_counter)

    def _check(self, population: Population, fitness: Fitness) -> tuple[Array, Fitness]:
        genomes = jax.vmap(self._ravel_solution)(population)
        expected = (self.population_size, self.num_dims)
        if genomes.shape != expected or genomes.dtype != self.solution_flat.dtype:
            raise InputError(
                f"population is {genomes.dtype}{list(genomes.shape)} when flat, this search "
                f"needs {self.solution_flat.dtype}{list(expected)}"
            )
        if len(fitness.objectives) != self.population_size:
            raise InputError(
                f"fitness has {len(fitness.objectives)} rows, the population "
                f"{self.population_size}: give one per individual"
            )
        return genomes, guard(fitness)


def run(
    key: PRNGKeyArray,
    algorithm: NSGA2,
    evaluate: Callable[[PRNGKeyArray, Population], Fitness],
    *,
    generations: int,
    initial: Population | None = None,
    params: NSGA2Params | None = None,
    renew: bool = False,
) -> tuple[NSGA2State, dict[str, Any]]:
    """A whole search, evaluation inside, as one program: jit it, vmap it over keys.

    `evaluate(key, population)` gets the same key in every generation (common random numbers), so
    survivors keep their fitness; with `renew`, a new key each, and survivors are measured again.
    `initial` [P, …] replaces the random population.
    Returns the last state, and per generation: the metrics, and `fitness` of the survivors.
    """
    params = algorithm.default_params if params is None else params
    start_key, draw_key, loop_key = jax.random.split(key, 3)
    population = algorithm.sample(start_key) if initial is None else initial
    state = algorithm.init(start_key, population, evaluate(draw_key, population), params)

    def generation(state: NSGA2State, index: ArrayLike) -> tuple[NSGA2State, dict[str, Any]]:
        ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, index))
        offspring, state = algorithm.ask(ask_key, state, params)
        draw = jax.random.fold_in(draw_key, index) if renew else draw_key
        if renew:
            state = algorithm.rescore(state, evaluate(draw, algorithm.get_population(state)))
        state, metrics = algorithm.tell(
            tell_key, offspring, evaluate(draw, offspring), state, params
        )
        return state, {**metrics, "fitness": state.fitness}

    return lax.scan(generation, state, jnp.arange(generations, dtype=jnp.int32))
