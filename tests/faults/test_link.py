"""Values struck on their way between devices, against NumPy; rates; what must not be struck."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits
from afpjax.faults.link import arrived
from afpjax.faults.model import FaultModel, thresholds
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

SHAPES = dict(a=(6, 8), b=(8, 8), c=(8, 8), d=(16, 4), e=(8, 4))
KEY, PACKET, RATE = 7, 3, 0.2
FORMATS = {"global": QFormat(bits=10, frac=5), "tensor": QFormat(bits=8, scale="tensor")}
KINDS = ("bits", "zero", "last")
QUIET = dict(weight_rate=0.0, activation_rate=0.0)
# Device by layer. b and c read `first` on one device and on two; the join runs where c does.
MAPPINGS = np.array(
    [[0, 1, 1, 0, 0], [0, 1, 2, 2, 0], [0, 0, 1, 1, 1], [2, 2, 0, 2, 2], [0, 0, 0, 0, 1]], np.int32
)


def forward(p, x):
    """A value with three readers, a concatenation, a skip connection, a sum of two heads."""
    first = jax.nn.relu(x @ p["a"])
    both = jnp.concatenate([jax.nn.relu(first @ p["b"]) + first, first @ p["c"]], axis=1)
    return both @ p["d"] + first @ p["e"]


@pytest.fixture(scope="module", params=FORMATS)
def network(request):
    rng = np.random.default_rng(3)
    params = {n: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for n, s in SHAPES.items()}
    traced = trace(forward, params, jnp.ones((1, 6)))
    sample = jnp.asarray(rng.normal(size=(16, 6)), jnp.float32)
    return quantize(traced, FORMATS[request.param], sample)


def model(kind="bits", rate=RATE, **other):
    return FaultModel(**{**QUIET, **other}, link_rate=rate, link_kind=kind, packet=PACKET)


class InNumPy:
    """The network with what crosses struck, one image and trial at a time; steps are exact."""

    def __init__(self, network, mapping, kind, image, trial):
        self.steps = {n: jax.tree.map(np.float64, s) for n, s in network.steps.items()}
        self.kernels = {n: np.float64(network.parameters.layers[n].kernel) for n in SHAPES}
        self.fmt, self.kind = network.format, kind
        self.home = dict(zip("abcde", mapping, strict=True))
        self.where = image, trial

    def codes(self, values, step):
        return np.clip(np.rint(values / step), -self.fmt.largest - 1, self.fmt.largest)

    def layer(self, name, values):
        step = self.steps[name]
        kernel = self.codes(self.kernels[name], step.weights)
        return self.codes(values, step.inputs) @ kernel * step.inputs * step.weights

    def at(self, reader, maker, number, word, values):
        """What the device of layer `reader` has of value `number`, made on that of `maker`."""
        if self.home[reader] == self.home[maker]:
            return values
        step = self.steps[word].inputs
        sent = self.codes(values, step).astype(np.int64)
        got = self.struck(number, sent.reshape(-1)).reshape(sent.shape)
        return np.where(got == sent, values, got * step)

    def struck(self, number, sent):
        image, trial = self.where
        if self.kind == "bits":
            mask, width = flips(image, trial, number, len(sent), self.fmt.bits), self.fmt.bits
            word = (sent % 2**width) ^ mask
            return np.where(word >= 2 ** (width - 1), word - 2**width, word)
        lost = packets(image, trial, number, len(sent))
        got, last = [], 0
        for value, gone in zip(sent, lost, strict=True):
            last = last if gone else value
            got.append((0 if self.kind == "zero" else last) if gone else value)
        return np.array(got)

    def logits(self, image):
        """Values are numbered as they are made: the image 0, `first` 1, then b, c, their join."""
        first = np.maximum(self.layer("a", np.asarray(image, np.float64)[None]), 0)

        def at(reader):
            return self.at(reader, "a", 1, "b", first)

        left = np.maximum(self.layer("b", at("b")), 0) + at("b")
        right = self.layer("c", at("c"))
        both = np.concatenate([self.at("c", "b", 2, "d", left), right], axis=1)
        head = self.layer("d", self.at("d", "c", 4, "d", both))
        other = self.layer("e", at("e"))
        return (self.at("e", "d", 5, "e", head) + other)[0]


@jax.jit
def stream(image, trial, number):
    words = [jnp.asarray(each).astype(jnp.uint32) for each in (image, trial, number)]
    image, trial, number = words
    # Weights are target 0, activations 1, what crosses 2: none shares its draws with another.
    return bits.stream(bits.seed_words(KEY), trial=trial, layer=number, target=2, image=image)


@partial(jax.jit, static_argnums=(1, 2, 3))  # op by op, it takes most of the tests' time
def drawn(words, how, count, width):
    if how == "bits":
        limits = jnp.asarray(bits.threshold(np.full(width, RATE)))
        return bits.flip_mask(words, (count,), range(width), limits)
    return bits.draws(words, (-(-count // PACKET),), 1)[0]


def flips(image, trial, number, count, width):
    return np.asarray(drawn(stream(image, trial, number), "bits", count, width)).astype(np.int64)


def packets(image, trial, number, count, rate=RATE):
    draw = np.asarray(drawn(stream(image, trial, number), "packets", count, 0))
    return np.repeat(draw < bits.threshold(np.array([rate])), PACKET)[:count]


@pytest.mark.in_ci("global-bits", "tensor-last")
@pytest.mark.parametrize("kind", KINDS)
def test_what_crosses_is_struck_and_nothing_else(network, images, kind):
    """Skips, a join, and two readers on one device or on two: logits are those of NumPy."""
    faults, labels = model(kind), np.zeros(3, np.int32)
    limits = thresholds(faults, network, MAPPINGS)
    evaluator = Evaluator(network, images[:3], labels, KEY, metric=LOGITS)
    got, clean = evaluator.evaluate(faults, limits, [0, 5]), np.asarray(network(images[:3]))
    for row, mapping in enumerate(MAPPINGS):
        assert not np.array_equal(got[row, 0], clean)
        for (place, trial), image in product(enumerate([0, 5]), range(3)):
            expected = InNumPy(network, mapping, kind, image, trial).logits(images[image])
            np.testing.assert_array_equal(got[row, place, image], expected.astype(np.float32))


def test_two_readers_on_one_device_read_the_same_copy(images):
    """Twice the same layer, one answer minus the other: zero, whatever happened on the way."""

    def twice(p, x):
        first = jax.nn.relu(x @ p["a"])
        return (first @ p["b"] - first @ p["c"]) @ p["e"]

    rng = np.random.default_rng(3)
    params = {n: jnp.asarray(rng.normal(size=SHAPES[n]), jnp.float32) for n in "abe"}
    params["c"] = params["b"]
    net = quantize(trace(twice, params, jnp.ones((1, 6))), QFormat())
    same, apart = (np.array(m) for m in ([0, 1, 1, 1], [0, 1, 0, 0]))
    assert not np.any(net(images, mapping=same, faults=model(), key=1))
    assert np.any(net(images, mapping=apart, faults=model(), key=1))


@pytest.mark.in_ci("tensor-last")
@pytest.mark.parametrize("kind", KINDS)
def test_on_one_device_nothing_is_struck_and_one_row_is_run(network, images, kind):
    evaluator = Evaluator(network, images, np.zeros(40, np.int32), KEY, metric=LOGITS)
    faults = model(kind, 1.0)
    mappings = np.repeat(np.arange(3, dtype=np.int32)[:, None], 5, axis=1)
    got = evaluator.evaluate(faults, thresholds(faults, network, mappings), range(4))
    assert evaluator.evaluations == 1
    np.testing.assert_array_equal(got, np.broadcast_to(network(images), got.shape))
    np.testing.assert_array_equal(got[0, 0], evaluator.reference)


@pytest.mark.in_ci("bits")
@pytest.mark.parametrize("kind", KINDS)
def test_the_image_crosses_for_free(images, kind):
    params = {"a": jnp.ones((6, 2)), "b": jnp.ones((6, 2))}
    net = quantize(trace(lambda p, x: x @ p["a"], params, jnp.ones((1, 6))), QFormat())
    got = net(images, mapping=np.array([1]), faults=model(kind, 1.0))
    np.testing.assert_array_equal(got, net(images))


@pytest.mark.parametrize("fmt", [QFormat(), QFormat(kind="bfloat16"), QFormat(kind="float32")])
def test_what_arrives_whole_is_the_value_itself(fmt):
    """Not its code times the step: nothing changes where nothing is struck, bit for bit."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(50, 40)) * 200, jnp.float32)
    draws = model("zero", 0.3).spec()
    read = arrived(draws, fmt, values, stream(0, 0, 0), limit_of(0.3), jnp.float32(2.0**-8))
    gone = packets(0, 0, 0, values.size, 0.3).reshape(values.shape)
    np.testing.assert_array_equal(read, np.where(gone, 0, values))
    half = values.astype(jnp.bfloat16)  # a network's own type stays
    assert (
        arrived(draws, fmt, half, stream(0, 0, 0), limit_of(0.3), jnp.float32(1)).dtype
        == "bfloat16"
    )
    assert arrived(draws, fmt, values > 0, stream(0, 0, 0), limit_of(1), jnp.float32(1)).all() == (
        (values > 0).all()
    )


def limit_of(rate):
    return jnp.asarray(bits.threshold(np.array([rate]))[0])


@partial(jax.jit, static_argnums=0)
def zeros_on_the_way(kind, rate_limit, image):
    """Codes that crossed, of 4,000 zeros (bits), or of ones (packets)."""
    sent = jnp.full(4000, 0.0 if kind == "bits" else 1.0, jnp.float32)
    words = bits.stream(
        bits.seed_words(3), trial=jnp.uint32(0), layer=jnp.uint32(1), target=bits.LINK, image=image
    )
    draws = model(kind).spec()
    return arrived(draws, QFormat(frac=0), sent, words, rate_limit, jnp.float32(1))


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.5])
def test_every_bit_flips_as_often_as_asked_and_packets_are_lost_whole(rate):
    limit, numbers = limit_of(rate), jnp.arange(50, dtype=jnp.uint32)
    codes = jax.vmap(lambda image: zeros_on_the_way("bits", limit, image))(numbers)
    words = np.asarray(codes).astype(np.int64) % 2**16
    for bit in range(16):
        within(np.sum(words >> bit & 1), rate, words.size)
    ones = np.asarray(jax.vmap(lambda image: zeros_on_the_way("zero", limit, image))(numbers))
    lost = ones[:, :3999].reshape(-1, PACKET) == 0
    assert (lost.all(axis=1) == lost.any(axis=1)).all()
    within(lost[:, 0].sum(), rate, len(lost))


def within(count, rate, trials):
    assert abs(count - rate * trials) < 5 * np.sqrt(trials * rate * (1 - rate)) + 1


def test_what_is_struck_at_a_low_rate_is_struck_at_a_higher():
    codes = [zeros_on_the_way("bits", limit_of(rate), jnp.uint32(0)) for rate in (0.1, 0.3)]
    low, high = (np.asarray(each).astype(np.int64) % 2**16 for each in codes)
    assert np.all(low & ~high == 0) and np.any(high & ~low)
    ones = [zeros_on_the_way("zero", limit_of(rate), jnp.uint32(0)) for rate in (0.1, 0.3)]
    low, high = (np.asarray(each) == 0 for each in ones)
    assert np.all(high[low]) and high.sum() > low.sum()


@pytest.mark.in_ci("tensor")
def test_all_is_lost_at_rate_one(network, images):
    """With nothing arriving, a layer on another device reads zeros, and so do those behind it."""
    for kind in ("zero", "last"):
        got = network(images, mapping=np.array([0, 1, 1, 1, 1]), faults=model(kind, 1.0))
        assert not np.any(got)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"link_rate": 1.5}, r"link_rate: 1.5 is outside \[0, 1\]"),
        ({"link_rate": float("nan")}, "link_rate: needs a number, got NaN"),
        ({"link_rate": 1.0, "link_kind": "resent"}, "always lost is resent for ever"),
        ({"link_kind": "late"}, "link_kind: 'late' is none of bits, zero, last, resent"),
        ({"link_rate": 0.1, "budget": 5}, "budget: counts faulty bits of layers, not of the link"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        FaultModel(**settings)
    FaultModel(link_rate=0.1, link_kind="resent", budget=5)  # strikes no value
