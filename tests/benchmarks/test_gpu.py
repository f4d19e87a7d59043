"""`gpu`: what it counts, what it holds against the CPU, and a small run without rivals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.faults.spec import Thresholds
from benchmarks import gpu, networks, ours, population, throughput
from benchmarks.agreement import Disagrees
from benchmarks.rivals import NotInstalled
from benchmarks.table import Row
from benchmarks.timing import Contestant, Effort, Timing

IMAGES = 8


@pytest.fixture(scope="module")
def tiny():
    """Two residual blocks of few channels on 4x4 pixels, seven layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.RESIDUAL, "tiny", networks.Residual((4, 8), 1, 8))
        patch.setitem(networks.SMALL, "tiny", lambda: networks.residual("tiny"))
        yield ours.make("tiny")


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 494.7),
        ("NVIDIA H100 PCIe", 378),
        ("NVIDIA A100-SXM4-80GB", 156),
        ("NVIDIA L4", 60.5),
        ("NVIDIA L40", None),
        ("NVIDIA H1000", None),
        ("cpu", None),
    ],
)
def test_a_chips_peak_is_that_of_the_longest_name_or_none(kind, tera):
    assert gpu.peak(kind) == (None if tera is None else pytest.approx(tera * 1e12))


@pytest.mark.parametrize(
    ("name", "layers", "macs"), [("digits", 21, 2.2e6), ("resnet20", 22, 41e6)]
)
def test_small_networks_have_the_sizes_they_stand_for(name, layers, macs):
    made = ours.make(name)
    assert made.layers == layers
    assert sum(layer.macs for layer in made.quantized.layers) == pytest.approx(macs, rel=0.02)


def test_answers_are_those_of_the_cpu_and_others_are_seen(tiny, monkeypatch):
    assert "3 mappings × 2 trials" in gpu._same_as_on_the_cpu(tiny)
    asked = gpu.on_cpu

    def other_trial(made, images, limits, trial):
        return asked(made, images, limits, trial + 1)

    monkeypatch.setattr(gpu, "on_cpu", other_trial)
    with pytest.raises(Disagrees, match="should be equal"):
        gpu._same_as_on_the_cpu(tiny)


def test_the_cpus_logits_are_those_of_the_network_itself(tiny):
    """By the other way into the same draws: a call of the network with faults."""
    images = jnp.asarray(networks.images(IMAGES))
    mapping = population.mappings("random", 1, tiny.layers)
    limits = tiny.limits(ours.TWO_DEVICES, mapping)
    weights, inputs = (table[0] for table in limits[:2])
    found = gpu.on_cpu(tiny, np.asarray(images), Thresholds(weights, inputs), 5)
    own = tiny.quantized(
        images, mapping=mapping[0], faults=ours.TWO_DEVICES, key=ours.SEED, trial=5
    )
    np.testing.assert_array_equal(found, own)


def test_without_a_cpu_it_says_what_to_do(tiny, monkeypatch):
    def devices(platform=None):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(Disagrees, match="leave JAX_PLATFORMS unset: Unknown backend cpu"):
        gpu._cpu()


def test_work_is_counted_by_what_rows_have_in_common(tiny):
    """A mapping in new trials shares nothing but the first stage; twice the same row is one."""
    layers, limits = tiny.quantized.layers, tiny.limits()
    evaluator = tiny.evaluator(IMAGES)

    def struck(numbers):
        evaluator.evaluate(ours.FAULTS, limits, [int(number) for number in numbers])

    alone = gpu.work_of(tiny, Contestant("", struck, IMAGES, 4), IMAGES)
    assert alone.macs == sum(layer.macs for layer in layers)
    twice = jax.tree.map(lambda table: np.repeat(table, 2, axis=0), limits)

    def same(numbers):
        tiny.evaluator(IMAGES).evaluate(ours.FAULTS, twice, [int(number) for number in numbers])

    half = gpu.work_of(tiny, Contestant("", same, 2 * IMAGES, 4), IMAGES)
    assert half.macs == alone.macs / 2 and half.calls <= alone.calls


def test_a_share_is_said_where_the_chip_is_known():
    timing = Timing("x", (1e-6,), 1.0)
    (known,) = (gpu._row("x", timing, gpu.Work(2, 3, 5e6), 5e13),)
    assert known.ours == "2 calls a row, 10 % of the chip"
    assert known.figures["share"] == pytest.approx(0.1)
    assert gpu._row("x", timing, gpu.Work(2, 3, 5e6), None).ours == "2 calls a row"


def test_a_run_without_rivals(tiny, monkeypatch):
    def missing(*given):
        raise NotInstalled("torch is not installed")

    monkeypatch.setattr(gpu, "NAMES", ("tiny",))
    monkeypatch.setattr(throughput, "agreeing", lambda made: ([], ["no rivals"]))
    monkeypatch.setattr(gpu, "_vmapped", missing)
    monkeypatch.setattr(gpu.single, "rival", missing)
    found = list(gpu.measure(Effort(2, 0.01, True)))
    rows = [each for each in found if isinstance(each, Row)]
    notes = [each for each in found if isinstance(each, str)]
    assert [row.measure.partition(",")[0] for row in rows] == [
        "random population",
        "converged population",
        "single weight faults",
        "afpjax clean fixed point",
        "afpjax clean float32",
    ]
    assert all(row.ratio > 0 and row.unit == "images × trials/s" for row in rows)
    assert "no rivals" in notes and sum("torch is not installed" in note for note in notes) == 2
    assert dataclasses.asdict(rows[0])["figures"]["calls"] > 0
