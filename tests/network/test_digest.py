"""Names under which answers are kept: equal where answers are, and nowhere else."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afpjax
from afpjax.evaluate.evaluator import Evaluator
from afpjax.network import compiler, digest
from afpjax.neurons.scoring_data import ScoringData

KERNEL = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
LABELS = np.arange(5, dtype=np.int32) % 4


def network(activation=jax.nn.relu, kernel=KERNEL):
    return afpjax.trace(lambda p, x: activation(x @ p["w"]), {"w": jnp.asarray(kernel)}, IMAGES)


def evaluator(network, images=IMAGES, labels=LABELS, key=0, **fmt):
    quantized = afpjax.quantize(network, afpjax.QFormat(**{"bits": 8, "frac": 4, **fmt}))
    return Evaluator(quantized, images, labels, key, name="same")


@pytest.mark.parametrize(
    "other",
    [
        lambda: evaluator(network(jnp.tanh)),
        lambda: evaluator(network(lambda x: jnp.minimum(x, 5.0))),
        lambda: evaluator(network(kernel=KERNEL + np.float32(0.5))),
        lambda: evaluator(network(), frac=3),
        lambda: evaluator(network(), kind="float32"),
        lambda: evaluator(network(), IMAGES + np.float32(1)),
        lambda: evaluator(network(), IMAGES, LABELS[::-1].copy()),
        lambda: evaluator(network(), key=1),
    ],
)
def test_whatever_an_answer_follows_from_is_in_its_name(other):
    names = {evaluator(network(lambda x: jnp.minimum(x, 4.0))).name, evaluator(network()).name}
    assert other().name not in names


def test_units_are_in_the_name(monkeypatch):
    monkeypatch.delenv("AFPJAX_UNITS", raising=False)
    monkeypatch.setattr(compiler, "multiplies_bytes", lambda: True)
    names = [evaluator(network()).name]
    for units in compiler.UNITS:
        monkeypatch.setenv("AFPJAX_UNITS", units)
        names.append(evaluator(network()).name)
    assert len(set(names)) == 1 + len(compiler.UNITS)


@pytest.mark.parametrize("what", ["arithmetic", "options", "jaxlib"])
def test_backend_compiler_and_options_are_in_the_names(what, monkeypatch):
    def names():
        subject = ScoringData(network(), IMAGES, LABELS, {})
        return evaluator(network()).name, subject.key("taylor winner")

    before = names()
    digest.arithmetic.cache_clear()
    if what == "arithmetic":
        monkeypatch.setattr(digest, "arithmetic", lambda: "gpu NVIDIA H200")
    elif what == "options":
        changed = {"xla_cpu_prefer_vector_width": 256}
        monkeypatch.setattr(compiler, "options", lambda **which: changed)
    else:
        monkeypatch.setattr(digest, "version", lambda package: "0.11.9")
    after = names()
    monkeypatch.undo()
    digest.arithmetic.cache_clear()
    assert not set(before) & set(after)


def test_another_process_gives_the_same_names():
    code = (
        "import runpy, sys; made = runpy.run_path(sys.argv[1]);"
        "print(made['evaluator'](made['network'](made['jax'].nn.gelu)).name)"
    )
    flags = "--xla_force_host_platform_device_count=2"
    ran = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env=os.environ | {"PYTHONHASHSEED": "77", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == evaluator(network(jax.nn.gelu)).name


def test_scores_are_named_by_network_images_and_labels():
    one = ScoringData(network(), IMAGES, LABELS, {})
    others = [
        ScoringData(network(jnp.tanh), IMAGES, LABELS, {}),
        ScoringData(network(), IMAGES + np.float32(1), LABELS, {}),
        ScoringData(network(), IMAGES, LABELS[::-1].copy(), {}),
    ]
    assert ScoringData(network(), IMAGES, LABELS, {}).key("l") == one.key("l")
    assert not {other.key("l") for other in others} & {one.key("l")}
