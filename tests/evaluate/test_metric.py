"""What is kept of logits, against NumPy with probabilities in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate import metric, sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS, OUTCOME, RIGHT, Targets, outcomes
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, Site
from afpjax.faults.spec import FaultSpec

FLAGS = ("right", "changed", "sdc1", "sdc5", "sdc10", "sdc20", "non-finite")
SDC = (metric.SDC1, metric.SDC5, metric.SDC10, metric.SDC20)
WORDS = dict(zip(FLAGS, (metric.RIGHT_BIT, metric.CHANGED, *SDC, metric.NON_FINITE), strict=True))


def first_highest(logits):
    """The class that is said: the first of the highest."""
    return max(range(len(logits)), key=lambda k: (logits[k], -k))


def probability(logits, of):
    shifted = np.exp(np.asarray(logits, np.float64) - max(logits))
    return shifted[of] / shifted.sum()


def oracle(logits, clean, label):
    """The flags of one image as a set, and the class that was said (0 where it is not finite)."""
    if not all(np.isfinite(logits)):
        return {"changed", "non-finite"}, 0
    top, said, flags = first_highest(clean), first_highest(logits), set()
    if said == label:
        flags.add("right")
    largest = max(abs(each) for each in clean)
    if any(abs(x - y) > largest * 2.0**-18 for x, y in zip(logits, clean, strict=True)):
        flags.add("changed")
    if said != top:
        flags.add("sdc1")
    if sorted(logits, reverse=True).index(logits[top]) >= 5:
        flags.add("sdc5")
    off = abs(probability(logits, top) / probability(clean, top) - 1)
    flags |= {name for name, share in (("sdc10", 0.1), ("sdc20", 0.2)) if off > share}
    return flags, said


@partial(jax.jit, static_argnums=0)  # op by op, it takes most of the tests' time
def words_of(outcome, logits, given):
    return outcome.of(logits, given)


def judged(logits, clean, labels, outcome=OUTCOME):
    """The metric's flags as sets, and the classes."""
    given = Targets(jnp.asarray(labels, jnp.int32), jnp.asarray(clean, jnp.float32))
    words = np.asarray(words_of(outcome, jnp.asarray(logits, jnp.float32), given))
    assert words.dtype == np.int32 and words.shape == (len(logits),)
    assert not (words & ((1 << metric.CLASS_SHIFT) - 1) >= 1 << len(FLAGS)).any()
    return flags_and_classes(words)


def flags_and_classes(words):
    flags = [{name for name, bit in WORDS.items() if word & bit} for word in words.tolist()]
    return list(zip(flags, (words >> metric.CLASS_SHIFT).tolist(), strict=True))


def expected(logits, clean, labels):
    pairs = zip(logits.astype(np.float32), clean.astype(np.float32), labels, strict=True)
    return [oracle(x.tolist(), y.tolist(), int(label)) for x, y, label in pairs]


@pytest.mark.in_ci("5", "10")
@pytest.mark.parametrize("classes", [2, 5, 10, 1000])
def test_outcomes_are_those_of_float64(classes):
    """Made-up logits, moved a little or a lot, in one class or in all; -1 is padding."""
    rng = np.random.default_rng(classes)
    clean = rng.normal(size=(600, classes)) * rng.choice([0.5, 3.0, 20.0], (600, 1))
    moved = rng.normal(size=clean.shape) * rng.choice([0, 1e-7, 0.05, 0.2, 3.0, 60.0], (600, 1))
    single = rng.random((600, 1)) < 0.3
    moved = np.where(single & (np.arange(classes) != rng.integers(0, classes, (600, 1))), 0, moved)
    labels = np.where(rng.random(600) < 0.5, clean.argmax(1), rng.integers(-1, classes, 600))
    wanted = expected(clean + moved, clean, labels)
    assert judged(clean + moved, clean, labels) == wanted
    targets = Targets(jnp.asarray(labels, jnp.int32), None)
    right = RIGHT.of(jnp.asarray(clean + moved, jnp.float32), targets)
    np.testing.assert_array_equal(right, ["right" in flags for flags, _ in wanted])
    seen = set().union(*(flags for flags, _ in wanted))
    assert seen == set(FLAGS) - {"non-finite"} - ({"sdc5"} if classes <= 5 else set())
    assert any(not flags for flags, _ in wanted), "a masked fault of a wrong answer"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_seen_and_neither_right_nor_silent(value):
    classes, rng = 7, np.random.default_rng(1)
    clean = rng.normal(size=(3 * classes, classes))
    logits = clean.copy()
    logits[range(2 * classes), [*range(classes), *range(classes)]] = value
    logits[classes : 2 * classes, 0] = value
    labels = clean.argmax(1)
    labels[:classes] = 0  # the class that is said where nothing is: right must not follow from it
    got = judged(logits, clean, labels)
    assert got[: 2 * classes] == 2 * classes * [({"changed", "non-finite"}, 0)]
    assert got[2 * classes :] == [({"right"}, label) for label in labels[2 * classes :]]
    right = RIGHT.of(jnp.asarray(logits, jnp.float32), Targets(jnp.asarray(labels), None))
    assert right.tolist() == 2 * classes * [False] + classes * [True]


def test_huge_logits_are_finite():
    clean = np.array([[1.0, 2.0, 3.0]] * 2)
    logits = np.array([[3e38, -3e38, 0.0], [-3e38, -3e38, 3e38]])
    assert judged(logits, clean, [0, 2]) == [
        ({"right", "changed", "sdc1", "sdc10", "sdc20"}, 0),
        ({"right", "changed", "sdc10", "sdc20"}, 2),
    ]


def test_of_equal_logits_the_first_is_said_and_ties_are_not_ahead():
    clean = np.array([[0.0, 4.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0]] * 4)
    logits = clean.copy()
    logits[1, 0] = 4.0  # one more that is as high, and first
    logits[2] = [4, 4, 4, 4, 4, 4, 4, 4]  # class 1 is tied with seven
    logits[3] = [5, 4, 4, 5, 5, 5, 5, 4]  # and behind five here
    labels = np.array([1, 1, 0, 0])
    wanted = [
        ({"right"}, 1),
        ({"changed", "sdc1", "sdc10", "sdc20"}, 0),
        ({"right", "changed", "sdc1", "sdc10", "sdc20"}, 0),
        ({"right", "changed", "sdc1", "sdc5", "sdc10", "sdc20"}, 0),
    ]
    assert judged(logits, clean, labels) == wanted == expected(logits, clean, labels)


@pytest.mark.parametrize(("share", "name"), [(0.10, "sdc10"), (0.20, "sdc20")])
@pytest.mark.parametrize("sign", [-1, 1])
def test_confidence_is_off_by_more_than_a_share_of_itself(share, name, sign):
    """From 0.7, either way, just below and just above."""
    clean = np.log([[0.7, 0.3]] * 2)
    after = 0.7 * (1 + sign * np.array([share - 1e-3, share + 1e-3]))
    got = judged(np.log(np.stack([after, 1 - after], 1)), clean, [0, 0])
    assert [name in flags for flags, _ in got] == [False, True]


def test_what_two_orders_of_summation_may_differ_by_is_no_change():
    clean = np.array([[100.0, -3.0, 1.0]] * 4)
    logits = clean + np.array([[0, 0, 3e-4], [0, 3e-4, 0], [0, 0, 5e-4], [0, -5e-4, 0]])
    got = judged(logits, clean, [0] * 4)
    assert ["changed" in flags for flags, _ in got] == [False, False, True, True]


@pytest.mark.parametrize("count", [1, 8, 9, 70])
def test_answers_are_stored_and_read_back(count):
    rng = np.random.default_rng(count)
    logits = rng.normal(size=(count, 3)).astype(np.float32)
    logits[0, 0] = np.nan
    for kind, answers in [
        (RIGHT, rng.random(count) < 0.5),
        (OUTCOME, rng.integers(-(2**31), 2**31, count).astype(np.int32)),
        (LOGITS, logits),
    ]:
        read = kind.unpack(kind.pack(answers), count)
        assert read.dtype == answers.dtype
        np.testing.assert_array_equal(read, answers)


# On the network of conftest.py.

FAULTS = FaultModel(bits=range(6, 12), weight_rate=(0.0, 0.1), activation_rate=(0.0, 0.05))
MAPPINGS = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]], np.int32)
TRIALS = (0, 1, 7)


@pytest.mark.in_ci("7")
@pytest.mark.parametrize("batch", [64, 7])
def test_outcomes_of_draws_are_those_of_the_networks_logits(
    quantized, images, labels, batch, monkeypatch
):
    """Batches of another size: the last is padded."""
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=batch, most_images=batch))
    limits = thresholds(FAULTS, quantized, MAPPINGS)
    answers = Evaluator(quantized, images, labels, 3, metric=OUTCOME).evaluate(
        FAULTS, limits, TRIALS
    )
    correct = Evaluator(quantized, images, labels, 3).evaluate(FAULTS, limits, TRIALS)
    assert answers.shape == (3, 3, 40) and answers.dtype == np.int32
    np.testing.assert_array_equal(answers & metric.RIGHT_BIT != 0, correct)
    clean = np.asarray(quantized(images))
    for place, mapping in enumerate(MAPPINGS):
        for column, trial in enumerate(TRIALS):
            given = dict(mapping=mapping, faults=FAULTS, key=3, trial=trial)
            logits = np.asarray(quantized(images, **given))
            wanted = expected(logits, clean, labels)
            assert flags_and_classes(answers[place, column]) == wanted
    unchanged = answers & metric.CHANGED == 0
    assert unchanged[2].all() and not unchanged[:2].all()


def test_faults_that_change_nothing_are_not_changes(quantized, images, labels):
    """No places at all, a cleared bit that was clear, and the input of a channel that is zero."""
    kernel = np.asarray(quantized.parameters.layers["a"].kernel).reshape(-1)
    words = np.round(kernel * 256).astype(int)
    clear = int(np.flatnonzero(words & 1 == 0)[0])
    faults = [
        Fault({}),
        Fault.at(Site(0, clear, 0), how="clear"),
        Fault.at(Site(0, clear, 0), how="set"),
        Fault.at(Site(2, 0, 15)),
        Fault.at(Site(0, 2, 14, "activations")),
    ]
    evaluator = Evaluator(quantized, images, labels, 0, metric=OUTCOME)
    words = evaluator.evaluate_sites(faults)
    clean = np.asarray(quantized(images))
    for same in words[:2]:
        assert not (same & ~metric.RIGHT_BIT & 0xFF).any()
        np.testing.assert_array_equal(same & metric.RIGHT_BIT != 0, clean.argmax(1) == labels)
        np.testing.assert_array_equal(same >> metric.CLASS_SHIFT, clean.argmax(1))
    assert all((each & metric.CHANGED).any() for each in words[2:])
    right = Evaluator(quantized, images, labels, 0).evaluate_sites(faults)
    np.testing.assert_array_equal(words & metric.RIGHT_BIT != 0, right)
    np.testing.assert_array_equal(evaluator.reference, clean)


def test_images_few_enough_to_share_calls_are_held_against_their_own_logits(
    quantized, images, labels
):
    """Three images: a call has room for 21 trials, each with the fault-free logits."""
    limits = thresholds(FAULTS, quantized, MAPPINGS)
    of_all = Evaluator(quantized, images, labels, 3, metric=OUTCOME)
    few = Evaluator(quantized, images[:3], labels[:3], 3, metric=OUTCOME)
    np.testing.assert_array_equal(
        few.evaluate(FAULTS, limits, range(9)), of_all.evaluate(FAULTS, limits, range(9))[:, :, :3]
    )


def test_judges_that_share_a_memory_do_not_read_each_others_answers(quantized, images, labels):
    memory: dict[bytes, bytes] = {}
    fault = Fault.at(Site(0, 3, 14))
    made = [
        Evaluator(quantized, images, labels, 0, memory=memory, metric=each).evaluate_sites([fault])
        for each in (RIGHT, OUTCOME, LOGITS)
    ]
    assert len(memory) == 3
    np.testing.assert_array_equal(made[0], (made[1] & metric.RIGHT_BIT) > 0)
    np.testing.assert_array_equal(made[1] >> metric.CLASS_SHIFT, made[2].argmax(axis=2))
    judges = [RIGHT, LOGITS]
    judges += [outcomes(each, exact=own) for each in metric.NOT_FINITE for own in (False, True)]
    assert len({each.tag for each in judges}) == len(judges)


def test_where_nobody_looks_the_first_nan_is_the_class():
    """As PyTorch, NumPy and JAX have it; infinity is the highest number."""
    nan, inf = np.nan, np.inf
    clean = np.array([[1.0, 5.0, 2.0, 0.0, 0.0, 0.0, 0.0]] * 6)
    logits = np.array([
        [1, 5, nan, nan, 0, 0, 0],
        [nan] * 7,
        [1, nan, 9, 0, 0, 0, 0],
        [inf, 5, inf, 0, 0, 0, 0],
        [-inf, 5, 2, 0, 0, 0, 0],
        [1, -inf, nan, inf, 2, 3, 4],
    ])  # fmt: skip
    labels = [2, 0, 1, 1, 1, 1]
    got = judged(logits, clean, labels, outcomes("argmax"))
    assert [said for _, said in got] == np.argmax(logits, axis=1).tolist() == [2, 0, 1, 0, 1, 2]
    off = {"changed", "sdc10", "sdc20"}
    assert [flags for flags, _ in got] == [
        off | {"right", "sdc1"},
        off | {"right", "sdc1"},
        off | {"right"},
        off | {"sdc1"},
        off | {"right"},
        off | {"sdc1", "sdc5"},
    ]
    finite = clean + np.arange(7)
    assert judged(finite, clean, labels, outcomes("argmax")) == judged(finite, clean, labels)


def test_an_exact_judge_sees_the_last_bit():
    clean = np.array([[100.0, -3.0, 1.0]] * 3, np.float32)
    logits = clean.copy()
    logits[1, 2] = np.nextafter(np.float32(1), np.float32(2))
    logits[2] = np.nan
    flags = [flags for flags, _ in judged(logits, clean, [0, 0, 0], outcomes(exact=True))]
    assert flags == [{"right"}, {"right", "changed"}, {"changed", "non-finite"}]
    assert judged(logits[:2], clean[:2], [0, 0])[1][0] == {"right"}  # to the others it is rounding


def test_programs_of_one_shape_alone_are_compared_to_the_bit(
    quantized, images, labels, monkeypatch
):
    """However few images there are: tiles are not filled with several faults."""
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(tile=8, most_images=2**14))
    made = [
        Evaluator(quantized, images[:4], labels[:4], 0, metric=outcomes(exact=exact))
        for exact in (False, True)
    ]
    assert [each.own_engine._sizes(FaultSpec()).nodes for each in made] == [8, 1]
    faults = [Fault.at(Site(0, element, 3)) for element in range(12)]
    masked = [(each.evaluate_sites(faults) & metric.CHANGED == 0).mean() for each in made]
    assert masked[1] <= masked[0]
