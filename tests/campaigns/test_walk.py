"""Campaigns of single faults against every fault of the network worked out in NumPy.

On the network of conftest.py: 2,304 bits of weights, in 16-bit fixed point.
"""

import itertools
from typing import Any

import numpy as np
import pytest

from afpjax.campaigns import walk as campaign
from afpjax.campaigns.counts import OutcomeCounts
from afpjax.campaigns.strata import Single, faults_of, strata
from afpjax.campaigns.walk import PILOT, Rules, Walk
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import OUTCOME
from afpjax.faults.sites import NOWHERE, Fault, Site
from afpjax.inputs.errors import InputError
from afpjax.statistics.sampling import neyman, sample_size
from afpjax.statistics.sequential import looks, stopped

from ..faults.words import forward, kernels_of, right

WIDTH, SEED, FLIP = 16, 5, Single()
SIZES = {"a": 48, "b": 64, "c": 32}


@pytest.fixture(scope="module")
def pictures(images) -> np.ndarray:
    return np.asarray(images)[:20]


@pytest.fixture(scope="module")
def truth(quantized, pictures, labels) -> dict[tuple[int, int, int], tuple[Any, Any]]:
    """(layer, element, bit) -> which images change their class, and which are right."""
    kernels = kernels_of(quantized)
    clean = forward(quantized.format, kernels, pictures).argmax(1)
    found = {}
    for layer, name in enumerate(SIZES):
        for element, bit in itertools.product(range(SIZES[name]), range(WIDTH)):
            struck = dict(kernels, **{name: kernels[name].copy()})
            struck[name].reshape(-1)[element] ^= 1 << bit
            logits = forward(quantized.format, struck, pictures)
            found[layer, element, bit] = logits.argmax(1) != clean, right(logits, labels[:20])
    return found


@pytest.fixture(scope="module")
def remembered(quantized, pictures, labels) -> dict[bytes, bytes]:
    """Answers that any test may find in memory: a third of all faults."""
    memory: dict[bytes, bytes] = {}
    evaluator = evaluator_of(quantized, pictures, labels, memory)
    (whole,) = made(quantized, by="network")
    wanted = list(faults_of(quantized, whole, range(whole.population), seed=0, in_order=True))
    evaluator.evaluate_sites(wanted[::3])
    assert evaluator.evaluations == 768
    return memory


def evaluator_of(quantized, pictures, labels, memory=None):
    return Evaluator(
        quantized, pictures, labels[: len(pictures)], 0, metric=OUTCOME, memory=memory, name="x"
    )


def made(quantized, kind=FLIP, **changes: Any):
    options = dict(by="layer-bit", targets=["weights"], layers=[0, 1, 2], bits=range(WIDTH))
    return strata(quantized, kind, **{**options, **changes})


def walk_of(evaluator, wanted, images=1, **rules: Any) -> Walk:
    reference = evaluator.reference
    counts = OutcomeCounts(len(wanted), evaluator.count, reference.argmax(1), reference.shape[1])
    return Walk(evaluator, wanted, Rules(**rules), counts, seed=SEED, images=images)


def run(walk):
    """Run a walk to its end; what it has told of its progress adds up."""
    told = []
    walk.run(told.append)
    assert sum(told) == walk.most().sum() and min(told) >= 0
    bounds, got = (walk.least(), walk.most()), walk.counts.trials
    if walk.rules.design == "neyman":  # what each stratum gets is for the pilot to say
        bounds, got = [bound.sum() for bound in bounds], got.sum()
    assert np.all(bounds[0] <= got) and np.all(got <= bounds[1])
    return walk.counts


def outcomes(quantized, stratum, truth, count, in_order=False):
    """Rows of `truth` of a stratum's first trials: changed and right, [count, images]."""
    rows = []
    for fault in faults_of(quantized, stratum, range(count), seed=SEED, in_order=in_order):
        (((layer, _), sites),) = fault.sites.items()
        bit = int(sites.words[0, 0]).bit_length() - 1
        rows.append(truth[layer, int(sites.elements[0, 0]), bit])
    changed, correct = zip(*rows, strict=True)
    return np.stack(changed), np.stack(correct)


@pytest.mark.parametrize("by", ["network", "layer-bit"])
def test_an_exhaustive_campaign_is_brute_force(quantized, pictures, labels, truth, by):
    wanted = made(quantized, by=by)
    evaluator = evaluator_of(quantized, pictures, labels)
    walk = walk_of(evaluator, wanted, design="exhaustive")
    counts = run(walk)
    assert evaluator.evaluations == 2304 == counts.trials.sum() == walk.most().sum()
    for place, stratum in enumerate(wanted):
        mine = [
            truth[layer, element, bit]
            for layer in stratum.layers
            for element in range([48, 64, 32][layer])
            for bit in stratum.bits
        ]
        changed, correct = (np.stack(each) for each in zip(*mine, strict=True))
        assert counts.trials[place] == len(mine) == stratum.population
        y = changed.mean(1)
        np.testing.assert_allclose(counts.sums("sdc1")[place], y.sum(), atol=1e-9)
        np.testing.assert_allclose(counts.squares("sdc1")[place], (y**2).sum(), atol=1e-9)
        np.testing.assert_allclose(counts.sums("right")[place], correct.mean(1).sum(), atol=1e-9)
        assert counts.critical[place] == changed.any(1).sum()
    worst = sorted(-changed.mean() for changed, _ in truth.values())[:20]
    np.testing.assert_allclose([-each.sdc for each in counts.worst], worst)


def test_what_is_right_is_what_correct_at_says(quantized, pictures, labels, truth):
    """The same sites through the other way to ask."""
    places = list(truth)[::11]
    evaluator = Evaluator(quantized, pictures, labels[:20], 0)
    got = evaluator.evaluate_sites([Fault.at(site) for site in [Site(*place) for place in places]])
    np.testing.assert_array_equal(got, [truth[place][1] for place in places])
    assert 0 < got.mean() < 0.8


@pytest.mark.parametrize("by", ["network", "layer", "layer-bit"])
def test_single_takes_what_the_margin_needs_of_each_stratum(
    quantized, pictures, labels, truth, remembered, by
):
    wanted = made(quantized, by=by, bits=[2, 13, 14, 15])
    evaluator = evaluator_of(quantized, pictures, labels, dict(remembered))
    walk = walk_of(evaluator, wanted, margin=0.08, sequential=False)
    counts = run(walk)
    expected = sample_size(np.array([s.population for s in wanted]), 0.08)
    np.testing.assert_array_equal(counts.trials, expected)
    np.testing.assert_array_equal(walk.least(), expected)
    for place, (stratum, count) in enumerate(zip(wanted, expected, strict=True)):
        changed, correct = outcomes(quantized, stratum, truth, count)
        np.testing.assert_allclose(counts.sums("sdc1")[place], changed.mean(1).sum(), atol=1e-9)
        np.testing.assert_allclose(counts.sums("right")[place], correct.mean(1).sum(), atol=1e-9)
    capped = walk_of(evaluator, wanted, margin=0.08, sequential=False, trials=40)
    assert run(capped).trials.tolist() == [min(40, count) for count in expected]


@pytest.mark.parametrize("trials", [0, 200, 10**6])
def test_neyman_shares_its_trials_out_after_the_pilot(
    quantized, pictures, labels, truth, remembered, trials
):
    wanted = made(quantized, by="layer-bit", bits=[0, 13, 15])
    population = np.array([stratum.population for stratum in wanted])
    evaluator = evaluator_of(quantized, pictures, labels, dict(remembered))
    counts = run(walk_of(evaluator, wanted, design="neyman", margin=0.06, trials=trials))
    total = trials or int(sample_size(np.array([population.sum()]), 0.06)[0])
    total = min(total, int(population.sum()))
    assert counts.trials.sum() == total
    pilot = [outcomes(quantized, s, truth, PILOT)[0].mean(1) for s in wanted]
    sums, squares = zip(*[(y.sum(), (y**2).sum()) for y in pilot], strict=True)
    every = np.full(len(wanted), PILOT)
    expected = neyman(total, population, every, np.array(sums), squares=np.array(squares))
    np.testing.assert_array_equal(counts.trials, expected)
    if total < population.sum():  # bit 0 changes nothing, so little more than the pilot goes there
        shares = counts.trials / population
        assert shares[0::3].max() < shares[2::3].max() and counts.trials.min() >= PILOT
    for place, (stratum, count) in enumerate(zip(wanted, counts.trials.tolist(), strict=True)):
        changed, _ = outcomes(quantized, stratum, truth, count)
        np.testing.assert_allclose(counts.sums("sdc1")[place], changed.mean(1).sum(), atol=1e-9)


MARGIN = 0.07


@pytest.fixture(scope="module")
def stops(quantized, truth) -> tuple[Any, ...]:
    """Strata, the trials and sums of y at which each stops, and the worst (stratum, trial).

    From NumPy's outcomes alone.
    """
    wanted = [
        *made(quantized, by="layer"),
        *made(quantized, by="bit", bits=[3, 13, 14, 15]),
    ]
    wanted = [s.__class__(n, *list(vars(s).values())[1:]) for n, s in enumerate(wanted)]
    trials, sums, met = [], [], []
    for stratum in wanted:
        size = stratum.population
        changed, _ = outcomes(quantized, stratum, truth, size)
        so_far = changed.mean(1).cumsum()
        for count in looks(MARGIN, population=size).tolist():
            args = np.array([so_far[count - 1]]), np.array([count]), np.array([size])
            if stopped("wilson", *args, margin=MARGIN)[0]:
                break
        trials.append(count)
        sums.append(so_far[count - 1])
        rates = changed[:count].mean(1).tolist()
        met += [(-y, stratum.number, trial) for trial, y in enumerate(rates)]
    assert len({*trials}) > 2 and trials[3] == looks(MARGIN)[0]  # bit 3 does next to nothing
    return wanted, trials, sums, [(s, k) for _, s, k in sorted(met)[:20]]


@pytest.mark.parametrize(
    "chunk, before", [(7, "a third"), (512, "a third"), (64, "nothing"), (512, "nothing")]
)
def test_strata_stop_after_the_same_trials_however_they_run(
    quantized, pictures, labels, remembered, stops, chunk, before, monkeypatch
):
    wanted, trials, sums, worst = stops
    monkeypatch.setattr(campaign, "CHUNK", chunk)
    memory = {} if before == "nothing" else dict(remembered)
    evaluator = evaluator_of(quantized, pictures, labels, memory)
    asked = []
    whole = evaluator.evaluate_sites
    monkeypatch.setattr(
        evaluator, "evaluate_sites", lambda f, p, **how: asked.append(len(f)) or whole(f, p, **how)
    )
    counts = run(walk_of(evaluator, wanted, margin=MARGIN))
    assert counts.trials.tolist() == trials
    np.testing.assert_allclose(counts.sums("sdc1"), sums, atol=1e-9)
    assert [(each.stratum, each.trial) for each in counts.worst] == worst
    assert sum(asked) == sum(trials) and max(asked) <= chunk
    if before == "nothing":  # of faults that two strata have, the second finds the answer
        distinct = {
            fault.name
            for stratum, count in zip(wanted, trials, strict=True)
            for fault in faults_of(quantized, stratum, range(count), seed=SEED)
        }
        assert evaluator.evaluations == len(distinct) == len(memory)
    else:
        assert evaluator.evaluations == len(memory) - len(remembered)


def test_a_cap_holds_where_strata_may_stop_as_well(quantized, pictures, labels, remembered):
    evaluator = evaluator_of(quantized, pictures, labels, dict(remembered))
    wanted = made(quantized, by="bit", bits=[3, 15])
    first, second = looks(0.2, population=144)[:2].tolist()
    for cap, expected in ((first - 2, [first - 2] * 2), (second + 1, [second, second + 1])):
        assert run(walk_of(evaluator, wanted, margin=0.2, trials=cap)).trials.tolist() == expected


def test_a_campaign_that_is_cut_off_goes_on_where_it_was(
    quantized, pictures, labels, stops, monkeypatch
):
    """Cut off twice; no trial runs again, and the end is the same."""
    wanted, trials, sums, worst = stops
    monkeypatch.setattr(campaign, "CHUNK", 64)
    memory: dict[bytes, bytes] = {}
    done = 0
    for most in (100, 300, None):
        evaluator = evaluator_of(quantized, pictures, labels, memory)
        walk = walk_of(evaluator, wanted, margin=MARGIN)
        told = []

        def advance(count, told=told, most=most):
            told.append(count)
            if most and sum(told) > most:
                raise KeyboardInterrupt

        if most:
            with pytest.raises(KeyboardInterrupt):
                walk.run(advance)
        else:
            walk.run(advance)
            assert walk.counts.trials.tolist() == trials
            np.testing.assert_allclose(walk.counts.sums("sdc1"), sums, atol=1e-9)
            assert [(each.stratum, each.trial) for each in walk.counts.worst] == worst
        done += evaluator.evaluations
        assert evaluator.evaluations > 0 and done == len(memory)


def test_every_image_of_an_activation_campaign_meets_faults_of_its_own(quantized, pictures, labels):
    fmt, kernels = quantized.format, kernels_of(quantized)
    wanted = made(quantized, by="layer", targets=["activations"], bits=[12, 13, 14, 15])
    evaluator = evaluator_of(quantized, pictures, labels)
    walk = walk_of(evaluator, wanted, len(pictures), margin=0.2, sequential=False)
    counts = run(walk)
    clean, names = forward(fmt, kernels, pictures).argmax(1), list(SIZES)
    for place, stratum in enumerate(wanted):
        total, count = 0.0, int(counts.trials[place])
        trials = range(count)
        for fault in faults_of(quantized, stratum, trials, seed=SEED, images=len(pictures)):
            (((layer, _), sites),) = fault.sites.items()
            elements, words = sites.elements, sites.words
            assert elements.shape == (20, 1) and (elements != NOWHERE).all()

            def reads(name, stored, hit=names[layer], at=elements[:, 0], bits=words[:, 0]):
                if name == hit:
                    stored = stored.copy()
                    stored[np.arange(20), at] ^= bits
                return stored

            total += (forward(fmt, kernels, pictures, reads).argmax(1) != clean).mean()
        np.testing.assert_allclose(counts.sums("sdc1")[place], total, atol=1e-9)
    assert counts.sums("sdc1").sum() > 1


def test_trials_of_several_faults_are_no_census(quantized, pictures, labels):
    """Halving a stratum into pairs leaves most pairs unseen: no trial less is needed for it."""
    evaluator = evaluator_of(quantized, pictures, labels)
    pairs = made(quantized, Single("flip", 1, 2), by="layer", bits=[15])
    assert [stratum.population for stratum in pairs] == [24, 32, 16]
    walk = walk_of(evaluator, pairs, margin=0.2, sequential=False)
    assert walk.most().tolist() == [24, 25, 16]  # 25: of a stratum without end
    single = walk_of(evaluator, made(quantized, by="layer", bits=[15]), margin=0.2)
    assert single.most().tolist() == [17, 18, 14]
    with pytest.raises(InputError, match=r"campaign\.count: an exhaustive campaign has one fault"):
        walk_of(evaluator, pairs, design="exhaustive")


def test_too_few_trials_for_the_pilot_are_refused(quantized, pictures, labels):
    evaluator = evaluator_of(quantized, pictures, labels)
    walk = walk_of(evaluator, made(quantized), design="neyman", trials=767)
    with pytest.raises(InputError, match="767 are fewer than the pilot's 768, 16 in each of 48"):
        walk.run(lambda count: None)
    with pytest.raises(InputError, match="767 are fewer"):
        walk.most()
    assert evaluator.evaluations == 0


def test_intervals_have_the_level_of_their_design(quantized, pictures, labels):
    evaluator, wanted = evaluator_of(quantized, pictures, labels), made(quantized)
    for design in ("single", "neyman", "exhaustive"):
        rules: dict[str, Any] = dict(design=design, sequential=False, confidence=0.9)
        assert walk_of(evaluator, wanted, **rules).level == 0.9
    assert 0.9 < walk_of(evaluator, wanted, confidence=0.9).level < 0.99
