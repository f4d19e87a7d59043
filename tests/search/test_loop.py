"""The whole search as one program: equal to the loop written by hand, for one seed and for many."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.search.nsga2 import NSGA2, run
from afpjax.search.pareto import Fitness, assess

SIZE, GENES, GENERATIONS = 12, 8, 6
ALGORITHM = NSGA2.integers(SIZE, np.full(GENES, 3))
TABLES = jnp.asarray(np.random.default_rng(3).integers(1, 30, (2, GENES, 3)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 5)


def evaluate(key, population):
    """Sums of whole numbers, exact in any order; the third objective tells which draw it was."""
    costs = [table[jnp.arange(GENES), population].sum(axis=1) for table in TABLES]
    draw = jnp.full(len(population), jax.random.uniform(key))
    return Fitness(jnp.stack([*costs, draw], axis=1), jnp.zeros(len(population)))


@partial(jax.jit, static_argnames=("generations", "renew"))
def search(key, initial=None, generations=GENERATIONS, renew=False):
    return run(key, ALGORITHM, evaluate, generations=generations, initial=initial, renew=renew)


@pytest.fixture(scope="module")
def several():
    """The same search from five keys at once."""
    return jax.jit(jax.vmap(search))(KEYS)


def test_it_is_the_loop_written_by_hand(several):
    """One step at a time, outside of any compiled loop, by the keys that `run` derives."""
    params = ALGORITHM.default_params
    for number, key in enumerate(KEYS[:2]):
        start_key, draw_key, loop_key = jax.random.split(key, 3)
        population = ALGORITHM.sample(start_key)
        state = ALGORITHM.init(start_key, population, evaluate(draw_key, population), params)
        for index in range(GENERATIONS):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, index))
            offspring, state = ALGORITHM.ask(ask_key, state, params)
            given = evaluate(draw_key, offspring)
            state, metrics = ALGORITHM.tell(tell_key, offspring, given, state, params)
            at_once = jax.tree.map(lambda x, place=(number, index): x[place], several[1])
            chex.assert_trees_all_equal(at_once, {**metrics, "fitness": state.fitness})
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x, number=number: x[number], several[0]), state
        )


def test_many_seeds_at_once_equal_one_after_the_other(several):
    for number, key in enumerate(KEYS):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda x, number=number: x[number], several), search(key)
        )


def test_the_same_key_twice_is_equal_to_the_bit_and_another_is_not():
    one, again, other = search(KEYS[0]), search(KEYS[0]), search(KEYS[1])
    chex.assert_trees_all_equal(one, again)
    assert (one[0].population != other[0].population).any()


def test_repeated_searches_are_traced_once():
    """Twice: for the first population, and for the body of the loop."""
    chex.clear_trace_counter()
    counting: Any = chex.assert_max_traces(evaluate, n=2)
    program = jax.jit(lambda key: run(key, ALGORITHM, counting, generations=3)[0].rank)
    for key in KEYS[:3]:
        program(key)
    with pytest.raises(AssertionError, match="traced"):  # the count is this function's
        jax.jit(lambda key: run(key, ALGORITHM, counting, generations=4)[0].rank)(KEYS[0])
    chex.clear_trace_counter()


def test_every_generation_is_reported():
    state, info = search(KEYS[0])
    np.testing.assert_array_equal(info["generation_counter"], np.arange(1, GENERATIONS + 1))
    chex.assert_shape(info["fitness"].objectives, (GENERATIONS, SIZE, 3))
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[-1], info["fitness"]), state.fitness)
    np.testing.assert_array_equal(info["ideal"], info["fitness"].objectives.min(axis=1))


def test_everybody_is_measured_under_one_draw_that_stays():
    draws = np.asarray(search(KEYS[0])[1]["fitness"].objectives)[:, :, 2]
    assert (draws == draws[0, 0]).all()


@pytest.mark.slow
def test_renewed_draws_reach_survivors_and_offspring_alike():
    """Else a lucky parent would live on, measured once, on a draw that nobody else met."""
    state, info = search(KEYS[0], renew=True)
    draws = np.asarray(info["fitness"].objectives)[:, :, 2]
    assert (draws == draws[:, :1]).all()
    assert len(np.unique(draws[:, 0])) == GENERATIONS
    rank, _ = assess(state.population, state.fitness, enough=SIZE)
    np.testing.assert_array_equal(state.rank, rank)


def test_the_search_starts_where_it_is_told():
    initial = jnp.asarray(np.indices((3, 4)).reshape(2, 12).T @ np.ones((2, GENES), int) % 3)
    state, _ = search(KEYS[0], initial.astype(jnp.int32), 0)
    np.testing.assert_array_equal(state.population, initial)
    assert state.generation_counter == 0
    best = evaluate(KEYS[0], initial.astype(jnp.int32)).objectives.min(axis=0)
    state, _ = search(KEYS[0], initial.astype(jnp.int32))
    assert (state.fitness.objectives.min(axis=0)[:2] <= best[:2]).all()
