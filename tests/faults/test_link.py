"""Values struck on their way between devices, against NumPy; rates; what must not be struck."""

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
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

from .words import draws_of, mask_of

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


def flips(image, trial, number, count, width):
    """Weights are target 0, activations 1, what crosses 2: none shares its draws with another."""
    return mask_of((KEY, trial, number, image), bits.LINK, RATE, range(width), (count,))


def packets(image, trial, number, count):
    place = KEY, trial, number, image
    (draw,) = draws_of(place, bits.LINK, (-(-count // PACKET),), 1)
    return np.repeat(draw < round(RATE * 2**31), PACKET)[:count]


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


@pytest.mark.in_ci("tensor")
def test_on_one_device_nothing_is_struck_and_one_row_is_run(network, images):
    """At a rate of 1 a layer on another device reads zeros, and so do those behind it."""
    evaluator = Evaluator(network, images[:3], np.zeros(3, np.int32), KEY, metric=LOGITS)
    mappings = np.array([[0] * 5, [1] * 5, [2] * 5, [0, 1, 1, 1, 1]], np.int32)
    limits = thresholds(model("last", 1.0), network, mappings)
    got = evaluator.evaluate(model("last", 1.0), limits, range(4))
    assert evaluator.evaluations == 1 + 4 and not got[3].any()
    np.testing.assert_array_equal(got[:3], np.broadcast_to(network(images[:3]), got[:3].shape))


@pytest.mark.parametrize("fmt", [QFormat(), QFormat(kind="bfloat16"), QFormat(kind="float32")])
def test_what_arrives_whole_is_the_value_itself(fmt):
    """Not its code times the step: nothing changes where nothing is struck, bit for bit."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(50, 40)) * 200, jnp.float32)
    draws, step, none = model("zero").spec(), jnp.float32(2.0**-8), jnp.uint32(0)
    stream = bits.stream(bits.seed_words(KEY), trial=none, layer=none, target=bits.LINK)

    def read(values, rate=RATE):
        limit = jnp.asarray(bits.threshold(np.array([rate]))[0])
        return arrived(draws, fmt, values, stream, limit, step)

    gone = packets(0, 0, 0, values.size).reshape(values.shape)
    np.testing.assert_array_equal(read(values), np.where(gone, 0, values))
    assert read(values.astype(jnp.bfloat16)).dtype == "bfloat16"  # a network's own type stays
    np.testing.assert_array_equal(read(values > 0, 1.0), values > 0)  # no word of the format
