"""The counter hash: its rates, its independence, and that a draw depends on nothing but its place.

Every statistical test is a fixed computation (the seeds are written down): it cannot flicker. Bands
are 5 standard deviations wide, so a sound generator passes with any seed, not only with these.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from afpjax.faults import bits

GENERATORS = ("hash", "threefry")
SHAPE = (64, 32, 32, 16)  # 2^20 elements
SEED = bits.seed_words(7)


def stream(trial=0, layer=0, target=bits.WEIGHTS, image=0, seed=SEED):
    words = dict(trial=jnp.uint32(trial), layer=jnp.uint32(layer), image=jnp.uint32(image))
    return bits.stream(seed, target=target, **words)


@partial(jax.jit, static_argnums=(1, 2, 3))  # op by op, it takes most of the tests' time
def _draws(words, shape, count, generator):
    return jnp.stack(bits.draws(words, shape, count, generator=generator))


@partial(jax.jit, static_argnums=2)
def _mask(words, limits, generator):
    return bits.flip_mask(words, SHAPE, range(4), limits, generator=generator)


def draws(generator="hash", shape=SHAPE, count=4, **place):
    return np.asarray(_draws(stream(**place), shape, count, generator)).reshape(count, -1)


def mask(rate, generator="hash", **place):
    """Of four bits."""
    limits = jnp.asarray(bits.threshold(np.full(4, rate)))
    return np.asarray(_mask(stream(**place), limits, generator))


def assert_uncorrelated(one, other, name):
    """Correlation of two long sequences within 5 standard deviations of zero."""
    deviations = np.corrcoef(one, other)[0, 1] * np.sqrt(len(one))
    assert abs(deviations) < 5, f"{name}: {deviations:.1f} standard deviations"


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.2, 0.5])
def test_each_bit_flips_at_its_rate(generator, rate):
    trials = range(16 if rate < 1e-3 else 2)
    flips = np.zeros(4)
    for trial in trials:
        drawn = mask(rate, generator=generator, trial=trial)
        flips += [((drawn >> bit) & 1).sum() for bit in range(4)]
    sites = len(trials) * np.prod(SHAPE)
    for count in flips:
        assert stats.binomtest(int(count), int(sites), rate).pvalue > 1e-6, (count, sites * rate)


@pytest.mark.parametrize("generator", GENERATORS)
def test_draws_are_uniform_and_rates_of_zero_and_one_exact(generator):
    assert not mask(0.0, generator=generator).any()
    assert (mask(1.0, generator=generator) == 0b1111).all()
    for drawn in draws(generator):
        counts = np.bincount(drawn >> 23, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
        low = np.bincount(drawn & 255, minlength=256)
        assert stats.chisquare(low).pvalue > 1e-6


def test_all_pairs_of_32_bits_are_independent():
    """Each pair of places flips together as often as two independent coins of 20 %."""
    flips = draws(shape=(1 << 18,), count=32) < 0.2 * 2**31
    together = flips.astype(np.float32) @ flips.T.astype(np.float32)
    pairs = together[np.triu_indices(32, 1)]
    expected, sites = 0.04, flips.shape[1]
    deviations = (pairs - expected * sites) / np.sqrt(sites * expected * (1 - expected))
    assert np.abs(deviations).max() < 5, deviations
    assert 0.6 < deviations.std() < 1.1  # random points of the lattice, marginals' part included


@pytest.mark.parametrize(
    ("generator", "shape", "count"), [("hash", (2**18,), 32), ("threefry", SHAPE, 4)]
)
def test_neighbouring_bits_are_independent(generator, shape, count):
    """All patterns of fair bits: of the first to the last eight of 32, or of four, places."""
    size = min(count, 8)
    every = draws(generator, shape, count) < 2**30
    for flips in every.reshape(-1, size, every.shape[1]):
        patterns = (flips * (1 << np.arange(size))[:, None]).sum(axis=0)
        assert stats.chisquare(np.bincount(patterns, minlength=2**size)).pvalue > 1e-6


def signed_vectors(length, most):
    """Every vector of non-zero integers, up to its sign, whose entries' product is `most` at most.

    As uint32 [length, N] modulo 2^32, and the products [N].
    """
    vectors, products = np.ones((0, 1), np.int64), np.ones(1, np.int64)
    for place in range(length):
        numbers = [np.arange(1, most // product + 1) for product in products]
        repeats = [len(each) for each in numbers]
        entries = np.concatenate(numbers)
        vectors = np.vstack([np.repeat(vectors, repeats, axis=1), entries])
        products = np.repeat(products, repeats) * entries
        if place:
            vectors = np.hstack([vectors, np.vstack([vectors[:-1], -vectors[-1:]])])
            products = np.tile(products, 2)
    return (vectors % 2**32).astype(np.uint32), products


SMALLEST = [(2, 16, 2e7), (2, 32, 6e6), (3, 8, 4e5), (3, 16, 4e4), (3, 32, 8e3)]
SMALLEST += [(4, 4, 1e5), (4, 8, 2e4), (4, 16, 1500)]
LARGEST = pytest.param(4, 32, 500, marks=pytest.mark.slow)


@pytest.mark.parametrize(("length", "first", "least"), [*SMALLEST, LARGEST])
def test_the_lattices_of_few_bits_are_even(length, first, least):
    """No vector a with sum of a·M = 0 modulo 2^32 has a small product of its entries.

    The largest entry follows from the others, whose product is at most least^(1 - 1/length).
    """
    vectors, products = signed_vectors(length - 1, int(least ** (1 - 1 / length)) + 1)
    for chosen in itertools.combinations(bits.MULTIPLIERS[:first], length):
        for largest in range(length):
            solved = pow(chosen[largest], -1, 2**32)
            rest = [m * solved % 2**32 for m in (*chosen[:largest], *chosen[largest + 1 :])]
            other = (vectors * np.array(rest, np.uint32)[:, None]).sum(axis=0, dtype=np.uint32)
            assert (products * np.abs(other.view(np.int32).astype(np.float64))).min() >= least


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_neighbours_along_every_axis_are_independent(generator, rate):
    drawn = (mask(rate, generator=generator) & 1).astype(float)
    for axis in range(4):
        for distance in (1, 2, 8):
            ahead = np.take(drawn, range(distance, drawn.shape[axis]), axis)
            behind = np.take(drawn, range(drawn.shape[axis] - distance), axis)
            assert_uncorrelated(ahead.ravel(), behind.ravel(), f"axis {axis}, lag {distance}")


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "place", [dict(trial=1), dict(layer=1), dict(image=1), dict(target=bits.ACTIVATIONS)]
)
def test_streams_are_independent(generator, place):
    """Layers, trials, images, and weights against activations, bit by bit and across bits."""
    one, other = draws(generator), draws(generator, **place)
    deviations = np.corrcoef(one, other)[:4, 4:] * np.sqrt(one.shape[1])
    assert np.abs(deviations).max() < 5, deviations
    both = ((one[0] >> 27).astype(int) * 16) + (other[0] >> 27)
    assert stats.chisquare(np.bincount(both, minlength=256)).pvalue > 1e-6


def test_many_streams_at_one_place_are_independent():
    """Element 0's draw over 4,096 consecutive images, layers, trials and seeds is uniform."""
    numbers = jnp.arange(4096, dtype=jnp.uint32)
    none, one = jnp.uint32(0), jnp.zeros((), jnp.uint32)
    families = {
        "image": bits.stream(SEED, trial=none, layer=none, target=1, image=numbers),
        "layer": bits.stream(SEED, trial=none, layer=numbers, target=1),
        "trial": bits.stream(SEED, trial=numbers, layer=none, target=0),
        "seed": jax.vmap(
            lambda n: bits.stream(jnp.stack([n, none]), trial=none, layer=none, target=0)
        )(numbers),
    }
    for name, words in families.items():
        drawn = np.asarray(jax.vmap(lambda s: bits.draw_at(s, None, one, 0))(words))
        assert stats.kstest(drawn / 2**31, "uniform").pvalue > 1e-6, name
        assert_uncorrelated(drawn[1:], drawn[:-1], name)
        assert len(np.unique(np.asarray(words), axis=0)) == 4096, f"{name}: streams collide"


def test_streams_share_no_block_of_values():
    """One keyed round would give two streams the same values in another order."""
    values = [set(draws(shape=(1 << 16,), count=1, trial=trial)[0]) for trial in range(8)]
    expected = 2**32 / 2**31  # pairs of equal values among 2^16 x 2^16
    for first in range(8):
        for second in range(first):
            assert len(values[first] & values[second]) < expected + 5 * np.sqrt(expected) + 2


def test_a_draw_depends_on_its_row_major_index_alone():
    """The hash of a larger tensor's head is the smaller one's: nothing depends on the shape."""
    shape = (3, 5, 7, 2)
    high, low = bits.counters(shape)
    assert high is None
    np.testing.assert_array_equal(low, np.arange(np.prod(shape)).reshape(shape))
    whole = draws(shape=(4096,))
    np.testing.assert_array_equal(draws(shape=(1000,)), whole[:, :1000])
    np.testing.assert_array_equal(draws(shape=(16, 16, 16)), whole)


def test_positions_beyond_float32_and_beyond_32_bits_are_reached():
    """CNNParted draws positions as float32: above 2^24 most never come up."""
    start = 2**24
    low = jnp.arange(start, start + 4096, dtype=jnp.uint32)
    drawn = np.asarray(bits.draw_at(stream(), None, low, 0))
    assert len(np.unique(drawn)) > 4090
    shape = (3, 2**31, 2)  # 12.9 billion elements, never made
    high, low = jax.eval_shape(lambda: bits.counters(shape))
    assert high is not None and high.shape == low.shape == shape
    low = jnp.arange(512, dtype=jnp.uint32)
    rows = [np.asarray(bits.draw_at(stream(), jnp.uint32(row), low, 0)) for row in range(3)]
    assert not set(rows[0]) & set(rows[1]) and not set(rows[1]) & set(rows[2])


def test_seeds_from_keys_and_integers():
    np.testing.assert_array_equal(bits.seed_words(2**40 + 5), [5, 256])
    assert not np.array_equal(
        bits.seed_words(jax.random.key(1)), bits.seed_words(jax.random.key(2))
    )
    assert bits.seed_words(jax.random.key(3, impl="rbg")).shape == (2,)
    traced = jax.jit(bits.seed_words)(jnp.int32(5))
    np.testing.assert_array_equal(traced, bits.seed_words(5))


def test_thresholds_round_to_the_nearest_of_2_to_the_31():
    np.testing.assert_array_equal(
        bits.threshold(np.array([0.0, 2.0**-31, 0.5, 1.0])), [0, 1, 2**30, 2**31]
    )


@pytest.mark.parametrize(("layers", "images"), [(2, 16), (3, 16)])
def test_streams_of_few_layers_and_many_images_compile(layers, images):
    """Written out in one fused expression, XLA never ended compiling two layers of 16 images."""
    seed, trial = bits.seed_words(5), jnp.uint32(1)
    indices = jnp.arange(images, dtype=jnp.uint32)

    @jax.jit
    def all_at_once(seed, trial, indices):
        return jax.vmap(lambda i: bits.streams(seed, trial, layers, bits.ACTIVATIONS, i))(indices)

    words = all_at_once(seed, trial, indices)
    place = {"trial": trial, "target": bits.ACTIVATIONS}
    for layer, image in ((0, 0), (layers - 1, images - 1)):
        alone = bits.stream(seed, layer=jnp.uint32(layer), image=jnp.uint32(image), **place)
        np.testing.assert_array_equal(words[image, layer], alone)
