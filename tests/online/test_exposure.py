"""What layers lose by rate, and the exact program beside enumeration of all mappings."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOSS
from afpjax.inputs.errors import InputError
from afpjax.online.environment import nominal_state
from afpjax.online.exposure import (
    CASES,
    Exposure,
    ExposureLearner,
    carried,
    least_exposed,
    measured,
    struck,
)
from afpjax.online.runtime_costs import as_keys
from afpjax.search.objectives import LossObjective, RobustnessObjective, costs

BUILT = nominal_state((0.02, 0.2, 0.0), (0.05, 0.3, 0.0))
FAULTY = BUILT._replace(weight_rate=(0.4, 0.2, 0.01), activation_rate=(0.4, 0.3, 0.02))
WEIGHTS = BUILT._replace(weight_rate=(0.4, 0.2, 0.1))
LOST = FAULTY._replace(present=(False, True, True))
ALONE = BUILT._replace(present=(False, False, True))
HOT = FAULTY._replace(latency=(3.0, 1.0, 1.0), energy=(1.0, 1.5, 0.5))


@pytest.fixture(scope="module")
def allowing(search_of, faults, tables, every_mapping):
    """A system that may spend so much more than the fault-unaware choice."""
    cost = costs(tables, every_mapping)
    product = np.asarray(cost.latency_ms, np.float64) * cost.energy_mj
    unaware = as_keys(every_mapping[[product.argmin()]])[0]
    system = search_of(
        faults=faults, unaware=unaware, choice_trials=2, budget_ms=1e9, allow_latency=0.0,
        allow_energy=0.0,
    )  # fmt: skip

    def of(latency, energy):
        return dataclasses.replace(
            system, allow_latency=latency, allow_energy=energy, known_limits={}
        )

    return of


@pytest.mark.parametrize(
    "state", [BUILT, FAULTY, WEIGHTS, LOST, HOT, HOT._replace(present=LOST.present)]
)
@pytest.mark.parametrize("allowed", [(0.1, 0.05), (0.2, 0.1), (0.5, 0.5), (99.0, 99.0)])
def test_the_least_exposed_is_that_of_all_mappings(allowing, every_mapping, tables, state, allowed):
    system, layers = allowing(*allowed), np.arange(5)
    cost, caps = costs(system.tables_now(state), every_mapping), system.limits(state)
    may = (cost.latency_ms <= caps.latency_ms * (1 + 1e-6)) & (
        cost.energy_mj <= caps.energy_mj * (1 + 1e-6)
    )
    may &= np.array(state.present)[every_mapping].all(axis=1)
    rng = np.random.default_rng(1)
    for exposure in (carried(tables), Exposure(*rng.gamma(1.0, size=(2, 5)))):
        found = least_exposed(system, state, exposure)
        assert found is not None
        place = np.ravel_multi_index(found, (3,) * 5)
        exposed = exposure.of_devices(state)
        sums = exposed[layers, every_mapping].sum(axis=1)
        assert may[place]
        # But for the trifle by which of equals the cheaper one is taken.
        assert sums[place] <= sums[may].min() + 1e-3 * exposed.mean()


def test_exposure_is_to_each_target_at_its_own_rate():
    exposure = Exposure(np.array([1.0, 2.0]), np.array([10.0, 0.0]))
    state = nominal_state((0.1, 0.5), (0.2, 0.0))
    np.testing.assert_allclose(exposure.of_devices(state), [[2.1, 0.5], [0.2, 1.0]])


def test_of_equals_the_cheaper_is_taken(allowing, every_mapping, tables):
    """All devices err alike: what remains is the cost."""
    alike = nominal_state((0.2,) * 3, (0.2,) * 3)
    found = least_exposed(allowing(9.0, 9.0), alike, carried(tables))
    cost, caps = costs(tables, every_mapping), allowing(9.0, 9.0).limits(alike)
    share = cost.latency_ms / caps.latency_ms + cost.energy_mj / caps.energy_mj
    assert found is not None
    place = np.ravel_multi_index(found, (3,) * 5)
    assert share[place] == pytest.approx(share.min(), abs=0.01 * float(np.ptp(share)))


def test_one_device_none_and_no_room(allowing, tables):
    assert least_exposed(allowing(9.0, 9.0), ALONE, carried(tables)) == (2,) * 5
    assert least_exposed(allowing(-0.9, -0.9), BUILT, carried(tables)) is None
    gone = BUILT._replace(present=(False,) * 3)
    with pytest.raises(InputError, match="all devices are gone"):
        least_exposed(allowing(9.0, 9.0), gone, carried(tables))


class Made(LossObjective):
    """Logits fall by what each struck target is worth times the rate, and a little luck."""

    worth: Any
    strength: float
    rates: list[float]

    def __init__(self, worth, strength):
        object.__setattr__(self, "worth", worth)
        object.__setattr__(self, "strength", strength)
        object.__setattr__(self, "rates", [])

    @property
    def images(self):
        return 32

    def names(self, mappings):
        return [mapping.tobytes() for mapping in np.asarray(mappings, np.int32)]

    def fault_free(self):
        return 0.97, 0.1

    def outcomes(self, mappings, numbers, factor=1.0):
        self.rates.append(factor)
        hurt = (CASES[mappings] * self.worth).sum(axis=(1, 2)) * factor * self.strength
        luck = np.random.default_rng([len(mappings), int(1e6 * factor)]).normal(
            size=(len(mappings), len(list(numbers)))
        )
        share = 0.1 + 0.87 / (1 + np.exp(hurt[:, None] - 4 + 0.2 * luck))
        return np.round(32 * share).astype(np.int64), -np.log(share)


@pytest.mark.parametrize("strength", [1.0, 20.0])
def test_what_each_layer_loses_is_learnt(strength):
    """At a rate at which halves tell something, however strong faults are."""
    worth = np.random.default_rng(3).gamma(1.0, size=(12, 2))
    objective = Made(worth, strength)
    learner = ExposureLearner(objective, 12, 0.1, seed=5)
    cases, found = learner.cases(), learner.learn()
    assert cases.shape == (measured(12), 12) == (72, 12)
    assert (np.stack([(cases == case).sum(axis=0) for case in range(4)]) == 18).all()
    learnt = np.stack(found, axis=1)
    correlation: Any = stats.pearsonr(learnt.ravel(), worth.ravel())
    assert correlation.statistic > 0.9
    assert (learnt > 0).all()
    assert len(set(objective.rates[-3:])) == 1 and objective.rates[-1] == learner.rate()
    if strength > 1:
        assert learner.rate() < 0.5
    again = learner.learn()
    np.testing.assert_array_equal(np.stack(again), np.stack(found))


def test_cases_strike_weights_and_activations_alone_and_together(quantized, images, labels, faults):
    objective = struck(Evaluator(quantized, images, labels, 9, metric=LOSS), faults)
    model = objective.faults(0.25)
    assert model.weight_rate == (0.0, 0.25, 0.0, 0.25)
    assert model.activation_rate == (0.0, 0.0, 0.25, 0.25)
    right, loss = objective.outcomes(np.zeros((1, 5), np.int32), range(2), 0.5)
    assert (right == round(objective.fault_free()[0] * 48)).all()
    np.testing.assert_allclose(loss, objective.fault_free()[1])


def test_exposure_ranks_mappings_at_rates_that_were_never_measured(
    quantized, images, labels, evaluator, faults, every_mapping
):
    """Learnt at one rate for all; mappings of devices with three others, weights apart."""
    cases = struck(Evaluator(quantized, images, labels, 9, metric=LOSS), faults)
    found = ExposureLearner(cases, 5, 0.25, seed=0).learn()
    some = every_mapping[::2]
    apart = BUILT._replace(weight_rate=(0.4, 0.05, 0.0), activation_rate=(0.05, 0.3, 0.0))
    for state in (FAULTY, apart):
        objective = RobustnessObjective(evaluator, state.faults(faults), 1)
        accuracy = objective.accuracy(some, range(100, 112))
        exposed = found.of_devices(state)[np.arange(5), some].sum(axis=1)
        ranked: Any = stats.spearmanr(exposed, accuracy)
        assert ranked.statistic < -0.8
