"""What each kind of fault does to a tensor, and how long a draw holds.

Two layers of one product each show every struck value as a logit: `pixels` multiplies each of its
inputs by one, `table` one input, which is one, by each of its weights. Draws are taken from `bits`
(tested by itself); what becomes of them is enumerated here in Python's integers. Statistical tests
are fixed computations with bands of about 5 standard deviations.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from afpjax.evaluate import sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits, kinds
from afpjax.faults.inject import logits_of_trial
from afpjax.faults.model import FaultModel, thresholds
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace

from .words import FORMATS, changed, draws_of, loaded, mixed, stored

SIDE, IMAGES = 32, 16
PIXELS, TABLE = SIDE * SIDE, 9000  # neither a multiple of the packets below
KEY = 5
BITS = {  # of the kinds that strike bits; bursts need adjacent ones
    "fixed 16": (3, 4, 5, 6, 7, 8, 9),
    "fixed 8": (1, 2, 3, 4, 5, 6, 7),
    "fixed 6": (0, 1, 2, 3, 4),
    "float32": (17, 18, 19, 20, 21, 22, 23),
    "bfloat16": (2, 3, 4, 5, 6, 7, 8),
}
RATE = {kind: 0.1 if kind.startswith("lost") else 0.07 for kind in kinds.names()}
MAPPING = np.array([0, 1])  # the inputs of `pixels` are struck, and the weights of `table`


def show(params, image):
    pixels = jax.lax.conv_general_dilated(
        image, params["pixels"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    table = image[:, 0, 0, :] @ params["table"]
    return jnp.concatenate([pixels.reshape(-1, PIXELS), table], axis=1)


def values_of(name: str, count: int) -> np.ndarray:
    """Values that the format holds; never zero, so that what was lost can be told."""
    fmt, rng = FORMATS[name], np.random.default_rng(count)
    if fmt.kind == "fixed":
        codes = rng.integers(1, 2 ** (fmt.bits - 1), count) * rng.choice([-1, 1], count)
        return (codes / 2.0**fmt.frac).astype(np.float32)
    return loaded(fmt, stored(fmt, rng.normal(size=count) + np.sign(rng.normal(size=count)) / 9))


@cache
def shown(name: str) -> tuple[Quantized, np.ndarray, np.ndarray]:
    """The network, its images, and its table's values."""
    images = values_of(name, PIXELS * IMAGES).reshape(IMAGES, SIDE, SIDE, 1)
    images[:, 0, 0, 0] = 1
    table = values_of(name, TABLE)
    params = {"pixels": jnp.ones((1, 1, 1, 1)), "table": jnp.asarray(table)[None]}
    network = quantize(trace(show, params, jnp.asarray(images[:1])), FORMATS[name])
    assert [layer.name for layer in network.layers] == ["pixels", "table"]
    return network, images, table


def model(name: str, kind: str, rate: float, **options) -> FaultModel:
    """Faults of the inputs on the first device, of the weights on the second."""
    given: dict[str, Any] = dict(bits=BITS[name], burst=3, packet=13) | options
    return FaultModel(kind=kind, activation_rate=(rate, 0.0), weight_rate=(0.0, rate), **given)


@partial(jax.jit, static_argnums=0)  # a program for all rates and trials of a kind
def logits_of(spec, network, images, limits, trial):
    indices = jnp.arange(len(images), dtype=jnp.uint32)
    return logits_of_trial(spec, network, images, indices, limits, bits.seed_words(KEY), trial)


def run(name: str, faults: FaultModel, trial=0) -> tuple[np.ndarray, np.ndarray]:
    """The words that the inputs [B, n] and the weights [B, n] were read as."""
    network, images, _ = shown(name)
    limits = thresholds(faults, network, MAPPING)
    logits = logits_of(faults.spec(), network, images, limits, np.uint32(trial))
    words = stored(FORMATS[name], np.asarray(logits))
    return words[:, :PIXELS], words[:, PIXELS:]


def clean(name: str) -> tuple[np.ndarray, np.ndarray]:
    _, images, table = shown(name)
    fmt = FORMATS[name]
    table = np.broadcast_to(stored(fmt, table), (IMAGES, TABLE))
    return stored(fmt, images.reshape(IMAGES, PIXELS)), table


def oracle(faults: FaultModel, rate: float, words, draws, width: int) -> np.ndarray:
    """The words of one tensor after its faults, one by one."""
    limit, made = round(rate * 2**31), [int(word) for word in words]
    last = 0
    for place, word in enumerate(made):
        if faults.kind in ("flip", "stuck-at-0", "stuck-at-1"):
            mask = sum(
                1 << bit for bit, of in zip(faults.bits, draws, strict=True) if of[place] < limit
            )
            how = {"flip": "flip", "stuck-at-0": "clear", "stuck-at-1": "set"}[faults.kind]
            made[place] = changed(how, word, mask)
        elif faults.kind.startswith("lost"):
            if draws[0][place // faults.packet] < limit:
                made[place] = last if faults.kind == "lost-last" else 0
            else:
                last = word
        elif draws[0][place] < limit:
            if faults.kind == "burst":
                starts = len(faults.bits) - faults.burst + 1
                first = faults.bits[0] + (draws[1][place] >> 15) * starts // 2**16
                made[place] = word ^ sum(1 << int(first) + k for k in range(faults.burst))
            elif faults.kind == "random":
                made[place] = word ^ mixed(int(draws[1][place]) ^ 0x6C62272E) % 2**width
            else:
                made[place] = 0
    return np.array(made)


def same_words(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Floats as their values: a product may have another NaN, and no subnormal numbers."""
    fmt = FORMATS[name]
    if fmt.kind != "fixed":
        got, expected = (loaded(fmt, each).astype(np.float32) for each in (got, expected))
        tiny = np.finfo(np.float32).tiny
        expected = np.where(np.abs(expected) < tiny, np.float32(0), expected)
        got = np.where(np.abs(got) < tiny, np.float32(0), got)
    np.testing.assert_array_equal(got, expected)


def as_drawn(name: str, faults: FaultModel, rate: float) -> None:
    """Inputs of three images and the weights, in two trials, are what their draws say.

    No rate is part of a draw: what is struck at a lower rate is among that at a higher.
    """
    width, length = FORMATS[name].width, 1
    count = len(faults.bits) if faults.kind in ("flip", "stuck-at-0", "stuck-at-1") else 2
    if faults.kind.startswith("lost"):
        count, length = 1, faults.packet
    inputs, table = clean(name)
    struck = 0
    for trial in (0, 3):
        read, weights = run(name, faults, trial)
        for image in (0, 1, IMAGES - 1):
            draws = draws_of((KEY, trial, 0, image), 1, (-(-PIXELS // length),), count)
            expected = oracle(faults, rate, inputs[image], draws, width)
            same_words(name, read[image], expected)
            struck += (expected != inputs[image]).sum()
        draws = draws_of((KEY, trial, 1, 0), 0, (-(-TABLE // length),), count)
        expected = oracle(faults, rate, table[0], draws, width)
        if FORMATS[name].kind == "fixed":  # by which the table is multiplied
            assert inputs[0, 0] == 1 << FORMATS[name].frac
        same_words(name, weights, np.broadcast_to(expected, weights.shape))
    assert struck > 0.005 * 6 * PIXELS


@pytest.mark.in_ci(
    *(f"fixed 16-{kind}" for kind in kinds.names()),
    "bfloat16-flip",
    "float32-burst",
    "fixed 6-stuck-at-0",
    "fixed 8-lost-last",
)
@pytest.mark.parametrize("kind", kinds.names())
@pytest.mark.parametrize("name", FORMATS)
def test_each_kind_does_what_its_draws_say(name, kind):
    as_drawn(name, model(name, kind, RATE[kind]), RATE[kind])


@pytest.mark.parametrize(
    ("kind", "rate", "options"),
    [
        ("burst", 0.5, dict(bits=range(8), burst=8)),
        ("burst", 1.0, dict(bits=(7,), burst=1)),
        ("lost-last", 0.5, dict(packet=1)),
        ("lost", 0.5, dict(packet=256)),  # the last packet of the table is shorter
        ("lost", 0.5, dict(packet=100_000)),  # all of a tensor
        ("lost-last", 1.0, {}),  # nothing ever arrives
    ],
)
def test_the_ends_of_what_kinds_can_have(kind, rate, options):
    as_drawn("fixed 8", model("fixed 8", kind, rate, **options), rate)


def pooled(name: str, faults: FaultModel) -> tuple[np.ndarray, np.ndarray]:
    """All words before and after, inputs and weights behind each other."""
    (inputs, table), (read, weights) = clean(name), run(name, faults)
    before, after = (inputs.ravel(), table[0]), (read.ravel(), weights[0])
    return np.concatenate(before), np.concatenate(after)


def assert_rate(hits: int, of: int, rate: float) -> None:
    assert stats.binomtest(int(hits), int(of), rate).pvalue > 1e-6, (hits / of, rate)


def test_bursts_begin_anywhere_alike_and_random_values_are_any_word_alike():
    """A random word is so whatever the value was; so one in 2^width is what it was before."""
    name = "fixed 16"
    before, after = pooled(name, model(name, "burst", 0.07))
    hit = before ^ after
    runs = [0b111 << first for first in BITS[name][:-2]]
    assert set(np.unique(hit)) == {0, *runs}
    assert_rate((hit != 0).sum(), hit.size, 0.07)
    assert stats.chisquare([(hit == run).sum() for run in runs]).pvalue > 1e-6
    before, after = pooled(name, model(name, "random", 1.0))
    for low in (0, 8):
        counts = np.bincount(after >> low & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
    pairs = np.bincount((before & 7) * 8 + (after & 7), minlength=64).reshape(8, 8)
    independent = np.outer(pairs.sum(1), pairs.sum(0)) / pairs.sum()
    chi_square = ((pairs - independent) ** 2 / independent).sum()
    assert stats.chi2.sf(chi_square, 49) > 1e-6


@pytest.mark.parametrize("scope", ["", "run", "trial", "image"])
def test_a_scope_is_what_of_the_draws_place_is_left_out(scope):
    """The streams by number: of trial 3, or 0 for a whole run; of the image, or of all."""
    name, kind, rate, trial = "fixed 8", "random", 0.2, 3
    faults = model(name, kind, rate, scope=scope)
    (inputs, table), (read, weights) = clean(name), run(name, faults, trial)
    of = 0 if scope == "run" else trial
    for image in (0, 2, IMAGES - 1):
        own = image if scope in ("", "image") else 0
        draws = draws_of((KEY, of, 0, own), 1, (PIXELS,), 2)
        np.testing.assert_array_equal(read[image], oracle(faults, rate, inputs[image], draws, 8))
        draws = draws_of((KEY, of, 1, image if scope == "image" else 0), 0, (TABLE,), 2)
        np.testing.assert_array_equal(weights[image], oracle(faults, rate, table[0], draws, 8))


# Those on the network of conftest.py: single calls and evaluations of many.
CASES = [("lost-last", ""), ("random", ""), ("random", "image"), ("flip", "run")]
FLOATS = [("bfloat16", "stuck-at-1", ""), ("float32", "burst", "trial")]
DEVICES = np.array([[1, 1, 1], [0, 1, 0], [1, 0, 1]], np.int32)
TRIALS = (0, 4)


@pytest.fixture(scope="module")
def memory() -> dict[bytes, bytes]:
    """That of all evaluators: kinds and scopes do not share what is remembered."""
    return {}


@pytest.mark.parametrize(
    ("name", "kind", "scope"),
    [
        *(("fixed 8", *case) for case in CASES),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in FLOATS),
    ],
)
def test_evaluations_give_what_single_calls_give(
    name, kind, scope, network_of, images, memory, monkeypatch
):
    """Logits image by image; in whatever batches, where images share draws."""
    network, labels = network_of(FORMATS[name]), np.zeros(len(images), np.int32)
    rates: dict[str, Any] = dict(weight_rate=(0.0, 0.05), activation_rate=(0.0, 0.1))
    faults = FaultModel(kind=kind, scope=scope, bits=BITS[name], burst=2, packet=3, **rates)
    limits = thresholds(faults, network, DEVICES)

    @jax.jit
    def single(mapping, trial):
        return network(images, mapping=mapping, faults=faults, key=9, trial=trial)

    alone = np.stack([[single(mapping, trial) for trial in TRIALS] for mapping in DEVICES])
    for batch in (64, 16) if scope in ("run", "trial") else (64,):
        monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=batch, most_images=batch))
        own = memory if batch == 64 else {}
        evaluator = Evaluator(network, images, labels, 9, metric=LOGITS, memory=own)
        got = evaluator.evaluate(faults, limits, TRIALS)
        if FORMATS[name].kind == "fixed":
            np.testing.assert_array_equal(got, alone)
        else:
            np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-5)
        assert evaluator.evaluations == len(DEVICES) * len(TRIALS)


def test_without_weight_faults_the_scope_image_is_the_usual_one():
    """Activations are drawn for every image anyway: nobody pays for kernels of each image."""
    usual = FaultModel(weight_rate=0.0, activation_rate=0.3)
    assert replace(usual, scope="image").spec() == usual.spec()
    assert FaultModel(scope="image").spec() != FaultModel().spec()
