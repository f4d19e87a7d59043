"""Enumeration against every pair compared, and NSGA-II as it is driven from the host."""

import itertools
from functools import partial

import jax
import moocore
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.search import explore as module
from afpjax.search.explore import Budget, Infeasible, as_fitness, explore
from afpjax.search.objectives import NO_CAPS, with_faults
from afpjax.search.pareto import hypervolume
from afpjax.search.partition import reference_point

from .world import World

KEY = jax.random.key(11)
# One size for all searches, as each size compiles: 4,096 genomes, the fewest that are searched.
MANY = (4,) * 6
BUDGET = Budget(16, 12)


class Toy:
    """Small whole-number objectives with many ties, some genomes infeasible; remembers calls."""

    def __init__(self, cardinality, *, limit=np.inf, noise=0.0):
        rng = np.random.default_rng(len(cardinality))
        self.worth = [rng.integers(0, 5, (3, choices)) for choices in cardinality]
        self.limit, self.noise = limit, noise
        self.calls: list[tuple[int, np.ndarray]] = []

    def points(self, genomes, draw=0):
        summed = sum(w[:, genomes[:, gene]].T for gene, w in enumerate(self.worth))
        shift = np.zeros(len(genomes))
        if self.noise:
            values = [hash((draw, *map(int, genome))) % 997 for genome in genomes]
            shift = self.noise * np.array(values) / 997
        return np.asarray(summed, np.float64) + shift[:, None] * [0, 0, 1]

    def violation(self, genomes):
        return np.maximum(genomes.sum(axis=1) - self.limit, 0)

    def __call__(self, draw, genomes):
        self.calls.append((draw, genomes.copy()))
        return as_fitness([*self.points(genomes, draw).T], self.violation(genomes))


@pytest.mark.parametrize("limit", [np.inf, 4])
@pytest.mark.parametrize("cardinality", [(3, 3, 3, 3), (2, 5, 1, 4), (7,)])
def test_few_genomes_are_enumerated_exactly(cardinality, limit, undominated):
    toy = Toy(cardinality, limit=limit)
    told = []
    found = explore(KEY, np.array(cardinality), toy, Budget(8, 3), progress=told.append)
    every = np.array(list(itertools.product(*map(range, cardinality))), np.int32)
    allowed = every[every.sum(axis=1) <= limit]
    points = toy.points(allowed)
    best = undominated(points)
    assert 0 < len(best) < len(every)
    np.testing.assert_array_equal(found.genomes, allowed[best])
    np.testing.assert_array_equal(found.objectives, points[best])
    assert (found.method, found.generations, found.evaluations) == ("enumeration", 0, len(every))
    assert {draw for draw, _ in toy.calls} == {0}
    np.testing.assert_array_equal(np.concatenate([g for _, g in toy.calls]), every)
    assert len(found.history) == 1 and sum(told) == 3


@pytest.fixture(scope="module")
def plain():
    """A search, what it asked for, and the progress that was told."""
    toy, told = Toy(MANY), []
    return toy, told, explore(KEY, np.array(MANY), toy, BUDGET, progress=told.append)


def test_enumeration_ends_below_4096_genomes_unless_that_takes_too_long(plain, monkeypatch):
    assert explore(KEY, np.array([4095]), Toy((4095,)), BUDGET).method == "enumeration"
    *_, found = plain
    assert (found.method, found.generations) == ("nsga2", 12)
    monkeypatch.setattr(module, "FEW", 4**6 + 1)
    assert explore(KEY, np.array(MANY), Toy(MANY), BUDGET).method == "enumeration"
    forced = explore(KEY, np.array(MANY), Toy(MANY), BUDGET, exact=False)
    np.testing.assert_array_equal(forced.genomes, found.genomes)


def test_a_search_has_one_entry_per_generation_and_a_front_without_copies(plain, undominated):
    toy, told, found = plain
    assert told == [1] * 12 and len(found.history) == 12
    np.testing.assert_array_equal(found.history[-1], found.objectives)
    corner = np.full(3, 40.0)
    expected = [moocore.hypervolume(f.astype(np.float64), ref=corner) for f in found.history]
    np.testing.assert_allclose(found.hypervolumes(corner), expected)
    assert len(np.unique(found.genomes, axis=0)) == len(found.genomes)
    assert undominated(found.objectives) == list(range(len(found.genomes)))
    np.testing.assert_array_equal(found.objectives, toy.points(found.genomes))


@pytest.mark.parametrize("renew", [False, True])
def test_a_generation_is_fetched_at_once_and_is_the_algorithms_own(renew, monkeypatch):
    """Against its steps one by one, compiled with JAX's own options."""
    toy, fetched, own = Toy(MANY, noise=1.0), [], module._fetched
    monkeypatch.setattr(
        module, "_fetched", lambda arrays: fetched.append(own(arrays)) or own(arrays)
    )
    algorithm, budget = module._algorithm(16, MANY), Budget(16, 12, renew)
    found = explore(KEY, np.array(MANY), toy, budget)
    assert len(fetched) == budget.generations + 1

    params = algorithm.default_params
    start_key, loop_key = jax.random.split(KEY)
    population = algorithm.sample(start_key)
    state = algorithm.init(start_key, population, toy(0, np.asarray(population)), params)
    for draw in range(1, budget.generations + 1):
        ask_key, tell_key = jax.random.split(jax.random.fold_in(loop_key, draw))
        offspring, state = algorithm.ask(ask_key, state, params)
        if renew:
            state = algorithm.rescore(state, toy(draw, np.asarray(state.population)))
        fitness = toy(draw if renew else 0, np.asarray(offspring))
        state, _ = algorithm.tell(tell_key, offspring, fitness, state, params)
        for expected, got in zip(
            (state.population, *state.fitness), fetched[draw][-3:], strict=True
        ):
            np.testing.assert_array_equal(got, expected)
        front = module.best(module.Evaluated(*map(np.asarray, (state.population, *state.fitness))))
        np.testing.assert_array_equal(found.history[draw - 1], front.objectives)


@pytest.mark.slow
def test_the_forced_search_finds_the_enumerated_front_under_real_faults(
    tables, objective, monkeypatch
):
    """Five layers on three devices; the drop is what the evaluator measures."""
    evaluate, cardinality = with_faults(tables, NO_CAPS, objective), np.full(5, 3)
    exact = explore(KEY, cardinality, evaluate, BUDGET)
    assert exact.method == "enumeration" and len(exact.genomes) > 8
    assert len(np.unique(exact.objectives[:, 2])) > 5  # accuracy is part of the trade-off
    monkeypatch.setattr(module, "FEW", 0)
    found = explore(KEY, cardinality, evaluate, Budget(64, 30))
    assert found.method == "nsga2" and found.evaluations <= 3**5
    corner = np.array(reference_point(tables))
    whole = moocore.hypervolume(exact.objectives.astype(np.float64), ref=corner)
    assert hypervolume(found.objectives, corner) >= 0.999 * whole > 0


@pytest.mark.parametrize("cardinality", [(3, 3), MANY])
def test_where_nothing_is_feasible_the_nearest_genome_is_told(cardinality):
    toy = Toy(cardinality, limit=-2)  # violation: the genome's sum, and 2
    with pytest.raises(Infeasible, match="no mapping keeps within the limits") as caught:
        explore(KEY, np.array(cardinality), toy, BUDGET)
    assert isinstance(caught.value, InputError)
    met = np.concatenate([genomes for _, genomes in toy.calls])
    assert caught.value.closest.sum() == met.sum(axis=1).min()


def test_the_search_finds_feasible_genomes_from_infeasible_ones():
    toy = Toy(MANY, limit=2)
    found = explore(KEY, np.array(MANY), toy, BUDGET)
    assert (toy.violation(toy.calls[0][1]) > 0).all()
    assert (toy.violation(found.genomes) == 0).all()
    # Empty fronts of early generations dominate no volume.
    volumes = found.hypervolumes(np.full(3, 30.0))
    assert volumes[0] == 0 < volumes[-1]


def test_renewed_draws_measure_survivors_again_and_only_then():
    toy = Toy(MANY, noise=4.0)
    found = explore(KEY, np.array(MANY), toy, Budget(16, 4, renew=True))
    assert [draw for draw, _ in toy.calls] == [0, 1, 2, 3, 4]
    known = {genome.tobytes() for genome in toy.calls[0][1]}
    for _, together in toy.calls[1:]:
        survivors, offspring = together[:16], together[16:]
        assert len(offspring) == 16
        assert {genome.tobytes() for genome in survivors} <= known
        known |= {genome.tobytes() for genome in offspring}
    # The front's objectives are all of the last draw, none of an earlier, luckier one.
    np.testing.assert_allclose(found.objectives, toy.points(found.genomes, 4), rtol=1e-6)
    assert not np.allclose(found.objectives, toy.points(found.genomes, 3))


def test_the_same_key_gives_the_same_answer_and_another_key_another_search(plain):
    toy, _, found = plain
    again, other = Toy(MANY), Toy(MANY)
    same = explore(KEY, np.array(MANY), again, BUDGET)
    explore(jax.random.key(12), np.array(MANY), other, BUDGET)
    np.testing.assert_array_equal(same.genomes, found.genomes)
    for one, another in zip(same.history, found.history, strict=True):
        np.testing.assert_array_equal(one, another)
    assert (other.calls[0][1] != toy.calls[0][1]).any()


@pytest.mark.parametrize(("given", "kept"), [(40, 8), (2, 2)])
def test_at_most_half_of_the_first_population_is_given(given, kept):
    initial = np.random.default_rng(2).integers(0, 4, (given, 6)).astype(np.int32)
    assert len(np.unique(initial, axis=0)) == given
    initial = np.concatenate([initial, initial[:1]])  # a copy takes no place
    toy = Toy(MANY)
    explore(KEY, np.array(MANY), toy, BUDGET, initial=initial)
    known = {genome.tobytes() for genome in initial}
    first = [genome.tobytes() for genome in toy.calls[0][1]]
    assert sum(genome in known for genome in first) == kept  # none by chance, with this key
    assert len(set(first)) == 16
    assert initial[0].tobytes() in first


def test_a_search_ends_after_the_generation_in_which_it_is_told_to():
    """Short of its generations, it is what a search of as many generations would be."""
    told, shorter = [], explore(KEY, np.array(MANY), Toy(MANY), Budget(16, 3))
    toy = Toy(MANY)
    found = explore(
        KEY, np.array(MANY), toy, BUDGET, progress=told.append, until=lambda: len(told) == 3
    )
    assert (found.generations, len(found.history), len(toy.calls)) == (3, 3, 4)
    np.testing.assert_array_equal(found.genomes, shorter.genomes)


def test_a_search_that_is_out_of_time_does_not_look_in_its_focus():
    toy, near = Toy(MANY), Toy(MANY, limit=6)
    found = explore(KEY, np.array(MANY), toy, BUDGET, focus=near, until=lambda: True)
    assert (found.generations, len(toy.calls), len(near.calls)) == (1, 2, 0)
    assert len(found.genomes) > 0


def test_a_search_needs_a_generation():
    with pytest.raises(InputError, match="generations is 0: give at least 1"):
        Budget(8, 0)


class Near(Toy):
    """The same objectives, limited to 9 in the first and 10 in the second: 57 genomes of 4,096."""

    def violation(self, genomes):
        return np.maximum(self.points(genomes)[:, :2] - [9, 10], 0).sum(axis=1)


def everything():
    return np.array(list(itertools.product(*map(range, MANY))), np.int32)


@pytest.mark.slow
def test_a_focus_finds_better_where_little_is_allowed():
    """Most of a large front lies beyond what anyone allows, and there the search used to stay.

    The made-up world has a device that is slow, frugal and tough, one cheap, and one costly.
    """
    for seed in range(4):
        world, cheapest = World(seed, layers=21), np.ones((1, 21), np.int32)
        limits = world.costs(cheapest)[0] * [1.1, 1.05]

        def over(points, limits=limits):
            return np.maximum(points[:, :2] / limits - 1, 0).sum(axis=1)

        def evaluate(draw, genomes, narrow=False, world=world, over=over):
            points = world.points(genomes)
            return as_fitness([*points.T], over(points) * narrow)

        least = []
        for focus in (partial(evaluate, narrow=True), None):
            args = jax.random.key(seed), np.full(21, 3), evaluate, Budget(32, 24)
            found = explore(*args, initial=cheapest, focus=focus).objectives
            least.append(found[over(found) <= 1e-6, 2].min())
        assert least[0] < 0.95 * least[1]


def test_the_second_half_looks_in_the_focus_alone_and_the_front_holds_both(undominated):
    toy, near = Toy(MANY), Near(MANY)
    initial = everything()[near.violation(everything()) <= 0][:1]
    told = []
    found = explore(
        KEY, np.array(MANY), toy, BUDGET, initial=initial, focus=near, progress=told.append
    )
    assert (len(toy.calls), len(near.calls)) == (7, 8)  # the front's nearest are sorted out first
    assert told == [1] * 12 and len(found.history) == 12
    assert undominated(found.objectives) == list(range(len(found.genomes)))
    np.testing.assert_array_equal(found.objectives, toy.points(found.genomes))
    inside = near.violation(found.genomes) <= 0
    assert inside.any() and (~inside).any() and len(found.genomes) <= 16
    met = np.concatenate([genomes for _, genomes in (*toy.calls, *near.calls[1:])])
    assert found.evaluations == len(np.unique(met, axis=0))


def test_a_focus_under_renewed_draws_ends_on_the_last_draw():
    toy, near = Toy(MANY, noise=4.0), Near(MANY, noise=4.0)
    initial = everything()[near.violation(everything()) <= 0][:1]
    budget = Budget(16, 4, renew=True)
    found = explore(KEY, np.array(MANY), toy, budget, initial=initial, focus=near)
    assert [draw for draw, _ in near.calls] == [2, 2, 3, 4]
    np.testing.assert_allclose(found.objectives, toy.points(found.genomes, 4), rtol=1e-6)
