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

from afpjax.evaluate import engine
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits, kinds
from afpjax.faults.model import FaultModel, thresholds
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace

from .words import FORMATS, changed, forward, kernels_of, loaded, stored

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


def run(name: str, faults: FaultModel, trial=0) -> tuple[np.ndarray, np.ndarray]:
    """The words that the inputs [B, n] and the weights [B, n] were read as."""
    network, images, _ = shown(name)
    logits = network(jnp.asarray(images), mapping=MAPPING, faults=faults, key=KEY, trial=trial)
    words = stored(FORMATS[name], np.asarray(logits))
    return words[:, :PIXELS], words[:, PIXELS:]


def clean(name: str) -> tuple[np.ndarray, np.ndarray]:
    _, images, table = shown(name)
    fmt = FORMATS[name]
    table = np.broadcast_to(stored(fmt, table), (IMAGES, TABLE))
    return stored(fmt, images.reshape(IMAGES, PIXELS)), table


def uniform(layer, target, size, count, trial=0, image=None, key=KEY) -> np.ndarray:
    """The 31-bit draws of an operand, [count, size]; without an image, those of image 0."""
    numbers = (np.uint32(number) for number in (layer, trial, image or 0))
    return np.asarray(_draws(size, count, target, bits.seed_words(key), *numbers), np.int64)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draws(size, count, target, seed, layer, trial, image):
    stream = bits.stream(seed, trial=trial, layer=layer, target=target, image=image)
    return jnp.stack(bits.draws(stream, (size,), count))


def mixed(word: int) -> int:
    """Wellons' triple32 in Python's integers."""
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        word = (word ^ word >> shift) * factor % 2**32
    return word ^ word >> 14


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


@pytest.mark.in_ci(
    "fixed 16-flip",
    "fixed 16-stuck-at-0",
    "fixed 16-stuck-at-1",
    "fixed 16-burst",
    "fixed 16-zero",
    "fixed 16-random",
    "fixed 16-lost",
    "fixed 16-lost-last",
    "bfloat16-flip",
    "float32-burst",
    "fixed 6-stuck-at-0",
    "fixed 8-lost-last",
)
@pytest.mark.parametrize("kind", kinds.names())
@pytest.mark.parametrize("name", FORMATS)
def test_each_kind_does_what_its_draws_say(name, kind):
    """Inputs of three images and the weights, in two trials."""
    faults, width = model(name, kind, RATE[kind]), FORMATS[name].width
    count = len(faults.bits) if kind in ("flip", "stuck-at-0", "stuck-at-1") else 2
    count = 1 if kind.startswith("lost") else count
    length = faults.packet if kind.startswith("lost") else 1
    inputs, table = clean(name)
    for trial in (0, 3):
        read, weights = run(name, faults, trial)
        for image in (0, 1, IMAGES - 1):
            draws = uniform(0, 1, -(-PIXELS // length), count, trial, image)
            expected = oracle(faults, RATE[kind], inputs[image], draws, width)
            same_words(name, read[image], expected)
            assert (expected != inputs[image]).mean() > 0.005
        draws = uniform(1, 0, -(-TABLE // length), count, trial)
        expected = oracle(faults, RATE[kind], table[0], draws, width)
        one = 1 << FORMATS[name].frac if FORMATS[name].kind == "fixed" else None
        assert one is None or inputs[0, 0] == one
        same_words(name, weights, np.broadcast_to(expected, weights.shape))


def pooled(name: str, faults: FaultModel, trials=1) -> tuple[np.ndarray, np.ndarray]:
    """All words before and after, inputs and weights of several trials behind each other."""
    before, after = [], []
    inputs, table = clean(name)
    for trial in range(trials):
        read, weights = run(name, faults, trial)
        before += [inputs.ravel(), table[0]]
        after += [read.ravel(), weights[0]]
    return np.concatenate(before), np.concatenate(after)


def assert_rate(hits: int, of: int, rate: float) -> None:
    assert stats.binomtest(int(hits), int(of), rate).pvalue > 1e-6, (hits / of, rate)


@pytest.mark.parametrize("name", ["fixed 16", "fixed 6", "bfloat16"])
def test_stuck_bits_change_only_those_that_are_otherwise(name):
    """What is struck shows in half of the bits; the rest, and bits that cannot fail, stay."""
    for kind, stuck in (("stuck-at-1", 1), ("stuck-at-0", 0)):
        before, after = pooled(name, model(name, kind, 0.07))
        for bit in range(FORMATS[name].width):
            was, now = before >> bit & 1, after >> bit & 1
            assert (now[was == stuck] == stuck).all()
            others = now[was != stuck]
            if bit in BITS[name]:
                assert_rate((others == stuck).sum(), len(others), 0.07)
            else:
                assert (others != stuck).all()


@pytest.mark.parametrize("name", ["fixed 16", "fixed 8", "fixed 6", "bfloat16"])
@pytest.mark.parametrize("length", [1, 3])
def test_a_burst_is_adjacent_bits_from_every_start_alike(name, length):
    before, after = pooled(name, model(name, "burst", 0.07, burst=length))
    hit = before ^ after
    runs = [(2**length - 1) << first for first in BITS[name] if first + length - 1 in BITS[name]]
    assert len(runs) == len(BITS[name]) - length + 1
    assert set(np.unique(hit)) == {0, *runs}
    assert_rate((hit != 0).sum(), hit.size, 0.07)
    assert stats.chisquare([(hit == run).sum() for run in runs]).pvalue > 1e-6


def test_a_burst_of_all_bits_flips_all_of_them():
    before, after = pooled("fixed 8", model("fixed 8", "burst", 0.5, bits=range(8), burst=8))
    assert set(np.unique(before ^ after)) == {0, 0xFF}
    before, after = pooled("fixed 8", model("fixed 8", "burst", 1.0, bits=(7,), burst=1))
    assert set(np.unique(before ^ after)) == {0x80}


@pytest.mark.parametrize("name", FORMATS)
def test_a_zeroed_value_is_the_code_zero(name):
    before, after = pooled(name, model(name, "zero", 0.07))
    assert (before != 0).all()
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    assert_rate((after == 0).sum(), after.size, 0.07)


@pytest.mark.parametrize("name", ["fixed 16", "fixed 8", "fixed 6"])
def test_a_random_value_is_every_word_alike(name):
    """Whatever it was; so one in 2^width is what it was before."""
    width = FORMATS[name].width
    before, after = pooled(name, model(name, "random", 1.0))
    for low in range(0, width, 8):
        size = min(8, width - low)
        counts = np.bincount(after >> low & (2**size - 1), minlength=2**size)
        assert stats.chisquare(counts).pvalue > 1e-6
    pairs = np.bincount((before & 7) * 8 + (after & 7), minlength=64).reshape(8, 8)
    independent = np.outer(pairs.sum(1), pairs.sum(0)) / pairs.sum()
    chi_square = ((pairs - independent) ** 2 / independent).sum()
    assert stats.chi2.sf(chi_square, 49) > 1e-6
    before, after = pooled(name, model(name, "random", 0.07))
    assert_rate((before != after).sum(), after.size, 0.07 * (1 - 2.0**-width))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_random_float_is_every_sign_and_exponent_alike(name):
    """And every highest byte of the fraction; numbers with a whole one, as products keep these."""
    fraction = FORMATS[name].width - 9
    _, after = pooled(name, model(name, "random", 1.0), trials=2)
    exponents = after >> fraction & 0xFF
    normal = after[(exponents > 0) & (exponents < 255)]
    assert_rate(len(normal), len(after), 254 / 256)
    counts = np.bincount(normal >> fraction, minlength=512)
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-6 and (counts > 0).sum() == 508
    tops = np.bincount(normal >> fraction - 7 & 127, minlength=128)
    assert stats.chisquare(tops).pvalue > 1e-6


def packets_of(words: np.ndarray, length: int) -> list[np.ndarray]:
    return [words[start : start + length] for start in range(0, len(words), length)]


@pytest.mark.parametrize("packet", [1, 13, 256, 100_000])
def test_packets_are_lost_whole_and_in_row_major_order(packet):
    """The last packet of a tensor may be short; one that is larger than the tensor is all of it."""
    name, rate = "fixed 16", 0.1
    inputs, table = clean(name)
    lost = total = 0
    for trial in range(4):
        read, weights = run(name, model(name, "lost", rate, packet=packet), trial)
        for before, after in [*zip(inputs, read, strict=True), (table[0], weights[0])]:
            for was, now in zip(packets_of(before, packet), packets_of(after, packet), strict=True):
                assert (now == 0).all() or (now == was).all()
                lost, total = lost + (now == 0).all(), total + 1
    assert_rate(lost, total, rate)
    assert 0 < lost < total


@pytest.mark.parametrize("name", ["fixed 16", "float32"])
@pytest.mark.parametrize("packet", [1, 13])
def test_lost_packets_read_as_the_last_value_that_arrived(name, packet):
    """The same packets as those that read as zeros under the same key; half of them."""
    zeros = run(name, model(name, "lost", 0.5, packet=packet))
    held = run(name, model(name, "lost-last", 0.5, packet=packet))
    for before, gone, after in zip(clean(name), zeros, held, strict=True):
        for was, lost, now in zip(before, gone, after, strict=True):
            last, expected = 0, []
            for value, arrived in zip(was.tolist(), lost.tolist(), strict=True):
                last = value if arrived else last
                expected.append(last)
            np.testing.assert_array_equal(now, expected)
    assert any(image[0] == 0 for image in held[0]), "none began with a lost packet"


def test_nothing_ever_arrives_at_a_rate_of_one():
    for kind in ("lost", "lost-last", "zero"):
        assert not pooled("fixed 16", model("fixed 16", kind, 1.0))[1].any()


@pytest.mark.parametrize("kind", [kind for kind in kinds.names() if kind != "lost-last"])
def test_faults_at_a_lower_rate_are_among_those_at_a_higher(kind):
    """What is struck at the lower rate is read alike at the higher, but for more bits struck."""
    name = "fixed 16"
    before, low = pooled(name, model(name, kind, 0.02))
    _, high = pooled(name, model(name, kind, 0.2))
    if kind in ("flip", "stuck-at-0", "stuck-at-1"):
        assert not ((before ^ low) & ~(before ^ high)).any()
    else:
        struck = before != low
        np.testing.assert_array_equal(high[struck], low[struck])
    assert (before != low).sum() < (before != high).sum()


# How long a draw holds.


def alike(words: np.ndarray) -> bool:
    """Whether all images met the same faults; `words` are the struck bits [B, n]."""
    return bool((words == words[:1]).all())


@pytest.mark.in_ci("-flip", "run-flip", "trial-flip", "image-flip", "trial-lost")
@pytest.mark.parametrize("kind", ["flip", "burst", "lost"])
@pytest.mark.parametrize("scope", ["", "run", "trial", "image"])
def test_a_draw_holds_for_its_scope(kind, scope):
    name, rate = "fixed 16", 0.1
    faults = model(name, kind, rate, scope=scope)
    runs = [run(name, faults, trial) for trial in (0, 1)]
    inputs, table = clean(name)
    (reads, weights), (later_reads, later_weights) = (
        (read == inputs if kind == "lost" else read ^ inputs,
         weight == table if kind == "lost" else weight ^ table)
        for read, weight in runs
    )  # fmt: skip
    # The first pixel feeds the table too, where nothing strikes it.
    assert alike(reads) == (scope in ("run", "trial"))
    assert alike(weights) == (scope != "image")
    assert (reads == later_reads).all() == (scope == "run")
    assert (weights == later_weights).all() == (scope == "run")
    changes = reads != (1 if kind == "lost" else 0)
    assert changes.any() and (weights != (1 if kind == "lost" else 0)).any()


@pytest.mark.parametrize("scope", ["", "run", "trial", "image"])
def test_a_scope_is_what_of_the_draws_place_is_left_out(scope):
    """The streams by number: of trial 3, or 0 for a whole run; of the image, or of all."""
    name, kind, rate, trial = "fixed 8", "random", 0.2, 3
    faults = model(name, kind, rate, scope=scope)
    (inputs, table), (read, weights) = clean(name), run(name, faults, trial)
    of = 0 if scope == "run" else trial
    for image in (0, 2, IMAGES - 1):
        own = image if scope in ("", "image") else None
        draws = uniform(0, 1, PIXELS, 2, of, own)
        np.testing.assert_array_equal(read[image], oracle(faults, rate, inputs[image], draws, 8))
        draws = uniform(1, 0, TABLE, 2, of, image if scope == "image" else None)
        np.testing.assert_array_equal(weights[image], oracle(faults, rate, table[0], draws, 8))


# On the network of conftest.py: single calls and evaluations of many.

CASES = [
    ("fixed 6", "flip", ""),
    ("fixed 8", "stuck-at-0", ""),
    ("bfloat16", "stuck-at-1", ""),
    ("float32", "burst", ""),
    ("fixed 16", "zero", ""),
    ("bfloat16", "random", ""),
    ("fixed 8", "lost", ""),
    ("fixed 16", "lost-last", ""),
    ("fixed 8", "flip", "run"),
    ("fixed 16", "burst", "trial"),
    ("fixed 6", "random", "image"),
    ("fixed 8", "lost-last", "image"),
]
DEVICES = np.array([[1, 1, 1], [0, 1, 0], [1, 0, 1]], np.int32)
TRIALS = (0, 4)


@pytest.mark.in_ci(
    "fixed 6-flip-", "bfloat16-stuck-at-1-", "fixed 16-lost-last-", "fixed 6-random-image"
)
@pytest.mark.parametrize(("name", "kind", "scope"), CASES)
def test_evaluations_give_what_single_calls_give(
    name, kind, scope, network_of, images, monkeypatch
):
    """Logits image by image, and right or wrong; in whatever batches, where images share draws."""
    network = network_of(FORMATS[name])
    faults = FaultModel(
        bits=BITS[name], kind=kind, scope=scope, burst=2, packet=3,
        weight_rate=(0.0, 0.05), activation_rate=(0.0, 0.1),
    )  # fmt: skip
    limits = thresholds(faults, network, DEVICES)
    alone = np.stack(
        [
            [
                np.asarray(network(images, mapping=mapping, faults=faults, key=9, trial=trial))
                for trial in TRIALS
            ]
            for mapping in DEVICES
        ]
    )
    labels = np.asarray(network(images)).argmax(1).astype(np.int32)
    right = (alone.argmax(-1) == labels) & np.isfinite(alone).all(-1)
    assert 0.1 < right.mean() < 1
    for batch in (64, 16) if scope in ("run", "trial") else (64,):
        monkeypatch.setattr(engine, "BATCH", batch)
        got = Evaluator(network, images, labels, 9, metric=LOGITS).evaluate(faults, limits, TRIALS)
        if FORMATS[name].kind == "fixed":
            np.testing.assert_array_equal(got, alone)
        else:
            np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-5)
        evaluator = Evaluator(network, images, labels, 9)
        np.testing.assert_array_equal(evaluator.evaluate(faults, limits, TRIALS), right)
        assert evaluator.evaluations == len(DEVICES) * len(TRIALS)


def test_each_image_has_the_logits_of_a_run_with_its_own_kernels(quantized, images):
    """Scope image, weights and activations: a forward pass in NumPy for each image."""
    rate, fmt, trial, key = 0.1, quantized.format, 2, 6
    faults = FaultModel(bits=(2, 7), weight_rate=rate, activation_rate=rate, scope="image")
    got = np.asarray(quantized(images, faults=faults, key=key, trial=trial))

    def struck(name, words, target, image):
        draws = uniform("abc".index(name), target, words.size, 2, trial, image, key)
        return oracle(faults, rate, words.ravel(), draws, 16).reshape(words.shape)

    for number in range(len(images)):
        own = {
            name: struck(name, words, bits.WEIGHTS, number)
            for name, words in kernels_of(quantized).items()
        }

        def reads(name, words, image=number):
            return struck(name, words, bits.ACTIVATIONS, image)

        expected = forward(fmt, own, np.asarray(images[number : number + 1]), reads)
        np.testing.assert_array_equal(got[number : number + 1], expected.astype(np.float32))


def test_without_weight_faults_the_scope_image_is_the_usual_one(quantized, images, labels):
    """Activations are drawn for every image anyway: nobody pays for kernels of each image."""
    usual = FaultModel(weight_rate=0.0, activation_rate=0.3)
    scoped = replace(usual, scope="image")
    np.testing.assert_array_equal(
        quantized(images, faults=scoped, key=1, trial=5),
        quantized(images, faults=usual, key=1, trial=5),
    )
    evaluator = Evaluator(quantized, images, labels, 1)
    limits = thresholds(usual, quantized, DEVICES[:1] * 0)
    np.testing.assert_array_equal(
        evaluator.evaluate(scoped, limits, [5]), evaluator.evaluate(usual, limits, [5])
    )
    assert evaluator.evaluations == 1


def test_kinds_and_scopes_do_not_share_what_is_remembered(quantized, images, labels):
    """One memory, equal thresholds: each model is evaluated by itself."""
    memory: dict[bytes, bytes] = {}
    models = [FaultModel(), FaultModel(kind="zero"), FaultModel(scope="run")]
    of = [thresholds(faults, quantized, np.zeros((1, 3), np.int32)) for faults in models]
    evaluator = Evaluator(quantized, images, labels, 1, memory=memory)
    for faults, limits in zip(models, of, strict=True):
        evaluator.evaluate(faults, limits, [2])
    assert evaluator.evaluations == len(memory) == len(models)
