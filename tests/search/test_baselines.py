"""The two tools that know nothing of faults, against every mapping there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.search import explore as module
from afpjax.search.baselines import (
    as_segments,
    cnnparted,
    fault_unaware,
    least_energy_delay,
    most_robust_within,
)
from afpjax.search.explore import Budget, Infeasible
from afpjax.search.objectives import Caps, costs
from afpjax.search.partition import tables_for

KEY = jax.random.key(5)
BUDGET = Budget(16, 12)


def changes(mapping):
    return int((np.diff(mapping) != 0).sum())


def product(tables, mappings):
    cost = costs(tables, mappings)
    return cost.latency_ms.astype(np.float64) * cost.energy_mj.astype(np.float64)


def points(tables, mappings, *keys):
    cost = costs(tables, mappings)
    return np.stack([getattr(cost, key) for key in keys], axis=1)


PARTED = ("latency_ms", "energy_mj", "link_latency_ms", "link_energy_mj")


def segments_by_hand(genome, layers, pieces):
    cuts, devices = sorted(genome[: pieces - 1]), genome[pieces - 1 :]
    mapping, piece = [], 0
    for layer in range(layers):
        while piece < pieces - 1 and cuts[piece] <= layer:
            piece += 1
        mapping.append(devices[piece])
    return mapping


@pytest.mark.parametrize(("layers", "pieces"), [(1, 1), (6, 3), (9, 4)])
def test_segments_are_those_of_a_plain_loop(layers, pieces):
    rng = np.random.default_rng(layers)
    cuts = rng.integers(0, layers + 1, (200, pieces - 1))
    genomes = np.concatenate([cuts, rng.integers(0, 3, (200, pieces))], axis=1).astype(np.int32)
    got = as_segments(genomes, layers, pieces)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, [segments_by_hand(g, layers, pieces) for g in genomes])
    assert max(map(changes, got)) <= pieces - 1


@pytest.mark.parametrize("segments", [0, 1, 2])
def test_cnnparted_finds_the_best_contiguous_segments(tables, every_mapping, segments, undominated):
    """0 stands for as many as there are devices."""
    told = []
    chosen, front = cnnparted(KEY, tables, BUDGET, segments=segments, progress=told.append)
    assert sum(told) == BUDGET.generations
    pieces = segments or 3
    allowed = every_mapping[[changes(mapping) < pieces for mapping in every_mapping]]
    best = undominated(points(tables, allowed, *PARTED))
    assert front.dtype == np.int32
    np.testing.assert_array_equal(front, allowed[best])
    assert max(map(changes, front)) < pieces
    assert product(tables, chosen[None]) == product(tables, allowed).min()
    assert chosen.tolist() in front.tolist()


def test_cnnparted_keeps_what_only_the_link_speaks_for(tables, every_mapping, undominated):
    """Devices that suit other layers, and a cheap link: nothing else speaks for a single device."""
    rng = np.random.default_rng(0)
    suits = jnp.asarray(rng.random((5, 3)), jnp.float32)
    mixed = tables._replace(
        latency_ms=suits,
        energy_mj=suits + 0.01,
        link_latency_ms=jnp.full(5, 1e-3),
        link_energy_mj=jnp.full(5, 2e-3),
    )
    _, front = cnnparted(KEY, mixed, BUDGET)
    allowed = every_mapping[[changes(mapping) < 3 for mapping in every_mapping]]
    best = undominated(points(mixed, allowed, *PARTED))
    np.testing.assert_array_equal(front, allowed[best])
    assert len(best) > len(undominated(points(mixed, allowed, "latency_ms", "energy_mj")))


@pytest.mark.parametrize("few", [4096, 0])
def test_the_fault_unaware_choice_is_the_least_energy_delay_product(
    tables, every_mapping, undominated, monkeypatch, few
):
    """Enumerated, and where the search is forced."""
    monkeypatch.setattr(module, "FEW", few)
    told = []
    chosen, front = fault_unaware(KEY, tables, BUDGET, progress=told.append)
    assert product(tables, chosen[None]) == product(tables, every_mapping).min()
    assert sum(told) == BUDGET.generations
    if few:
        best = undominated(points(tables, every_mapping, "latency_ms", "energy_mj"))
        np.testing.assert_array_equal(front, every_mapping[best])


def test_choices_keep_within_caps_and_memory(quantized, with_memory, every_mapping):
    tables = tables_for(quantized, with_memory(900, 1100, 1300))
    cost = costs(tables, every_mapping)
    fits = cost.violation == 0
    caps = Caps(latency_ms=float(np.quantile(cost.latency_ms[fits], 0.4)))
    allowed = every_mapping[fits & (cost.latency_ms <= caps.latency_ms)]
    assert 0 < len(allowed) < len(every_mapping)
    chosen, front = fault_unaware(KEY, tables, BUDGET, caps)
    assert product(tables, chosen[None]) == product(tables, allowed).min()
    contiguous = allowed[[changes(mapping) < 3 for mapping in allowed]]
    parted, cut = cnnparted(KEY, tables, BUDGET, caps)
    assert product(tables, parted[None]) == product(tables, contiguous).min()
    for mapping in (*front, *cut):
        assert mapping.tolist() in allowed.tolist()


def test_segments_that_fit_nowhere_are_told_as_such(quantized, with_memory):
    """The whole network needs 1,568 bytes: no device holds it, two do."""
    tables = tables_for(quantized, with_memory(900, 1100, 900))
    assert changes(cnnparted(KEY, tables, BUDGET)[0]) > 0
    with pytest.raises(Infeasible, match=r"1 contiguous segments or fewer \(search.seg") as caught:
        cnnparted(KEY, tables, BUDGET, segments=1)
    np.testing.assert_array_equal(caught.value.closest, np.ones(5))  # the roomiest device


# --- which mapping of a front is taken -------------------------------------------------------


def column(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("energy", "delay", "chosen"),
    [((5, 2, 3, 1), (5, 3, 2, 6), 1), ((3e30, 2e30), (1e30, 1e30), 1)],
    ids=["the first of equals", "beyond float32"],
)
def test_the_least_product_is_chosen(energy, delay, chosen):
    assert least_energy_delay(column(*energy), column(*delay)) == chosen


def most_robust(latency, energy, drop, latency_cap=1.0, energy_cap=1.0):
    return most_robust_within(
        column(*latency), column(*energy), column(*drop),
        latency_cap=latency_cap, energy_cap=energy_cap,
    )  # fmt: skip


@pytest.mark.parametrize("ulps", [1, 4])
def test_what_is_above_a_cap_by_rounding_is_within(ulps):
    """A cap of + 10 % of a float32 sum, and a sum that is this, but for its last digits."""
    base = np.float32(2.7)
    edge = np.float32(float(base) * 1.1)
    for _ in range(ulps):
        edge = np.nextafter(edge, np.float32(9))
    cap = float(base) * 1.1
    assert float(edge) > cap
    assert most_robust([base, edge], [0.5, 0.5], [0.4, 0.1], latency_cap=cap) == 1
    assert most_robust([0.5, 0.5], [base, edge], [0.4, 0.1], energy_cap=cap) == 1
    assert most_robust([1.0, 1.001], [0.5, 0.5], [0.4, 0.1]) == 0  # by a thousandth: not within


def test_the_rule_agrees_with_a_loop_over_random_fronts():
    rng = np.random.default_rng(4)
    for _ in range(200):
        latency, energy, drop = np.round(rng.random((3, 7)) * 4 + 1).astype(np.float32) / 4
        got = most_robust(latency, energy, drop)

        def worth(place, latency=latency, energy=energy, drop=drop):
            excess = max(latency[place], energy[place], 1.0) - 1
            return excess, drop[place], latency[place] * energy[place], place

        assert got == min(range(7), key=worth)
