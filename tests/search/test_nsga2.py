"""NSGA-II: who survives, what the state says of them, and evosax's form.

Peers' defects that these tests would have found are named where they are guarded against.
"""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

from afpjax.errors import InputError
from afpjax.search import operators, pareto
from afpjax.search.nsga2 import NSGA2, front_metrics
from afpjax.search.pareto import Fitness

SIZE, GENES = 24, 10
ALGORITHM = NSGA2.integers(SIZE, np.full(GENES, 3))
PARAMS = ALGORITHM.default_params
TABLES = np.random.default_rng(7).integers(1, 30, (2, GENES, 3))  # whole numbers: sums are exact
KEY = jax.random.key(0)

assess = jax.jit(pareto.assess, static_argnames=("enough",))


def costs(genomes):
    """Two sums over genes, exact in float32."""
    genes = np.arange(GENES)
    return np.stack([table[genes, genomes].sum(axis=-1) for table in TABLES], axis=-1)


def evaluate(genomes):
    genomes = np.asarray(genomes)
    return fitness(costs(genomes), np.maximum(6 - (genomes == 1).sum(axis=1), 0))


def fitness(objectives, violation=None):
    objectives = np.asarray(objectives, np.float32)
    violation = np.zeros(len(objectives)) if violation is None else violation
    return Fitness(jnp.asarray(objectives), jnp.asarray(np.asarray(violation, np.float32)))


def distinct_genomes(seed, count):
    numbers = np.random.default_rng(seed).choice(3**GENES, count, replace=False)
    return (numbers[:, None] // 3 ** np.arange(GENES) % 3).astype(np.int32)


def survival(seed, objectives, violation=None, genomes=None):
    """One survival: of 2 P individuals, as numbers of rows, and the state that holds them."""
    given = fitness(objectives, violation)
    genomes = distinct_genomes(seed, 2 * SIZE) if genomes is None else genomes
    halves = [jax.tree.map(lambda x, part=part: x[part::2], given) for part in (0, 1)]
    state = ALGORITHM.init(KEY, jnp.asarray(genomes[0::2]), halves[0], PARAMS)
    offspring = jnp.asarray(genomes[1::2])
    state, _ = ALGORITHM.tell(jax.random.key(seed), offspring, halves[1], state, PARAMS)
    kept = [np.flatnonzero((genomes == row).all(axis=1))[0] for row in np.asarray(state.population)]
    return np.array(kept), state


def random_front(seed, size=2 * SIZE):
    """Mutually non-dominated points of two objectives, no two alike."""
    first = np.sort(np.random.default_rng(seed).random(size).astype(np.float32))
    return np.stack([first, 1 - first**2], axis=1)


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


def assert_equal_trees(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# --- survival -------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
def test_survivors_are_pymoos(broken):
    """Where nothing is tied at the cut, so that chance decides nothing."""
    problem, compared = Problem(n_var=1, n_obj=3, n_ieq_constr=1), 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        objectives = rng.random((2 * SIZE, 3), np.float32)
        violation = np.maximum(rng.random(2 * SIZE) - 0.8, 0) if broken else np.zeros(2 * SIZE)
        people = Population.new(F=objectives.astype(float), G=violation[:, None])
        people.set("row", np.arange(2 * SIZE))
        theirs = RankAndCrowding().do(problem, people, n_survive=SIZE, random_state=rng)
        if broken and (violation == 0).sum() < SIZE:
            continue
        split = theirs.get("rank") == theirs.get("rank").max()
        if (theirs.get("crowding")[split] < np.inf).sum() == 0:
            continue  # fewer places than ends: a coin decides among them
        kept, _ = survival(seed, objectives, violation)
        assert set(kept) == set(theirs.get("row"))
        compared += 1
    assert compared > 10


def test_infeasible_survivors_are_those_that_violate_least():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        violation = rng.permutation(2 * SIZE) - 5.0  # six of them feasible
        kept, state = survival(seed, rng.random((2 * SIZE, 2)), violation)
        assert set(kept) == set(np.argsort(violation)[:SIZE])
        np.testing.assert_array_equal(np.sort(state.fitness.violation)[6:], np.arange(1, SIZE - 5))


def test_both_ends_of_the_split_front_survive():
    """QDax and EvoX 0.9 drop 21 % and 47 % of them."""
    for seed in range(10):
        better = np.random.default_rng(seed).integers(0, SIZE - 2)
        objectives = random_front(seed)
        objectives[1:-1][:better] -= 5  # a front of its own, ahead of the split one
        kept, _ = survival(seed, objectives)
        assert {0, 2 * SIZE - 1} <= set(kept)


def test_the_split_front_keeps_its_least_crowded():
    """Ascending instead of descending, or indices for distances, would fail here."""
    for seed in range(10):
        objectives = random_front(seed)
        kept, _ = survival(seed, objectives)
        distance = calc_crowding_distance(objectives.astype(float))
        assert set(kept) == set(np.argsort(-distance)[:SIZE])


@pytest.mark.parametrize("steps", [4, 9, 1000])
def test_no_survivor_is_from_beyond_the_split_front(steps):
    """QDax keeps 9 of 100 such once its crowding is NaN."""
    for seed in range(10):
        objectives = np.random.default_rng(seed).integers(0, steps, (2 * SIZE, 2))
        true = moocore.pareto_rank(objectives.astype(float))
        split = np.sort(true)[SIZE - 1]
        kept, state = survival(seed, objectives)
        assert true[kept].max() <= split
        assert set(np.flatnonzero(true < split)) <= set(kept)
        np.testing.assert_array_equal(state.rank, true[kept])


def test_survivors_come_best_first():
    _, state = survival(0, np.random.default_rng(0).random((2 * SIZE, 2)))
    rank, crowding = np.asarray(state.rank), np.asarray(state.crowding)
    assert (np.diff(rank) >= 0).all()
    for front in np.unique(rank):
        assert (crowding[rank == front][1:] <= crowding[rank == front][:-1]).all()


def test_a_coin_decides_who_survives_among_equals():
    objectives = np.zeros((2 * SIZE, 2))  # one holder of the vector survives, and 23 of its copies
    kept = np.concatenate([survival(seed, objectives)[0] for seed in range(40)])
    times = np.bincount(kept, minlength=2 * SIZE)
    assert times.max() == 40 and 5 < times.min() and np.sort(times)[-2] < 35


# --- copies ---------------------------------------------------------------------------------


def test_copies_of_a_genome_never_crowd_out_a_distinct_one():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        genomes = distinct_genomes(seed, 2 * SIZE)
        worst = rng.permutation(2 * SIZE)[: SIZE - 3]
        objectives = rng.integers(0, 9, (2 * SIZE, 2))
        genomes[worst], objectives[worst] = genomes[worst[0]], 0  # copies, and better than all
        _, state = survival(seed, objectives, genomes=genomes)
        assert len(np.unique(state.population, axis=0)) == SIZE
        assert (np.asarray(state.rank) < SIZE).all()


def test_copies_fill_up_where_distinct_genomes_are_too_few():
    genomes = distinct_genomes(0, 2 * SIZE) * 0
    genomes[:5] = distinct_genomes(0, 6)[1:]  # five of their own, and 43 copies of the sixth
    objectives = costs(genomes)
    _, state = survival(0, objectives, genomes=genomes)
    assert len(np.unique(state.population, axis=0)) == 6
    copies = np.asarray(state.rank) == SIZE
    assert copies.sum() == SIZE - 6
    assert (np.asarray(state.population)[copies] == 0).all()
    assert not ALGORITHM.get_front(state)[copies].any()


def test_copies_of_objectives_never_crowd_out_a_distinct_vector_of_their_front():
    """Accuracies move in steps, so ties are the rule; unhandled they cost 1.3 points of volume."""
    for seed in range(10):
        distinct = random_front(seed, SIZE + 4)
        rows = np.concatenate([np.arange(SIZE + 4), np.zeros(SIZE - 4, int)])  # many of the first
        kept, _ = survival(seed, distinct[np.random.default_rng(seed).permutation(rows)])
        assert len(kept) == SIZE
        _, state = survival(seed, distinct[rows])
        assert len(np.unique(state.fitness.objectives, axis=0)) == SIZE


# --- what the state says --------------------------------------------------------------------


def test_rank_can_be_recomputed_after_init_and_after_every_step():
    """EvoX stores it in another order than the population: 29 % carried their own."""
    for state in generations(15):
        rank, _ = assess(state.population, state.fitness, enough=SIZE)
        np.testing.assert_array_equal(state.rank, rank)


def test_rows_of_the_state_stay_together():
    for state in generations(15):
        assert_equal_trees(state.fitness, evaluate(state.population))
        assert not np.isnan(state.crowding).any()


def test_the_best_so_far_is_never_lost():
    best = [np.asarray(state.fitness.violation).min() for state in generations(15)]
    assert (np.diff(best) <= 0).all()
    feasible = [s.fitness.objectives for s in generations(15) if not s.fitness.violation.any()]
    least = np.array([np.asarray(objectives).min(axis=0) for objectives in feasible])
    assert len(least) > 3 and (np.diff(least, axis=0) <= 0).all()


def test_the_generation_counter_counts():
    assert [int(state.generation_counter) for state in generations(4)] == [0, 1, 2, 3, 4]


def test_the_same_key_twice_is_equal_to_the_bit_and_another_is_not():
    one, again, other = (list(generations(6, seed=seed)) for seed in (3, 3, 4))
    assert_equal_trees(one, again)
    assert (np.asarray(one[-1].population) != np.asarray(other[-1].population)).any()


# --- hard cases -----------------------------------------------------------------------------


def scored(score):
    """The last state of a short search whose objectives are `score` of the exact ones."""
    return list(generations(6, score=lambda genomes: score(evaluate(genomes))))[-1]


def assert_sound(state):
    assert all(np.isfinite(part).all() for part in state.fitness)
    assert not np.isnan(state.crowding).any()
    rank, _ = assess(state.population, state.fitness, enough=SIZE)
    np.testing.assert_array_equal(state.rank, rank)


def test_a_flat_objective():
    state = scored(lambda given: Fitness(given.objectives.at[:, 0].set(1), given.violation))
    assert_sound(state)
    assert (state.fitness.objectives[:, 0] == 1).all()


def test_all_objectives_flat():
    assert_sound(scored(lambda given: Fitness(0 * given.objectives, 0 * given.violation)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_failed_evaluations_leave_as_soon_as_others_are_there(bad):
    """Half of all genomes fail; no survivor is one of them once 24 others were seen."""

    def score(given):
        fails = given.objectives[:, :1] % 2 == 1
        return Fitness(jnp.where(fails, bad, given.objectives), given.violation)

    state = scored(score)
    assert_sound(state)
    assert (np.asarray(state.fitness.objectives)[:, 0] % 2 == 0).all()


def test_everything_fails():
    state = scored(lambda given: Fitness(given.objectives * jnp.nan, given.violation))
    assert_sound(state)
    assert (state.fitness.violation > 0).all()


def test_an_infeasible_population_has_the_least_violating_as_its_front():
    """Optuna and moo-rs forgot the case: no front, or no winner of a tournament."""
    given = evaluate(distinct_genomes(0, SIZE))
    given = Fitness(given.objectives, jnp.arange(SIZE, dtype=jnp.float32)[::-1] + 1)
    state = ALGORITHM.init(KEY, jnp.asarray(distinct_genomes(0, SIZE)), given, PARAMS)
    assert np.flatnonzero(ALGORITHM.get_front(state)).tolist() == [SIZE - 1]
    np.testing.assert_array_equal(state.rank, np.arange(SIZE)[::-1])


@pytest.mark.parametrize("size", [2, 5])
def test_populations_of_two_and_of_odd_size(size):
    algorithm = NSGA2.integers(size, np.full(GENES, 3))
    for state in generations(5, algorithm=algorithm):
        assert state.population.shape == (size, GENES)
        rank, _ = assess(state.population, state.fitness, enough=size)
        np.testing.assert_array_equal(state.rank, rank)


def test_one_objective():
    states = list(generations(8, score=lambda genomes: fitness(costs(np.asarray(genomes))[:, :1])))
    first, last = (np.asarray(state.fitness.objectives).min() for state in states[::8])
    assert last < first


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


def test_a_tight_memory_limit_is_met():
    """Three devices whose memory together holds 1.05 times the weights; all mappings are known."""
    layers, devices = GENES, 3
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 100, layers)
    capacity = np.array([0.75, 0.25, 0.05]) * sizes.sum()

    def score(genomes):
        genomes = np.asarray(genomes)
        used = ((genomes[:, :, None] == np.arange(devices)) * sizes[:, None]).sum(axis=1)
        return fitness(costs(genomes), np.maximum(used / capacity - 1, 0).sum(axis=1))

    every = score(np.indices((devices,) * layers).reshape(layers, -1).T)
    allowed = np.asarray(every.violation) == 0
    assert 0 < allowed.mean() < 0.01
    *_, last = generations(60, score=score)
    assert not np.asarray(last.fitness.violation).any()
    true = np.asarray(every.objectives)[allowed].astype(float)
    corner = true.max(axis=0) + 1
    found = moocore.hypervolume(np.asarray(last.fitness.objectives).astype(float), ref=corner)
    assert found > 0.95 * moocore.hypervolume(true, ref=corner)


# --- measuring again ------------------------------------------------------------------------


def test_rescoring_keeps_the_individuals_and_ranks_them_anew():
    state = list(generations(5))[-1]
    fresh = fitness(-costs(np.asarray(state.population)))
    again = ALGORITHM.rescore(state, fresh)
    np.testing.assert_array_equal(again.population, state.population)
    assert again.generation_counter == state.generation_counter
    assert_equal_trees(again.fitness, fresh)
    rank, crowding = assess(state.population, fresh, enough=SIZE)
    np.testing.assert_array_equal(again.rank, rank)
    np.testing.assert_array_equal(again.crowding, crowding)
    assert (again.rank != state.rank).any()


def test_rescoring_guards_against_failures():
    state = list(generations(1))[-1]
    again = ALGORITHM.rescore(state, fitness(np.full((SIZE, 2), np.nan)))
    assert np.isfinite(again.fitness.objectives).all() and (again.fitness.violation > 0).all()


# --- evosax's form --------------------------------------------------------------------------


def test_it_is_an_evosax_algorithm():
    assert isinstance(ALGORITHM, PopulationBasedAlgorithm)
    assert ALGORITHM.population_size == SIZE and ALGORITHM.num_dims == GENES
    population = ALGORITHM.sample(KEY)
    state = ALGORITHM.init(KEY, population, evaluate(population), PARAMS)
    offspring, asked = ALGORITHM.ask(KEY, state, PARAMS)
    assert_equal_trees(asked, state)
    state, metrics = ALGORITHM.tell(KEY, offspring, evaluate(offspring), state, PARAMS)
    assert isinstance(metrics, dict) and metrics["generation_counter"] == 1
    assert ALGORITHM.get_population(state).shape == (SIZE, GENES)
    with pytest.raises(InputError, match="no single best"):
        ALGORITHM.get_best_solution(state)


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
    assert_equal_trees(score(algorithm.get_population(last)), last.fitness)


def test_rates_are_parameters():
    state = list(generations(3))[-1]
    parents = {row.tobytes() for row in np.asarray(state.population)}
    still = PARAMS.replace(crossover_rate=jnp.float32(0), mutation_rate=jnp.float32(0))
    unchanged, _ = ALGORITHM.ask(KEY, state, still)
    assert {row.tobytes() for row in np.asarray(unchanged)} <= parents
    wild, _ = ALGORITHM.ask(KEY, state, PARAMS.replace(mutation_rate=jnp.float32(1)))
    assert not {row.tobytes() for row in np.asarray(wild)} & parents


def test_better_individuals_have_more_children():
    state = list(generations(1))[-1]
    still = PARAMS.replace(crossover_rate=jnp.float32(0), mutation_rate=jnp.float32(0))
    asks = jax.vmap(lambda key: ALGORITHM.ask(key, state, still)[0])
    children = np.asarray(asks(jax.random.split(KEY, 500))).reshape(-1, GENES)
    rows = np.asarray(state.population)
    times = np.array([(children == row).all(axis=1).sum() for row in rows]) / 500
    order = np.lexsort((-state.crowding, state.rank, state.fitness.violation))
    assert times[order[0]] > 1.5 and times[order[-1]] < 0.5
    assert np.mean(times[order[: SIZE // 2]]) > 1.3


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


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NSGA2.integers(1, np.array([2, 2])), "population is 1"),
        (lambda: NSGA2.integers(4, np.array([2, 0])), "at least 1 choice"),
        (lambda: NSGA2.integers(4, np.array([[2, 2]])), "at least 1 choice"),
        (lambda: NSGA2.integers(4, np.array([], int)), "no genes"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.ones(3)), "bounds"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.array([1.0, 0])), "bounds"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.array([1.0, np.nan])), "bounds"),
        (lambda: NSGA2.reals(4, np.zeros(2), np.array([1.0, np.inf])), "finite"),
    ],
)
def test_searches_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("genomes", "rows", "message"),
    [
        (np.zeros((SIZE, GENES), np.float32), SIZE, "float32"),
        (np.zeros((SIZE, GENES + 1), np.int32), SIZE, "11"),
        (np.zeros((SIZE - 1, GENES), np.int32), SIZE - 1, "23"),
        (np.zeros((SIZE, GENES), np.int32), SIZE - 1, "23 rows"),
    ],
)
def test_populations_and_fitness_that_do_not_fit_are_refused(genomes, rows, message):
    with pytest.raises(InputError, match=message):
        ALGORITHM.init(KEY, jnp.asarray(genomes), fitness(np.zeros((rows, 2))), PARAMS)
