"""A whole search, evaluation inside, as one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from evosax.types import Population
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from afpjax.search.nsga2 import NSGA2, Params, State
from afpjax.search.pareto import Fitness


def run(
    key: PRNGKeyArray,
    algorithm: NSGA2,
    evaluate: Callable[[PRNGKeyArray, Population], Fitness],
    *,
    generations: int,
    initial: Population | None = None,
    params: Params | None = None,
    renew: bool = False,
) -> tuple[State, dict[str, Any]]:
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

    def generation(state: State, index: ArrayLike) -> tuple[State, dict[str, Any]]:
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
