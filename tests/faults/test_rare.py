"""Rare rates: thresholds of two words are what they say, in all kinds, and change no other draw."""

from fractions import Fraction
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from afpjax.campaigns.masks import Cell, limits_of
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits
from afpjax.faults.model import FaultModel, thresholds
from afpjax.network.quantized import Quantized

from .words import mixed

RARE = [3.8e-6, 1e-6, 3e-7, 1e-8, 2e-10, 1e-12, 1e-15]
GENERATORS = ("hash", "threefry")
SEED = bits.seed_words(7)
MULTIPLY = [np.uint32(each) for each in bits.MULTIPLIERS]


def words(rates):
    """Thresholds of two words as integers of 63 bits, by Python."""
    first, second = np.split(bits.threshold(np.array(rates), rare=True), 2)
    return [(int(a) << 32) + int(b) for a, b in zip(first, second, strict=True)]


def test_rates_down_to_1e_15_are_met_to_one_in_ten_thousand():
    for rate, word in zip(RARE, words(RARE), strict=True):
        assert abs(Fraction(word, 2**63) - Fraction(rate)) <= Fraction(rate) / 10_000
    usual = [0.0, bits.RARE, 1e-5, 1e-3, 0.2, 1 / 3, 1.0]
    assert words(usual) == [int(each) << 32 for each in bits.threshold(np.array(usual))]
    assert bits.any_rare(np.array([0.0, 1e-15])) and not bits.any_rare(np.array(usual))


def test_a_higher_rate_has_no_lower_threshold():
    rng = np.random.default_rng(0)
    rates = [*10 ** rng.uniform(-18, 0, 10_000), *rng.uniform(0, 1e-5, 10_000)]
    found = words(sorted(rates))
    assert all(one <= other for one, other in pairwise(found))


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_bit_flips_where_its_63_bits_are_below_the_threshold(generator):
    """Thresholds at, just below and just above the very draws of one element."""
    shape, positions = (3, 50), (0, 1, 2, 3)
    stream = bits.stream(SEED, trial=jnp.uint32(3), layer=jnp.uint32(1), target=0)
    for place, first in enumerate(bits.draws(stream, shape, 4, generator=generator)):
        second = bits._second(stream, shape, place, generator)
        drawn = (int(first[1, 7]) << 32) + int(second[1, 7])
        for threshold, flips in ((drawn, 0), (drawn - 1, 0), (drawn + 1, 1)):
            limits = np.zeros(8, np.uint32)
            limits[[place, 4 + place]] = threshold >> 32, threshold % 2**32
            mask = bits.flip_mask(stream, shape, positions, limits, generator=generator)
            assert int(mask[1, 7]) == flips << place
            count = bits.count_flips(stream, shape, positions, limits, generator=generator)
            assert int(count) == int(np.asarray(mask > 0).sum())


def unmixed(word):
    """Its inverse."""

    def unshifted(word, by):
        found = word
        for _ in range(32 // by):
            found = word ^ (found >> np.uint32(by))
        return found

    word = unshifted(word, 14)
    for multiplier, by in ((0x31848BAB, 15), (0xAC4C1B51, 11), (0xED5AD4BB, 17)):
        word = unshifted(word * np.uint32(pow(multiplier, -1, 2**32)), by)
    return word


def places_of(streams, place, firsts):
    """In a tensor of 2^32 elements, those whose first draw is one of `firsts`: [S, 2F] each."""
    shift = mixed(streams[:, 1] + np.uint32(place * bits._GOLDEN % 2**32))
    products = (2 * np.repeat(firsts, 2) + np.tile([0, 1], len(firsts))).astype(np.uint32)
    x = (products[None] - shift[:, None]) * np.uint32(pow(bits.MULTIPLIERS[place], -1, 2**32))
    return unmixed(x) ^ streams[:, :1], x, shift[:, None]


def seconds_of(streams, x, shift, place):
    salt = mixed(streams[:, 0] ^ mixed(streams[:, 1] + np.uint32(bits._SECOND)))
    return mixed(x ^ salt[:, None]) * MULTIPLY[place] + shift


def many_streams(count, target=bits.WEIGHTS):
    made = bits.stream(
        SEED, trial=jnp.arange(count, dtype=jnp.uint32), layer=jnp.uint32(2), target=target
    )
    return np.asarray(made)


@pytest.mark.parametrize("place", [0, 17])
def test_elements_found_by_the_inverse_are_drawn_so(place):
    """The tests below look up where draws are small: what they find is what the hash draws."""
    streams = many_streams(3)
    elements, x, shift = places_of(streams, place, np.array([0, 5]))
    seconds = seconds_of(streams, x, shift, place)
    for stream, own, second in zip(jnp.asarray(streams), elements, seconds, strict=True):
        low = jnp.asarray(own)
        np.testing.assert_array_equal(bits.draw_at(stream, None, low, place), [0, 0, 5, 5])
        np.testing.assert_array_equal(bits._second_at(stream, None, low, place), second)


@pytest.mark.parametrize(("rate", "place"), [(3e-7, 0), (1e-8, 3), (2e-10, 17), (5e-12, 0)])
def test_bits_flip_at_rare_rates(rate, place):
    """Counts over 3e10 to 5e12 draws, tensor by tensor, against Poisson's distribution."""
    size = 2**20 if rate > 1e-7 else 2**28
    streams = many_streams(30_000 if rate > 1e-9 else 200_000)
    if rate > 1e-7:
        streams = streams[:3_000]
    ((threshold,),) = [words([rate])]
    first, rest = threshold >> 32, threshold % 2**32
    whole, *_ = places_of(streams, place, np.arange(first))
    edge, x, shift = places_of(streams, place, np.array([first]))
    at_edge = (edge < size) & (seconds_of(streams, x, shift, place) < rest)
    flips = (whole < size).sum(axis=1) + at_edge.sum(axis=1)
    mean = len(streams) * size * threshold / 2**63
    assert stats.poisson(mean).cdf(flips.sum()) == pytest.approx(0.5, abs=0.4999997)
    # No stream has more than its share: the number of flips in a tensor is Poisson's, or narrower.
    assert flips.var() < 1.05 * flips.mean() + 5 * np.sqrt(2 / len(streams)) * flips.mean()


def test_second_draws_are_uniform_and_independent_where_they_matter():
    """Among elements whose first draw is the threshold's: over streams, bits and neighbours."""
    streams, columns = many_streams(100_000), {}
    for place in range(4):
        _, x, shift = places_of(streams, place, np.array([0]))
        columns[place] = seconds_of(streams, x, shift, place)
        for each in columns[place].T:
            counts = np.bincount(each >> np.uint32(24), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-6
            low = np.bincount(each & np.uint32(255), minlength=256)
            assert stats.chisquare(low).pvalue > 1e-6
    every = np.concatenate([columns[place].T for place in range(4)]).astype(np.float64)
    deviations = np.asarray(np.corrcoef(every))[np.triu_indices(8, 1)] * np.sqrt(len(streams))
    assert np.abs(deviations).max() < 5, deviations
    along = [np.corrcoef(each[:-1], each[1:])[0, 1] * np.sqrt(len(streams)) for each in every]
    assert np.abs(along).max() < 5, along


def test_rows_beyond_2_to_the_32_have_second_draws_of_their_own():
    """An element of a row has the first draw of one of every other row, but not its second."""
    stream = jnp.asarray(many_streams(1)[0])
    seconds = set()
    for row in range(64):
        first = mixed(np.asarray(stream)[:1] + np.uint32(row))
        own = np.array([[first[0], np.asarray(stream)[1]]], np.uint32)
        elements, *_ = places_of(own, 2, np.array([9]))
        high = jnp.full((2,), row, jnp.uint32)
        low = jnp.asarray(elements[0])
        assert (np.asarray(bits.draw_at(stream, high, low, 2)) == 9).all()
        seconds |= set(np.asarray(bits._second_at(stream, high, low, 2)).tolist())
    assert len(seconds) == 128


KINDS = {
    "flip": FaultModel(weight_rate=(0.1, 0.02), activation_rate=0.05, link_rate=0.02),
    "stuck": FaultModel(kind="stuck-at-1", weight_rate=0.1, generator="threefry"),
    "burst": FaultModel(kind="burst", weight_rate=0.1, activation_rate=0.2),
    "zero": FaultModel(kind="zero", link_rate=0.2, link_kind="zero", packet=3),
    "random": FaultModel(kind="random", scope="image", link_rate=0.2, link_kind="last", packet=3),
    "lost": FaultModel(kind="lost", packet=3, scope="run"),
    "lost-last": FaultModel(kind="lost-last", packet=3),
    "budget": FaultModel(weight_rate=0.1, activation_rate=0.1, budget=9),
}


@pytest.mark.in_ci("burst")  # every kind compiles programs of its own
@pytest.mark.parametrize("name", KINDS)
def test_two_words_strike_what_one_does(quantized, images, labels, monkeypatch, name):
    """Every kind, through all programs, with all rates as rare ones: the draws are the same."""
    faults, mapping = KINDS[name], np.array([[0, 1, 0]])

    def everything():
        made = Evaluator(quantized, images[:5], labels[:5], 3, metric=LOGITS)
        drawn = made.evaluate(faults, thresholds(faults, quantized, mapping), [0, 4])
        run = partial(Quantized.__call__, mapping=mapping[0], faults=faults, key=3, trial=4)
        alone = jax.jit(run)(quantized, images[:5])
        if name != "flip":
            return drawn, alone
        by = [np.arange(layer.neurons) % 2 for layer in quantized.layers]  # shared out
        return drawn, alone, made.evaluate_placements([by], faults, [0, 4])

    usual = everything()
    monkeypatch.setattr(bits, "RARE", 1.0)
    assert faults.spec().rare and not any(
        each.shape[-1] == 1 for each in thresholds(faults, quantized, mapping)[:2]
    )
    for one, other in zip(usual, everything(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_cells_of_rare_rates_have_two_words_and_others_one():
    faults = FaultModel(bits=(0, 5), weight_rate=0.1, activation_rate=0.1, bit_profile=(1.0, 0.5))
    rare = limits_of(faults, Cell("weights", (1,), (0, 1), 2e-10), 3)
    assert rare.weights[1].tolist() == [0, 0, *(w % 2**32 for w in words([2e-10, 1e-10]))]
    assert not rare.weights[[0, 2]].any() and rare.activations.shape == (3, 4)
    usual = limits_of(faults, Cell("activations", (2,), (1,), 0.2), 3)
    assert usual.activations[2].tolist() == [0, int(bits.threshold(np.array([0.1]))[0])]


def test_programs_of_usual_rates_compare_once(quantized, images):
    """No second draw is computed where no rate is rare: `_SECOND` is in no such program."""

    def text(rate):
        faults = FaultModel(weight_rate=rate, activation_rate=0.1)
        run = jax.jit(lambda x: quantized(x, faults=faults))
        return run.lower(images).as_text()

    assert (str(bits._SECOND) in text(0.1), str(bits._SECOND) in text(1e-7)) == (False, True)
