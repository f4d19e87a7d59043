"""Several devices that share rows: the same answers as one device, in a process of its own.

As a program: evaluates on the devices that there are, and writes what came out to an .npz file.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import engine
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS, OUTCOME
from afpjax.faults import bits
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, FaultSites
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

SHAPES = dict(stem=(3, 3, 3, 4), up=(3, 3, 4, 4), out=(64, 5))
KEY, IMAGES, TRIALS = 2, 21, (0, 1, 2, 3, 9)
FAULTS = FaultModel(weight_rate=(0.0, 0.4), activation_rate=(0.0, 0.4))
BUDGET = FaultModel(bits=(4,), weight_rate=(0.0, 0.3), activation_rate=(0.0, 0.2), budget=12)
MAPPINGS = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], np.int32)
SCOPES = {
    "run": FaultModel(weight_rate=0.1, activation_rate=0.1, scope="run"),
    "image": FaultModel(kind="random", weight_rate=0.1, activation_rate=0.1, scope="image"),
    "link": FaultModel(weight_rate=(0.0, 0.1), activation_rate=0.1, link_rate=0.02),
}
NAMES = ("drawn", "few", "budget", "lost and struck", *SCOPES, "under", "outcome")
WEIGHTS, READS = (108, 144, 320), (48, 64, 64)  # of each layer


def conv(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def forward(p, x):
    stem = jax.nn.relu(conv(x, p["stem"]))
    return (conv(stem, p["up"]) + stem).reshape(-1, 64) @ p["out"]


def make():
    """The network, images and labels: the network's own, but for every fourth."""
    rng = np.random.default_rng(5)
    params = {name: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for name, s in SHAPES.items()}
    images = jnp.asarray(rng.normal(size=(IMAGES, 4, 4, 3)), jnp.float32)
    network = quantize(trace(forward, params, images[:1]), QFormat(8, scale="tensor"), images)
    labels = np.asarray(network(images)).argmax(1).astype(np.int32)
    labels[::4] = (labels[::4] + 1) % 5
    return network, images, labels


def faults_at_places():
    """Neighbours differ in what they do, in where, in how many places, and in how many rows."""
    rng, faults = np.random.default_rng(3), []

    def sites_of(layer, target, count, images=1):
        last = (WEIGHTS if target == "weights" else READS)[layer]
        elements = np.stack([rng.permutation(last)[:count] for _ in range(images)])
        words = rng.integers(1, 256, elements.shape)
        sites = FaultSites(elements.astype(np.uint32), words.astype(np.uint32))
        return {(layer, target): sites}

    for number in range(12):
        how, images = ("flip", "clear", "set")[number % 3], (1, IMAGES)[number // 3 % 2]
        faults.append(Fault(sites_of(number % 2, "weights", 1 + number), how))
        both = sites_of(2, "weights", 3)
        both |= sites_of(number % 3, "activations", 3 + number // 2 % 2, images)
        faults.append(Fault(both, ("flip", "set")[number % 2]))
    nothing = np.zeros((1, 0), np.uint32)
    empty = {(1, "activations"): FaultSites(nothing, nothing)}
    return [*faults, Fault({}), Fault(empty | sites_of(0, "weights", 5), "set")]


def shared_out(network):
    """Five networks: neurons of two devices, a third of them lost but in the first network."""
    rng = np.random.default_rng(9)
    made = [
        [rng.integers(-1 if number else 0, 2, layer.neurons) for layer in network.layers]
        for number in range(5)
    ]
    return [*made, made[1]]


def outcomes(network, images, labels) -> dict[str, Any]:
    evaluator, other = (Evaluator(network, images, labels, KEY) for _ in range(2))
    exact, outcome = (
        Evaluator(network, images, labels, KEY, metric=metric) for metric in (LOGITS, OUTCOME)
    )
    limits = thresholds(FAULTS, network, MAPPINGS)
    return {
        "drawn": evaluator.evaluate(FAULTS, limits, TRIALS),
        "evaluations": evaluator.evaluations,
        "few": evaluator.evaluate(FAULTS, thresholds(FAULTS, network, MAPPINGS[:1]), [3, 17]),
        "lost and struck": other.evaluate_placements(shared_out(network), FAULTS, TRIALS),
        "budget": evaluator.evaluate(BUDGET, thresholds(BUDGET, network, MAPPINGS), TRIALS[:3]),
        "under": exact.evaluate_sites(faults_at_places()),
        "outcome": outcome.evaluate_sites(faults_at_places()),
    } | {
        scope: evaluator.evaluate(faults, thresholds(faults, network, MAPPINGS[:2]), TRIALS)
        for scope, faults in SCOPES.items()
    }


@pytest.fixture(scope="module")
def here():
    """What one device gives."""
    if len(jax.local_devices()) != 1:
        pytest.skip("this process has several devices already")
    return outcomes(*make())


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """What three give, and the text of their programs."""
    path = tmp_path_factory.mktemp("devices") / "outcomes.npz"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=3"
    run = subprocess.run(
        [sys.executable, __file__, str(path)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    with np.load(path) as made:
        assert made["devices"] == 3
        return dict(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_several_devices_give_what_one_gives(here, there, name):
    """Numbers of trials that the devices do not divide, and faults that differ by device."""
    np.testing.assert_array_equal(there[name], here[name])
    assert len(np.unique(here[name])) > 1
    if name in ("under", "outcome"):
        rows = here[name].reshape(len(here[name]), -1)
        assert len(np.unique(rows, axis=0)) > 0.8 * len(rows)


@pytest.mark.slow
def test_rows_are_counted_once_and_a_memory_cap_changes_nothing(here, there):
    assert there["evaluations"] == here["evaluations"] == 3 * len(TRIALS) + 1
    np.testing.assert_array_equal(there["capped"], here["drawn"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drawn", *SCOPES])
def test_one_device_gives_what_every_mapping_gives_by_itself(here, kind):
    network, images, labels = make()
    faults = SCOPES.get(kind, FAULTS)
    for place, answers in enumerate(here[kind]):
        for trial, found in zip(TRIALS, answers, strict=True):
            given = dict(mapping=MAPPINGS[place], faults=faults, key=KEY, trial=trial)
            said = np.asarray(network(images, **given)).argmax(1)
            np.testing.assert_array_equal(found, said == labels)


KERNELS = {"x".join(map(str, shape)): name for name, shape in SHAPES.items()}


def layers_run(text):
    """The names of the layers that a program multiplies by, and how many products it has.

    The right operand of each convolution and matrix product in StableHLO is looked at: a kernel
    with a batch axis, or one turned into groups, has another shape than the layer's own.
    """
    types = r"stablehlo\.(?:convolution|dot_general).*: \(tensor<[^>]*>, tensor<([0-9x]+)xf32>\)"
    right = re.findall(types, text)
    assert len(right) == len(re.findall(r"stablehlo\.(?:convolution|dot_general)", text))
    assert "batching_dims" not in text
    assert set(re.findall(r"(?:feature|batch)_group_count = (\d+)", text)) <= {"1"}
    return [KERNELS[shape] for shape in right]


@pytest.mark.slow
def test_no_kernel_has_a_batch_axis_on_several_devices(there):
    run = [name for text in there["texts"] for name in layers_run(str(text))]
    assert sorted(run) == sorted(SHAPES)


def test_no_kernel_has_a_batch_axis_on_one_device():
    run = [name for text in texts_of(*make()) for name in layers_run(text)]
    assert sorted(run) == sorted(SHAPES)


def texts_of(network, images, labels):
    """The programs that are compiled for an evaluation, before compilation."""
    texts = []
    compile_all = compiler.compile_all

    def noting(programs, device=None, convolutions=()):
        if device in (None, jax.local_devices()[0]):
            texts.extend(program.as_text() for program in programs)
        return compile_all(programs, device, convolutions)

    compiler.compile_all = noting
    engine.compile_programs.cache_clear()
    try:
        Evaluator(network, images, labels, bits.seed_words(KEY)).clean(FAULTS)
    finally:
        compiler.compile_all = compile_all
    return texts


def main(path: Path) -> None:
    made = make()
    results = outcomes(*made)
    network = made[0]
    capped = Evaluator(*made, KEY, memory_bytes=30_000)
    results["capped"] = capped.evaluate(FAULTS, thresholds(FAULTS, network, MAPPINGS), TRIALS)
    np.savez(path, devices=len(jax.local_devices()), texts=texts_of(*made), **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
