"""Campaigns of single faults against every fault of the network worked out in NumPy.

On the network of conftest.py: 2,304 bits of weights, in 16-bit fixed point.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afpjax.campaigns import walk as campaign
from afpjax.campaigns.counts import OutcomeCounts
from afpjax.campaigns.strata import Single, faults_of, strata
from afpjax.campaigns.walk import PILOT, Rules, Walk
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import OUTCOME
from afpjax.faults.sites import NOWHERE, Fault
from afpjax.inputs.errors import InputError
from afpjax.statistics.sampling import neyman, sample_size
from afpjax.statistics.sequential import looks, stopped

from ..faults.words import each_flip, forward, kernels_of, right

WIDTH, SEED, MARGIN, FLIP = 16, 5, 0.07, Single()


class Enumerated:
    """The network, 20 images of it, and what each single fault of its weights does to them."""

    def __init__(self, quantized, images, labels):
        self.quantized, self.images = quantized, np.asarray(images)[:20]
        self.labels, self.kernels = labels[:20], kernels_of(quantized)
        self.clean = self.classes(self.kernels)
        #: (layer, element, bit) -> which images change their class, and which are right.
        self.truth = {
            place: (logits.argmax(1) != self.clean, right(logits, self.labels))
            for place, logits in each_flip(quantized.format, self.kernels, self.images).items()
        }
        #: The answers of all faults: what is found there is not worked out again.
        self.memory: dict[bytes, bytes] = {}
        (whole,) = self.strata(by="network")
        evaluator = self.evaluator(self.memory)
        evaluator.evaluate_sites(self.drawn(whole, whole.population, in_order=True))
        assert evaluator.evaluations == len(self.memory) == len(self.truth) == 2304

    def classes(self, kernels, **reads):
        return forward(self.quantized.format, kernels, self.images, **reads).argmax(1)

    def evaluator(self, memory=None) -> Evaluator:
        own = self.quantized, self.images, self.labels
        return Evaluator(*own, 0, metric=OUTCOME, memory=memory, name="x")

    def strata(self, kind=FLIP, **changes: Any):
        options = dict(by="layer-bit", targets=["weights"], layers=[0, 1, 2], bits=range(WIDTH))
        return strata(self.quantized, kind, **{**options, **changes})

    def drawn(self, stratum, count, **options) -> list[Fault]:
        """The faults of a stratum's first trials."""
        return list(faults_of(self.quantized, stratum, range(count), seed=SEED, **options))

    def outcomes(self, stratum, count):
        """Rows of `truth` of a stratum's first trials: changed and right, [count, images]."""
        rows = []
        for fault in self.drawn(stratum, count):
            (((layer, _), sites),) = fault.sites.items()
            bit = int(sites.words[0, 0]).bit_length() - 1
            rows.append(self.truth[layer, int(sites.elements[0, 0]), bit])
        return tuple(np.stack(each) for each in zip(*rows, strict=True))


@pytest.fixture(scope="module")
def known(quantized, images, labels) -> Enumerated:
    return Enumerated(quantized, images, labels)


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


def assert_counted(counts, place, changed, correct):
    """What a stratum's trials have come to, [trials, images]."""
    y = changed.mean(1)
    assert counts.trials[place] == len(y) and counts.critical[place] == (y > 0).sum()
    np.testing.assert_allclose(counts.sums("sdc1")[place], y.sum(), atol=1e-9)
    np.testing.assert_allclose(counts.squares("sdc1")[place], (y**2).sum(), atol=1e-9)
    np.testing.assert_allclose(counts.sums("right")[place], correct.mean(1).sum(), atol=1e-9)


@pytest.mark.parametrize("by", ["network", "layer-bit"])
def test_an_exhaustive_campaign_is_brute_force(known, by):
    wanted = known.strata(by=by)
    counts = run(walk_of(known.evaluator(known.memory), wanted, design="exhaustive"))
    assert counts.trials.sum() == len(known.memory)
    for place, stratum in enumerate(wanted):
        mine = [
            known.truth[layer, element, bit]
            for layer in stratum.layers
            for element in range([48, 64, 32][layer])
            for bit in stratum.bits
        ]
        assert len(mine) == stratum.population
        assert_counted(counts, place, *(np.stack(each) for each in zip(*mine, strict=True)))
    worst = sorted(-changed.mean() for changed, _ in known.truth.values())[:20]
    np.testing.assert_allclose([-each.sdc for each in counts.worst], worst)


@pytest.mark.parametrize("by", ["network", "layer-bit"])
def test_single_takes_what_the_margin_needs_of_each_stratum(known, by):
    wanted, evaluator = known.strata(by=by, bits=[2, 13, 14, 15]), known.evaluator(known.memory)
    walk = walk_of(evaluator, wanted, margin=0.08, sequential=False)
    counts = run(walk)
    expected = sample_size(np.array([s.population for s in wanted]), 0.08)
    np.testing.assert_array_equal(walk.least(), expected)
    for place, (stratum, count) in enumerate(zip(wanted, expected, strict=True)):
        assert_counted(counts, place, *known.outcomes(stratum, count))
    capped = walk_of(evaluator, wanted, margin=0.08, sequential=False, trials=40)
    assert run(capped).trials.tolist() == [min(40, count) for count in expected]


@pytest.mark.parametrize("trials", [0, 200, 10**6])
def test_neyman_shares_its_trials_out_after_the_pilot(known, trials):
    wanted = known.strata(by="layer-bit", bits=[0, 13, 15])
    population = np.array([stratum.population for stratum in wanted])
    rules: dict[str, Any] = dict(design="neyman", margin=0.06, trials=trials)
    counts = run(walk_of(known.evaluator(known.memory), wanted, **rules))
    total = trials or int(sample_size(np.array([population.sum()]), 0.06)[0])
    total = min(total, int(population.sum()))
    assert counts.trials.sum() == total
    pilot = [known.outcomes(stratum, PILOT)[0].mean(1) for stratum in wanted]
    sums, squares = zip(*[(y.sum(), (y**2).sum()) for y in pilot], strict=True)
    every = np.full(len(wanted), PILOT)
    expected = neyman(total, population, every, np.array(sums), squares=np.array(squares))
    np.testing.assert_array_equal(counts.trials, expected)
    if total < population.sum():  # bit 0 changes nothing, so little more than the pilot goes there
        shares = counts.trials / population
        assert shares[0::3].max() < shares[2::3].max() and counts.trials.min() >= PILOT
    for place, (stratum, count) in enumerate(zip(wanted, counts.trials.tolist(), strict=True)):
        assert_counted(counts, place, *known.outcomes(stratum, count))


@pytest.fixture(scope="module")
def stops(known) -> tuple[Any, ...]:
    """Strata, the trials and sums of y at which each stops, and the worst (stratum, trial).

    From NumPy's outcomes alone.
    """
    wanted = [*known.strata(by="layer"), *known.strata(by="bit", bits=[3, 13, 14, 15])]
    wanted = [replace(stratum, number=number) for number, stratum in enumerate(wanted)]
    trials, sums, met = [], [], []
    for stratum in wanted:
        size = stratum.population
        changed, _ = known.outcomes(stratum, size)
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


def assert_stopped(counts, stops):
    _, trials, sums, worst = stops
    assert counts.trials.tolist() == trials
    np.testing.assert_allclose(counts.sums("sdc1"), sums, atol=1e-9)
    assert [(each.stratum, each.trial) for each in counts.worst] == worst


@pytest.mark.parametrize("chunk", [7, 512])
def test_strata_stop_after_the_same_trials_however_they_run(known, stops, chunk, monkeypatch):
    monkeypatch.setattr(campaign, "CHUNK", chunk)
    evaluator, asked = known.evaluator(known.memory), []
    whole = evaluator.evaluate_sites
    monkeypatch.setattr(
        evaluator, "evaluate_sites", lambda f, p, **how: asked.append(len(f)) or whole(f, p, **how)
    )
    assert_stopped(run(walk_of(evaluator, stops[0], margin=MARGIN)), stops)
    assert sum(asked) == sum(stops[1]) and max(asked) <= chunk and evaluator.evaluations == 0


def test_a_campaign_that_is_cut_off_goes_on_where_it_was(known, stops, monkeypatch):
    """Cut off twice; no trial runs again, and the end is the same."""
    monkeypatch.setattr(campaign, "CHUNK", 64)
    memory: dict[bytes, bytes] = {}
    done = 0
    for most in (100, 300, 10**6):
        evaluator = known.evaluator(memory)
        walk, told = walk_of(evaluator, stops[0], margin=MARGIN), []

        def advance(count, told=told, most=most):
            told.append(count)
            if sum(told) > most:
                raise KeyboardInterrupt

        if most < 10**6:
            with pytest.raises(KeyboardInterrupt):
                walk.run(advance)
        else:
            walk.run(advance)
            assert_stopped(walk.counts, stops)
        done += evaluator.evaluations
        assert evaluator.evaluations > 0 and done == len(memory)
    # Of faults that two strata have, the second finds the answer.
    pairs = zip(*stops[:2], strict=True)
    distinct = {fault.name for stratum, count in pairs for fault in known.drawn(stratum, count)}
    assert len(memory) == len(distinct)


def test_a_cap_holds_where_strata_may_stop_as_well(known):
    wanted, evaluator = known.strata(by="bit", bits=[3, 15]), known.evaluator(known.memory)
    first, second = looks(0.2, population=144)[:2].tolist()
    for cap, expected in ((first - 2, [first - 2] * 2), (second + 1, [second, second + 1])):
        assert run(walk_of(evaluator, wanted, margin=0.2, trials=cap)).trials.tolist() == expected


def test_every_image_of_an_activation_campaign_meets_faults_of_its_own(known):
    wanted = known.strata(by="layer", targets=["activations"], bits=[12, 13, 14, 15])
    walk = walk_of(known.evaluator(), wanted, 20, margin=0.2, sequential=False)
    counts, names = run(walk), list(known.kernels)
    for place, stratum in enumerate(wanted):
        total, count = 0.0, int(counts.trials[place])
        for fault in known.drawn(stratum, count, images=20):
            (((layer, _), sites),) = fault.sites.items()
            elements, words = sites.elements, sites.words
            assert elements.shape == (20, 1) and (elements != NOWHERE).all()

            def reads(name, stored, hit=names[layer], at=elements[:, 0], bits=words[:, 0]):
                if name == hit:
                    stored = stored.copy()
                    stored[np.arange(20), at] ^= bits
                return stored

            total += (known.classes(known.kernels, reads=reads) != known.clean).mean()
        np.testing.assert_allclose(counts.sums("sdc1")[place], total, atol=1e-9)
    assert counts.sums("sdc1").sum() > 1


def test_trials_of_several_faults_are_no_census(known):
    """Halving a stratum into pairs leaves most pairs unseen: no trial less is needed for it."""
    evaluator, pairs = known.evaluator(), known.strata(Single("flip", 1, 2), by="layer", bits=[15])
    assert [stratum.population for stratum in pairs] == [24, 32, 16]
    walk = walk_of(evaluator, pairs, margin=0.2, sequential=False)
    assert walk.most().tolist() == [24, 25, 16]  # 25: of a stratum without end
    single = walk_of(evaluator, known.strata(by="layer", bits=[15]), margin=0.2)
    assert single.most().tolist() == [17, 18, 14]
    with pytest.raises(InputError, match=r"campaign\.count: an exhaustive campaign has one fault"):
        walk_of(evaluator, pairs, design="exhaustive")


def test_too_few_trials_for_the_pilot_are_refused(known):
    evaluator = known.evaluator()
    walk = walk_of(evaluator, known.strata(), design="neyman", trials=767)
    with pytest.raises(InputError, match="767 are fewer than the pilot's 768, 16 in each of 48"):
        walk.run(lambda count: None)
    with pytest.raises(InputError, match="767 are fewer"):
        walk.most()
    assert evaluator.evaluations == 0


def test_intervals_have_the_level_of_their_design(known):
    evaluator, wanted = known.evaluator(), known.strata()
    for design in ("single", "neyman", "exhaustive"):
        rules: dict[str, Any] = dict(design=design, sequential=False, confidence=0.9)
        assert walk_of(evaluator, wanted, **rules).level == 0.9
    assert 0.9 < walk_of(evaluator, wanted, confidence=0.9).level < 0.99
