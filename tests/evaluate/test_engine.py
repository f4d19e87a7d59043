"""Rows run together: the same answers as one by one, whatever memory allows, and shared work."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import engine, evaluator, execution, sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults.sites import Fault, Site
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.stages import stages
from afpjax.network.trace import trace

from .together import FAULTS, TRIALS, conv, one_by_one, together

IMAGES = 70  # a batch of 64, and one of 6 that is padded
SHAPES = dict(
    stem=(3, 3, 3, 4), up=(3, 3, 4, 4), side=(1, 1, 4, 4), left=(1, 1, 4, 3), right=(3, 3, 4, 3),
    hidden=(6, 5), out=(5, 4),
)  # fmt: skip


def branchy(p, x):
    """A residual block with a projection, then two branches side by side, then a dense head."""
    stem = jax.nn.relu(conv(x, p["stem"]))
    joined = jax.nn.relu(conv(stem, p["up"]) + conv(stem, p["side"]))
    both = jnp.concatenate([conv(joined, p["left"]), conv(joined, p["right"])], axis=3)
    pooled = both.reshape(-1, 16, 6).sum(1) / 16  # a power of two: exact in any order
    return jax.nn.relu(pooled @ p["hidden"]) @ p["out"]


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(2)
    params = {name: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for name, s in SHAPES.items()}
    traced = trace(branchy, params, jnp.ones((1, 4, 4, 3)))
    sample = jnp.asarray(rng.normal(size=(16, 4, 4, 3)), jnp.float32)
    return quantize(traced, QFormat(bits=8, scale="tensor"), sample)


@pytest.fixture(scope="module")
def pictures():
    drawn = np.random.default_rng(6).normal(size=(IMAGES, 4, 4, 3))
    return jnp.asarray(drawn, jnp.float32)


@pytest.fixture(scope="module")
def truth(network, pictures):
    return np.asarray(network(pictures)).argmax(1).astype(np.int32)


@pytest.fixture(scope="module")
def mappings():
    """Random ones, mutants of one of them, the fault-free one, and a copy."""
    rng = np.random.default_rng(8)
    rows = rng.integers(0, 3, (8, len(SHAPES)))
    mutants = np.repeat(rows[:1], 4, axis=0)
    mutants[range(4), [6, 5, 2, 0]] = [0, 1, 0, 2]
    return np.concatenate([rows, mutants, 0 * rows[:1], rows[2:3]]).astype(np.int32)


@pytest.fixture(scope="module")
def alone(network, pictures, truth, mappings):
    outcomes = one_by_one(network, pictures, truth, mappings)
    assert 0.3 < outcomes.mean() < 0.95, "faults should matter here, and not swamp everything"
    assert len(np.unique(outcomes.reshape(-1, IMAGES), axis=0)) > 25
    return outcomes


#: How large calls are: every node in a call of its own, tables of single nodes, tables of tiles.
ALONE = sizes.CPU._replace(single_bytes=0)
TABLES = sizes.CPU._replace(single_bytes=2**40, rows=16)
TILES = TABLES._replace(tile=4, most_images=2**14, kernel_bytes=2**12)  # kernels in fours


@pytest.mark.parametrize(
    ("backend", "rows", "count"),
    [
        (ALONE, 1, IMAGES),
        (ALONE._replace(least_images=16, most_images=16), 3, IMAGES),
        (TABLES._replace(least_images=16, most_images=16), 64, IMAGES),
        (TABLES, 64, 1),
        (TILES._replace(least_images=9), 64, 9),
        pytest.param(TABLES._replace(rows=64), 64, IMAGES, marks=pytest.mark.slow),
        pytest.param(TILES._replace(tile=16, rows=64), 64, IMAGES, marks=pytest.mark.slow),
    ],
)
def test_outcomes_are_those_of_every_mapping_by_itself(
    network, pictures, truth, mappings, alone, backend, rows, count, monkeypatch
):
    monkeypatch.setattr(engine, "ROWS", rows)
    monkeypatch.setattr(sizes, "CPU", backend)
    got = together(network, pictures[:count], truth[:count], mappings)
    np.testing.assert_array_equal(got, alone[:, :, :count])


@pytest.mark.parametrize("backend", [ALONE, TILES], ids=["alone", "tiles"])
def test_faults_at_sites_are_the_same_in_kernels_of_their_own_and_in_sums(
    network, pictures, truth, monkeypatch, backend
):
    """Of one weight each, of several, and of weights and inputs; kernels are made in fours."""
    layers, places = (0, 1, 5), [(3, 6), (7, 7), (2, 5)]
    sites = [Site(layer, *place) for layer in layers for place in places]
    faults = [Fault.at(site) for site in sites]
    faults += [Fault.at(*sites[:5], *sites[6:])]  # too many: in kernels
    if backend is ALONE:  # other programs each
        faults += [Fault.at(*sites[::4], how="set"), Fault.at(*sites[:2], how="clear")]
        faults += [Fault.at(site, Site(2, 5, 6, "activations")) for site in sites[::3]]
    monkeypatch.setattr(sizes, "CPU", backend._replace(shared_tile=4))
    found = []
    for most in (0, 4):
        monkeypatch.setattr(evaluator, "MOST_EXCHANGED", most)
        evaluated = Evaluator(network, pictures[:9], truth[:9], 3, metric=LOGITS)
        found.append(evaluated.evaluate_sites(faults))
    np.testing.assert_array_equal(*found)
    assert (found[0] != np.asarray(network(pictures[:9]))).any(axis=(1, 2)).mean() > 0.7


def check_budget(network, images, labels, mappings, faults):
    expected = one_by_one(network, images, labels, mappings, faults, (0, 5))
    got = together(network, images, labels, mappings, faults, (0, 5))
    np.testing.assert_array_equal(got, expected)
    free = together(network, images, labels, mappings, replace(faults, budget=None), (0, 5))
    assert (got != free).any(), "the budget was made to be too small for all flips"
    return got


@pytest.mark.slow
def test_outcomes_under_a_budget_are_those_of_every_mapping_by_itself(
    network, pictures, truth, mappings
):
    """One faulty bit, here and below: XLA takes long over counting the flips of four."""
    faults = replace(FAULTS, bits=(4,), budget=12)
    check_budget(network, pictures, truth, mappings[[0, 8, 9, 12]], faults)


@pytest.mark.in_ci("15")
@pytest.mark.parametrize("budget", [0, 15])
def test_outcomes_of_dense_layers_under_a_budget(quantized, images, labels, budget):
    """On the three dense layers of conftest.py."""
    faults = replace(FAULTS, bits=(9,), budget=budget)
    mappings = np.random.default_rng(1).integers(0, 3, (5, 3)).astype(np.int32)
    got = check_budget(quantized, images, labels, mappings, faults)
    clean = np.asarray(quantized(images)).argmax(1) == labels
    assert (got == clean).all() == (budget == 0)


@pytest.fixture
def counted(monkeypatch):
    """Counts calls of compiled programs, of stages by their place and of kernels by their layer,
    and how many nodes and kernels they were told of."""
    calls, told = Counter(), Counter()

    def counting(name, compiled):
        def call(*arguments):
            calls[name] += 1
            if name[0] in ("stage", "kernel"):  # (words, how many, …), …
                count = arguments[0][1] if len(arguments[0]) > 1 else 1
                told[name] += int(count)
            return compiled.call(*arguments)

        return compiled and replace(compiled, call=call)

    def compile_programs(*arguments, compiled=engine.compile_programs):
        made = compiled(*arguments)
        run = (counting(("stage", k), run) for k, run in enumerate(made.run))
        kernels = (counting(("kernel", k), each) for k, each in enumerate(made.kernels))
        first = counting(("stage", 0), made.first)
        return replace(made, first=first, run=tuple(run), kernels=tuple(kernels))

    def compile_metric(*arguments, compiled=execution.compile_metric):
        return counting(("metric",), compiled(*arguments))

    monkeypatch.setattr(engine, "compile_programs", compile_programs)
    monkeypatch.setattr(execution, "compile_metric", compile_metric)
    monkeypatch.setattr(compiler, "workers", lambda: 1)  # a Counter is not for several threads
    return calls, told


#: The stages of `branchy` by what they depend on, written down from its source.
STEM, JOINED = {"stem"}, {"stem", "up", "side"}
BOTH = JOINED | {"left", "right"}
ANCESTORS = [set(), STEM, STEM | {"up"}, STEM | {"side"}, JOINED, JOINED | {"left"}]
ANCESTORS += [JOINED | {"right"}, BOTH, BOTH | {"hidden"}, set(SHAPES)]


def by_ancestors(network, calls):
    """Calls of each stage, by the layers that it depends on."""
    found = {}
    known = []
    for place, stage in enumerate(stages(network.program)):
        own = set() if stage.layer is None else {network.layers[stage.layer].name}
        known.append(own.union(*(known[parent] for parent in stage.parents)))
        found[frozenset(known[-1])] = calls["stage", place]
    assert set(found) == {frozenset(each) for each in ANCESTORS}
    return found


BLOCKS = dict(least_images=64, most_images=64)  # two of them


@pytest.mark.parametrize("backend", [ALONE, TABLES._replace(rows=64)], ids=["alone", "tables"])
def test_a_layerwise_sweep_runs_each_clean_stage_once_per_block(
    network, pictures, truth, counted, monkeypatch, backend
):
    monkeypatch.setattr(sizes, "CPU", backend._replace(**BLOCKS))
    layers, trials, blocks = len(SHAPES), (1, 2, 6), 2
    together(network, pictures, truth, np.eye(layers, dtype=np.int32), FAULTS, trials)
    calls, told = counted
    for ancestors, nodes in by_ancestors(network, told).items():
        clean = len(ancestors) < layers  # a layer that it does not depend on is faulty in some row
        assert nodes == blocks * (clean + len(ancestors) * len(trials))
    if backend is not ALONE:
        assert set(by_ancestors(network, calls).values()) == {blocks}
    rows = layers * len(trials)
    assert calls["metric",] == blocks * (rows if backend is ALONE else 1)


@pytest.mark.parametrize("backend", [ALONE, TABLES._replace(rows=64)], ids=["alone", "tables"])
def test_kernels_are_made_once_per_layer_device_and_trial(
    network, pictures, truth, mappings, counted, monkeypatch, backend
):
    """Whatever the number of mappings and blocks, as long as they run in one chunk of rows."""
    monkeypatch.setattr(sizes, "CPU", backend._replace(**BLOCKS))
    assert len(mappings) * len(TRIALS) <= engine.ROWS
    together(network, pictures, truth, mappings)
    for layer in range(len(SHAPES)):
        faulty = set(mappings[:, layer]) - {0}
        assert counted[1]["kernel", layer] == len(faulty) * len(TRIALS)


@pytest.mark.parametrize("rows", [64, 5])
def test_mutants_run_no_more_stages_than_they_have_distinct_values(
    network, pictures, truth, mappings, counted, ran, rows, monkeypatch
):
    """Distinct: what the layers met that a stage depends on, counted by enumeration per chunk."""
    monkeypatch.setattr(engine, "ROWS", rows)
    monkeypatch.setattr(sizes, "CPU", ALONE._replace(**BLOCKS))
    mutants, trials, blocks = mappings[[0, 8, 9, 10, 11]], (2, 7), 2
    together(network, pictures, truth, mutants, FAULTS, trials)
    names = list(SHAPES)
    assert [layer.name for layer in network.layers] == names
    calls, _ = counted
    if rows == 64:
        for ancestors, own in by_ancestors(network, calls).items():
            places = [names.index(name) for name in sorted(ancestors)]
            met = {
                (tuple(m[places]), t if m[places].any() else -1) for m in mutants for t in trials
            }
            assert own == blocks * len(met)
    stages_run = sum(n for name, n in calls.items() if name[0] == "stage")
    assert stages_run == sum(len(prepared.calls) for _, prepared, _ in ran)
    assert stages_run < 0.6 * len(ANCESTORS) * mutants.shape[0] * len(trials) * blocks


def test_a_chunk_of_a_population_is_a_call_for_every_stage_and_one_fetch(
    network, pictures, truth, counted, monkeypatch
):
    """However many mappings it has: calls, and what is sent from the host with each."""
    monkeypatch.setattr(sizes, "CPU", TILES._replace(rows=256, **BLOCKS))
    monkeypatch.setattr(engine, "ROWS", 256)
    rows = np.random.default_rng(3).integers(0, 3, (100, len(SHAPES))).astype(np.int32)
    fetched = []
    monkeypatch.setattr(execution, "fetch", lambda array: fetched.append(1) or np.asarray(array))
    together(network, pictures[:64], truth[:64], rows, FAULTS, (1,))
    calls, _ = counted
    stage_calls = sum(n for name, n in calls.items() if name[0] == "stage")
    assert stage_calls == len(ANCESTORS) and len(fetched) == 1
    assert sum(n for name, n in calls.items() if name[0] == "kernel") == len(SHAPES)
