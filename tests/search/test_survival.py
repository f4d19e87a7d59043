"""Who survives in NSGA-II: by pymoo, by moocore, and against peers' defects, each named."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

from .genomes import ALGORITHM, KEY, PARAMS, SIZE, distinct_genomes, fitness


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


def test_the_split_front_keeps_both_ends_and_its_least_crowded():
    """QDax and EvoX 0.9 drop 21 % and 47 % of the ends."""
    for seed in range(10):
        better = seed % 2 * np.random.default_rng(seed).integers(1, SIZE - 2)
        objectives = random_front(seed)
        objectives[1:-1][:better] -= 5  # a front of its own, ahead of the split one
        kept, _ = survival(seed, objectives)
        assert {0, 2 * SIZE - 1} <= set(kept)
        if not better:  # all of one front: the least crowded
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


def test_a_coin_decides_who_survives_among_equals():
    objectives = np.zeros((2 * SIZE, 2))  # one holder of the vector survives, and 23 of its copies
    kept = np.concatenate([survival(seed, objectives)[0] for seed in range(40)])
    times = np.bincount(kept, minlength=2 * SIZE)
    assert times.max() == 40 and times.min() > 5 and np.sort(times)[-2] < 35


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
    objectives = np.stack([genomes.sum(axis=1), -genomes[:, 0]], axis=1)
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
