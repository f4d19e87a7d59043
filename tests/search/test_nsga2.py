"""NSGA-II from init to tell: what its state says, hard cases, and evosax's form.

Peers' defects that these tests would have found are named where they are guarded against.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm

from afpjax.inputs.errors import InputError
from afpjax.search import operators, pareto
from afpjax.search.nsga2 import NSGA2, front_metrics, run
from afpjax.search.pareto import Fitness

from .genomes import ALGORITHM, GENES, KEY, PARAMS, SIZE, distinct_genomes, fitness

ODD, TWO = (NSGA2.integers(size, np.full(GENES, 3)) for size in (5, 2))
TABLES = np.random.default_rng(7).integers(1, 30, (2, GENES, 3))  # whole numbers: sums are exact
assess = jax.jit(pareto.assess, static_argnames=("enough",))


def costs(genomes):
    """Two sums over genes, exact in float32."""
    genes = np.arange(GENES)
    return np.stack([table[genes, genomes].sum(axis=-1) for table in TABLES], axis=-1)


def evaluate(genomes):
    genomes = np.asarray(genomes)
    return fitness(costs(genomes), np.maximum(6 - (genomes == 1).sum(axis=1), 0))


def generations(count, seed=0, algorithm=ALGORITHM, score=evaluate):
    """States of a whole search by ask and tell, the initial one first."""
    params = algorithm.default_params
    start, *keys = jax.random.split(jax.random.key(seed), 2 * count + 1)
    population = algorithm.sample(start)
    state = algorithm.init(start, population, score(population), params)
    yield state
    for ask_key, tell_key in zip(keys[::2], keys[1::2], strict=True):
        offspring, state = algorithm.ask(ask_key, state, params)
        state, _ = algorithm.tell(tell_key, offspring, score(offspring), state, params)
        yield state


# --- what the state says --------------------------------------------------------------------


def assert_sound(state, size=SIZE):
    """Numbers alone, and ranks that are those of the population as it lies there."""
    assert all(np.isfinite(part).all() for part in state.fitness)
    assert not np.isnan(state.crowding).any()
    rank, _ = assess(state.population, state.fitness, enough=size)
    np.testing.assert_array_equal(state.rank, rank)


@pytest.mark.in_ci("even", "odd")
@pytest.mark.parametrize("algorithm", [ALGORITHM, ODD, TWO], ids=["even", "odd", "two"])
def test_rows_and_ranks_are_those_of_the_population_after_every_step(algorithm):
    """EvoX stores ranks in another order than the population: 29 % carried their own."""
    size = algorithm.population_size
    for state in generations(10, algorithm=algorithm):
        assert state.population.shape == (size, GENES)
        chex.assert_trees_all_equal(state.fitness, evaluate(state.population))
        assert_sound(state, size)


def test_the_same_key_twice_is_equal_to_the_bit_and_another_is_not():
    one, again, other = (list(generations(6, seed=seed)) for seed in (3, 3, 4))
    chex.assert_trees_all_equal(one, again)
    assert (np.asarray(one[-1].population) != np.asarray(other[-1].population)).any()


# --- hard cases -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "score",
    [
        lambda given: Fitness(given.objectives.at[:, 0].set(1), given.violation),
        lambda given: Fitness(0 * given.objectives, 0 * given.violation),
        lambda given: Fitness(given.objectives * jnp.nan, given.violation),
    ],
    ids=["one flat", "all flat", "all failed"],
)
def test_objectives_that_tell_nothing_apart(score):
    assert_sound(list(generations(6, score=lambda genomes: score(evaluate(genomes))))[-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_failed_evaluations_leave_as_soon_as_others_are_there(bad):
    """Half of all genomes fail; no survivor is one of them once 24 others were seen."""

    def score(genomes):
        given = evaluate(genomes)
        fails = given.objectives[:, :1] % 2 == 1
        return Fitness(jnp.where(fails, bad, given.objectives), given.violation)

    *_, state = generations(6, score=score)
    assert_sound(state)
    assert (np.asarray(state.fitness.objectives)[:, 0] % 2 == 0).all()


def test_an_infeasible_population_has_the_least_violating_as_its_front():
    """Optuna and moo-rs forgot the case: no front, or no winner of a tournament."""
    given = evaluate(distinct_genomes(0, SIZE))
    given = Fitness(given.objectives, jnp.arange(SIZE, dtype=jnp.float32)[::-1] + 1)
    state = ALGORITHM.init(KEY, jnp.asarray(distinct_genomes(0, SIZE)), given, PARAMS)
    assert np.flatnonzero(ALGORITHM.get_front(state)).tolist() == [SIZE - 1]
    np.testing.assert_array_equal(state.rank, np.arange(SIZE)[::-1])


def test_one_gene_of_those_that_can_move_mutates_on_average():
    assert NSGA2.integers(SIZE, np.array([3, 1] * 5)).mutation_rate == 1 / 5
    assert NSGA2.integers(SIZE, np.array([1, 1])).mutation_rate == 1
    assert NSGA2.reals(SIZE, np.zeros(1), np.ones(1)).mutation_rate == 0.5
    assert NSGA2.integers(SIZE, np.array([3, 3]), mutation_rate=0.2).mutation_rate == 0.2


@pytest.mark.parametrize("genes", ["integers", "reals"])
def test_double_precision(genes):
    """Strict promotion forbids comparing float64 coins with float32 rates."""
    with jax.enable_x64(True):
        ends = np.zeros(4), np.ones(4)
        algorithm = NSGA2.reals(8, *ends) if genes == "reals" else NSGA2.integers(8, np.full(4, 3))

        def step(key):
            population = algorithm.sample(key)
            given = Fitness(population[:, :2].astype(jnp.float64), jnp.zeros(8))
            params = algorithm.default_params
            state = algorithm.init(key, population, given, params)
            offspring, state = algorithm.ask(key, state, params)
            return algorithm.tell(key, offspring, given, state, params)[0]

        state = jax.eval_shape(step, jax.random.key(0))
        assert state.population.dtype == (np.float64 if genes == "reals" else np.int32)
        assert state.fitness.objectives.dtype == state.crowding.dtype == np.float64
        assert state.rank.dtype == np.int32


# --- finding what is feasible ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "share", "worth"), [((0.7, 0.4, 0.1), 0.02, 0.93), ((0.75, 0.25, 0.05), 0.0003, 0.2)]
)
def test_tight_memory_limits_are_met(room, share, worth):
    """Each device holds so much of all weights; which of the 59,049 mappings fit is known."""
    sizes = np.random.default_rng(5).integers(1, 100, GENES)

    def score(genomes):
        genomes = np.asarray(genomes)
        used = ((genomes[:, :, None] == np.arange(3)) * sizes[:, None]).sum(axis=1)
        over = np.maximum(used / (np.array(room) * sizes.sum()) - 1, 0).sum(axis=1)
        return fitness(costs(genomes), over)

    every = score(np.indices((3,) * GENES).reshape(GENES, -1).T)
    fits = np.asarray(every.violation) == 0
    assert 0 < fits.mean() < share
    *_, last = generations(60, score=score)
    met = np.asarray(last.fitness.violation) == 0
    assert met.sum() == SIZE or fits.sum() < SIZE  # in the tighter case only 17 mappings fit
    true, found = (
        np.asarray(x)[ok].astype(float)
        for x, ok in ((every.objectives, fits), (last.fitness.objectives, met))
    )
    corner = true.max(axis=0) + 1
    assert moocore.hypervolume(found, ref=corner) > worth * moocore.hypervolume(true, ref=corner)


# --- measuring again ------------------------------------------------------------------------


def test_rescoring_keeps_the_individuals_and_ranks_them_anew():
    *_, state = generations(5)
    fresh = fitness(-costs(np.asarray(state.population)))
    again = ALGORITHM.rescore(state, fresh)
    rank, crowding = assess(state.population, fresh, enough=SIZE)
    expected = state.replace(fitness=fresh, rank=rank, crowding=crowding)
    chex.assert_trees_all_equal(again, expected)
    assert (again.rank != state.rank).any()


# --- evosax's form --------------------------------------------------------------------------


def test_it_is_an_evosax_algorithm():
    assert isinstance(ALGORITHM, PopulationBasedAlgorithm)
    assert ALGORITHM.population_size == SIZE and ALGORITHM.num_dims == GENES
    population = ALGORITHM.sample(KEY)
    state = ALGORITHM.init(KEY, population, evaluate(population), PARAMS)
    offspring, asked = ALGORITHM.ask(KEY, state, PARAMS)
    chex.assert_trees_all_equal(asked, state)
    state, metrics = ALGORITHM.tell(KEY, offspring, evaluate(offspring), state, PARAMS)
    assert isinstance(metrics, dict) and metrics["generation_counter"] == 1
    assert ALGORITHM.get_population(state).shape == (SIZE, GENES)


@pytest.mark.slow
def test_solutions_may_be_trees():
    solution = {"device": jnp.zeros(4, jnp.int32), "copies": jnp.zeros((2, 3), jnp.int32)}
    cardinality = jnp.full(10, 3, jnp.int32)
    algorithm = NSGA2(
        6,
        solution,
        sample=lambda key: operators.random_categories(key, cardinality),
        crossover=operators.two_point_crossover,
        mutate=lambda key, genome, rate: operators.reset_mutation(
            key, genome, rate, cardinality=cardinality
        ),
    )

    def score(population):
        assert population["copies"].shape == (6, 2, 3)
        return fitness(
            np.stack([population["device"].sum(axis=1), -population["copies"].sum(axis=(1, 2))], 1)
        )

    *_, last = generations(3, algorithm=algorithm, score=score)
    chex.assert_trees_all_equal(score(algorithm.get_population(last)), last.fitness)


def test_rates_are_parameters():
    state = list(generations(3))[-1]
    parents = {row.tobytes() for row in np.asarray(state.population)}
    still = PARAMS.replace(crossover_rate=jnp.float32(0), mutation_rate=jnp.float32(0))
    unchanged, _ = ALGORITHM.ask(KEY, state, still)
    assert {row.tobytes() for row in np.asarray(unchanged)} <= parents
    wild, _ = ALGORITHM.ask(KEY, state, PARAMS.replace(mutation_rate=jnp.float32(1)))
    assert not {row.tobytes() for row in np.asarray(wild)} & parents


def children(population, given, asks=200):
    """How many of each row's genome every ask returns where nothing crosses over or mutates."""
    state = ALGORITHM.init(KEY, jnp.asarray(population), given, PARAMS)
    still = PARAMS.replace(crossover_rate=jnp.float32(0), mutation_rate=jnp.float32(0))
    born = [np.asarray(ALGORITHM.ask(jax.random.key(n), state, still)[0]) for n in range(asks)]
    return np.stack([(each[:, None] == population).all(axis=2).sum(axis=0) for each in born])


@pytest.mark.parametrize("by", ["violation", "rank", "crowding"])
def test_the_better_of_two_has_the_child(by):
    """The best wins both of its fights, the worst none (two ends, equally good, may meet)."""
    order = np.random.default_rng(0).permutation(SIZE).astype(np.float32)  # 0 is best
    worse = -order if by != "rank" else order  # of lesser importance, and the other way round
    objectives = np.stack([worse, worse], axis=1)
    if by == "crowding":  # one front, ever more crowded from its left end on
        objectives = np.stack([1 - 0.8**order, 0.8**order], axis=1)
    counts = children(distinct_genomes(0, SIZE), fitness(objectives, order * (by == "violation")))
    assert counts[:, order == 0].mean() > 1.9
    worst = SIZE - 2 if by == "crowding" else SIZE - 1  # the last one is the other end
    assert (counts[:, order == worst] == 0).all()


def test_a_feasible_copy_has_children_before_the_infeasible():
    """Its rank is the last, but violation is looked at first."""
    population = distinct_genomes(0, SIZE)
    population[1] = population[0]
    violation = np.minimum(np.arange(SIZE) // 2, 5)  # none for the first two
    counts = children(population, fitness(np.ones((SIZE, 2)), violation))
    assert counts[:, 0].min() >= 2 and counts[:, 0].mean() > 3.5


def test_metrics_tell_what_happened():
    population = jnp.asarray(distinct_genomes(1, SIZE))
    state = ALGORITHM.init(KEY, population, evaluate(population), PARAMS)
    offspring = jnp.asarray(distinct_genomes(2, SIZE))
    given = evaluate(offspring)
    given = Fitness(given.objectives.at[:3, 1].set(jnp.nan), given.violation.at[3].set(jnp.inf))
    state, metrics = ALGORITHM.tell(KEY, offspring, given, state, PARAMS)
    assert metrics["failed"] == 4
    assert metrics["feasible"] == (np.asarray(state.fitness.violation) == 0).sum()
    assert metrics["front_size"] == (np.asarray(state.rank) == 0).sum()
    unique = len(np.unique(np.asarray(state.population), axis=0))
    assert metrics["copies"] == SIZE - unique
    np.testing.assert_array_equal(
        metrics["ideal"], np.asarray(state.fitness.objectives).min(axis=0)
    )


def test_repeated_calls_are_traced_once():
    traced = []

    def counting(*arguments):
        traced.append(1)
        return front_metrics(*arguments)

    algorithm = NSGA2.integers(SIZE, np.full(GENES, 3), metrics_fn=counting)
    before = {name: getattr(NSGA2, name)._cache_size() for name in ("init", "ask", "tell")}
    assert len(list(generations(5, algorithm=algorithm))) == 6
    assert len(traced) == 1
    for name, entries in before.items():
        assert getattr(NSGA2, name)._cache_size() <= entries + 1, name


# --- a whole search as one program -----------------------------------------------------------

GENERATIONS = 6
FLOAT_TABLES = jnp.asarray(TABLES, jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 3)


def evaluated(key, population):
    """Sums of whole numbers, exact in any order; the second objective tells which draw it was."""
    cost = FLOAT_TABLES[0][jnp.arange(GENES), population].sum(axis=1)
    draw = jnp.full(len(population), jax.random.uniform(key))
    return Fitness(jnp.stack([cost, draw], axis=1), jnp.zeros(len(population)))


@partial(jax.jit, static_argnames=("generations", "renew"))
def search(key, initial=None, generations=GENERATIONS, renew=False):
    return run(key, ODD, evaluated, generations=generations, initial=initial, renew=renew)


def test_it_is_the_loop_written_by_hand_from_several_keys_at_once():
    """One step at a time, outside of any compiled loop, by the keys that `run` derives."""
    params, several = ODD.default_params, jax.jit(jax.vmap(search))(KEYS)
    for number, key in enumerate(KEYS):
        state, info = jax.tree.map(lambda x, number=number: x[number], several)
        chex.assert_trees_all_equal((state, info), search(key))
        if number:
            continue
        start_key, draw_key, loop_key = jax.random.split(key, 3)
        population = ODD.sample(start_key)
        own = ODD.init(start_key, population, evaluated(draw_key, population), params)
        for index in range(GENERATIONS):
            ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, index))
            offspring, own = ODD.ask(ask_key, own, params)
            given = evaluated(draw_key, offspring)
            own, metrics = ODD.tell(tell_key, offspring, given, own, params)
            reported = jax.tree.map(lambda x, index=index: x[index], info)
            chex.assert_trees_all_equal(reported, {**metrics, "fitness": own.fitness})
        chex.assert_trees_all_equal(state, own)


@pytest.mark.slow
def test_renewed_draws_reach_survivors_and_offspring_alike():
    """Else a lucky parent would live on, measured once, on a draw that nobody else met."""
    state, info = search(KEYS[0], renew=True)
    draws = np.asarray(info["fitness"].objectives)[:, :, 1]
    assert (draws == draws[:, :1]).all()
    assert len(np.unique(draws[:, 0])) == GENERATIONS
    rank, _ = assess(state.population, state.fitness, enough=5)
    np.testing.assert_array_equal(state.rank, rank)


def test_the_search_starts_where_it_is_told():
    initial = jnp.asarray(np.arange(5)[:, None] * np.ones(GENES, int) % 3)
    state, _ = search(KEYS[0], initial.astype(jnp.int32), 0)
    np.testing.assert_array_equal(state.population, initial)
    assert state.generation_counter == 0


# --- what is refused ------------------------------------------------------------------------


def started(genomes, rows):
    return ALGORITHM.init(KEY, jnp.asarray(genomes), fitness(np.zeros((rows, 2))), PARAMS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NSGA2.integers(1, np.array([2, 2])), "population is 1"),
        (lambda: NSGA2.integers(4, np.array([2, 0])), "at least 1 choice"),
        (lambda: NSGA2.integers(4, np.array([], int)), "no genes"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.ones(3)), "bounds"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.array([1.0, np.inf])), "finite"),
        (lambda: started(np.zeros((SIZE, GENES), np.float32), SIZE), "float32"),
        (lambda: started(np.zeros((SIZE, GENES + 1), np.int32), SIZE), "11"),
        (lambda: started(np.zeros((SIZE - 1, GENES), np.int32), SIZE - 1), "23"),
        (lambda: started(np.zeros((SIZE, GENES), np.int32), SIZE - 1), "23 rows"),
        (lambda: ALGORITHM.get_best_solution(started(distinct_genomes(0, SIZE), SIZE)), "no singl"),
    ],
)
def test_searches_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
