"""Faults at given places of weights and activations against a forward pass on stored words."""

from collections import ChainMap
from itertools import product
from typing import Any

import numpy as np
import pytest

from afpjax.evaluate import sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults.sites import NOWHERE, Fault, FaultSites, Site
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import HOW

from ..faults.words import FORMATS, changed, forward, kernels_of, right

NAMES = ("a", "b", "c")
STORED = {"weights": (48, 64, 32), "activations": (6, 8, 8)}  # of each layer of conftest.py
BITS = {  # small enough for exact sums (fixed), or for logits that can be compared (floats)
    "fixed 16": range(11),
    "fixed 8": range(8),
    "fixed 6": range(6),
    "float32": (*range(26), 31),
    "bfloat16": (*range(10), 15),
}


def logits_under(fmt, kernels, images, fault):
    """One element after the other, in Python's integers."""
    kernels = {name: words.copy() for name, words in kernels.items()}
    reads: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for (layer, target), sites in fault.sites.items():
        elements, words = sites.elements, sites.words
        for image in range(1 if target == "weights" else len(images)):
            row = min(image, len(elements) - 1)
            for element, mask in zip(elements[row].tolist(), words[row].tolist(), strict=True):
                if target == "activations":
                    reads.setdefault((NAMES[layer], image), []).append((element, mask))
                elif element != NOWHERE:
                    flat = kernels[NAMES[layer]].reshape(-1)
                    flat[element] = changed(fault.how, flat[element], mask)

    def read(name, words):
        faulty = words.copy()
        for image in range(len(faulty)):
            for element, mask in reads.get((name, image), ()):
                if element != NOWHERE:
                    faulty[image, element] = changed(fault.how, faulty[image, element], mask)
        return faulty

    return forward(fmt, kernels, np.asarray(images), read)


def sites_of(rng, layer, target, bits, count, images=1):
    """`count` distinct elements of each image, one to three of whose bits are faulty."""
    last = STORED[target][layer]
    elements = np.stack([rng.permutation(last)[:count] for _ in range(images)])
    words = np.zeros(elements.shape, np.uint32)
    for _ in range(3):
        words |= np.uint32(1) << rng.choice(bits, elements.shape).astype(np.uint32)
    return {(layer, target): FaultSites(elements.astype(np.uint32), words)}


def some_faults(bits, images, hows=HOW):
    """Every operand alone, then several of several layers, each image faulty alike or by itself."""
    rng, faults = np.random.default_rng(4), []
    for how in hows:
        for layer in range(3):
            faults.append(Fault(sites_of(rng, layer, "weights", bits, 5), how))
            for many in (1, images):
                faults.append(Fault(sites_of(rng, layer, "activations", bits, 3, many), how))
        for many in (1, images):
            several = [sites_of(rng, layer, "weights", bits, 1 + layer) for layer in (2, 0)]
            several += [sites_of(rng, k, "activations", bits, 2, many) for k in (0, 1)]
            several += [sites_of(rng, 2, "activations", bits, 3, 1)]
            faults.append(Fault(dict(ChainMap(*several)), how))
    return faults


def assert_close(fmt, got, expected):
    """Integers exactly; floats to the rounding of their sums."""
    expected = expected.astype(np.float32)
    if fmt.kind == "fixed":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


def logits_of(network, images, faults):
    labels = np.zeros(len(images), np.int32)
    return Evaluator(network, images, labels, 0, metric=LOGITS).evaluate_sites(faults)


@pytest.mark.in_ci("fixed 8", "bfloat16")
@pytest.mark.parametrize("name", FORMATS)
def test_faults_at_places_are_those_of_the_stored_words(name, network_of, images):
    fmt = FORMATS[name]
    network = network_of(fmt)
    faults, kernels = some_faults(BITS[name], len(images)), kernels_of(network)
    got = logits_of(network, images, faults)
    clean = forward(fmt, kernels, np.asarray(images)).astype(np.float32)
    for fault, logits in zip(faults, got, strict=True):
        expected = logits_under(fmt, kernels, images, fault)
        assert (np.abs(expected - clean) > 1e-3).any(), "this fault shows nothing"
        assert_close(fmt, logits, expected)
    labels = clean.argmax(1).astype(np.int32)
    answers = Evaluator(network, images, labels, 0).evaluate_sites(faults)
    np.testing.assert_array_equal(answers, [right(logits, labels) for logits in got])
    assert 0.3 < answers.mean() < 1
    highest = Fault.at(Site(2, 31, fmt.width - 1), Site(2, 0, 0))
    assert Evaluator(network, images, labels, 0).evaluate_sites([highest]).shape == (1, 40)
    if fmt.width < 32:
        with pytest.raises(InputError, match=f"bits 0 to {fmt.width - 1}"):
            Evaluator(network, images, labels, 0).evaluate_sites([Fault.at(Site(2, 0, fmt.width))])


@pytest.mark.in_ci("bfloat16")
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_infinite_and_undefined_reads_are_never_right(name, network_of, images):
    """The exponent's bits too: a sum of huge numbers may be anything, but not a finite one here."""
    fmt = FORMATS[name]
    network, kernels = network_of(fmt), kernels_of(network_of(fmt))
    labels = forward(fmt, kernels, np.asarray(images)).argmax(1).astype(np.int32)
    exponent = range(fmt.width - 9, fmt.width - 1)
    faults = [
        Fault.at(*(Site(layer, 3, bit, "activations") for bit in exponent), how=how)
        for layer in range(3)
        for how in HOW
    ]
    got = Evaluator(network, images, labels, 0).evaluate_sites(faults)
    expected = [logits_under(fmt, kernels, images, fault) for fault in faults]
    np.testing.assert_array_equal(got, [right(logits, labels) for logits in expected])
    assert not got[HOW.index("set") :: len(HOW)].any() and got[HOW.index("clear")].any()


@pytest.mark.parametrize(("count", "batch"), [(40, 40), (40, 7), (3, 64)])
def test_places_do_not_depend_on_how_images_are_batched(
    quantized, images, monkeypatch, count, batch
):
    """With three images a call has room for 21 faults."""
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=batch, most_images=batch))
    faults, few = some_faults(BITS["fixed 16"], count, hows=("set",)), images[:count]
    for fault, logits in zip(faults, logits_of(quantized, few, faults), strict=True):
        expected = logits_under(quantized.format, kernels_of(quantized), few, fault)
        assert_close(quantized.format, logits, expected)


def row(*numbers):
    return np.array([numbers], np.uint32)


def test_padding_and_places_of_nothing_strike_nothing(quantized, images):
    """Operands may have no elements at all, or rows filled up with `NOWHERE`."""
    one = fault_of(row(5), row(1 << 9), 1, "activations")
    padded = fault_of(row(5, *3 * [NOWHERE]), row(1 << 9, 7, 7, 7), 1, "activations")
    weights = fault_of(row(NOWHERE, 31, NOWHERE), row(1, 1 << 9, 1), 2)
    nothing = [
        Fault({}),
        Fault({**fault_of(row(), row()).sites, **fault_of(row(), row(), 1, "activations").sites}),
        fault_of(row(NOWHERE, NOWHERE), row(1, 1), 2),
    ]
    got = logits_of(quantized, images, [one, padded, weights, *nothing])
    np.testing.assert_array_equal(got[0], got[1])
    for fault, logits in zip([one, weights], got[[0, 2]], strict=True):
        expected = logits_under(quantized.format, kernels_of(quantized), images, fault)
        assert_close(quantized.format, logits, expected)
    clean = np.asarray(quantized(images))
    assert (got[0] != clean).any() and (got[2] != clean).any()
    np.testing.assert_array_equal(got[3:], np.stack([clean] * 3))


def test_bits_of_one_element_are_one_word_and_a_bit_named_twice_is_faulty_once():
    sites = [Site(1, 7, 2), Site(1, 7, 5), Site(1, 9, 0), Site(1, 7, 2)]
    fault = Fault.at(*sites, Site(0, 7, 1, "activations"), how="set")
    assert list(fault.sites) == [(1, "weights"), (0, "activations")]
    weights, inputs = fault.sites.values()
    np.testing.assert_array_equal(weights.elements, [[7, 9]])
    np.testing.assert_array_equal(weights.words, [[0b100100, 1]])
    np.testing.assert_array_equal([inputs.elements, inputs.words], [[[7]], [[2]]])
    top = Fault.at(Site(0, 0, 31))
    words = top.sites[0, "weights"].words
    assert words[0, 0] == 2**31 and words.dtype == np.uint32


def test_names_are_equal_for_equal_faults_alone():
    """All faults of up to three sites among eight, in every order and by NumPy's numbers too."""
    places = product((0, 1), ((0, 1), (1, 0)), STORED)
    sites = [Site(layer, *place, target) for layer, place, target in places]
    names: dict[tuple, bytes] = {}
    for how, first, second, third in product(HOW, sites, sites, sites[::3]):
        for order in ((first, second, third), (third, first, second)):
            name = Fault.at(*order, how=how).name
            assert names.setdefault((how, frozenset(order)), name) == name
    assert len(set(names.values())) == len(names)
    numbers = Site(*np.array([1, 7, 3])), Site(1, 7, 3)
    assert Fault.at(numbers[0]).name == Fault.at(numbers[1]).name


def test_names_tell_images_apart():
    def fault(*rows):
        elements = np.array(rows, np.uint32)
        return fault_of(elements, np.ones_like(elements), target="activations")

    made = [fault([1, 2], [3, 4]), fault([3, 4], [1, 2]), fault([1, 2, 3, 4])]
    made += [fault([1, 3], [2, 4]), fault([1], [2]), fault([1, 2]), fault([1, 2], [3, 5])]
    assert len({each.name for each in [*made, Fault({})]}) == len(made) + 1
    assert fault([2, 1], [3, 4]).name == made[0].name


def test_equal_faults_run_once_and_are_remembered(quantized, images, labels):
    memory: dict[bytes, bytes] = {}
    evaluator = Evaluator(quantized, images, labels, 0, memory=memory)
    first = Fault.at(Site(0, 3, 15), Site(1, 2, 14, "activations"))
    again = Fault.at(Site(1, 2, 14, "activations"), Site(0, 3, 15))
    others = [Fault(first.sites, "clear"), Fault.at(Site(0, 3, 15))]
    counted: list[int] = []
    seen = evaluator.evaluate_sites([first, *others, again, first], counted.append)
    assert evaluator.evaluations == len(memory) == 3 and sum(counted) == 5
    np.testing.assert_array_equal(seen[[3, 4]], seen[[0, 0]])
    resumed = Evaluator(quantized, images, labels, 0, memory=memory)
    more = Fault.at(Site(2, 9, 15), how="set")
    np.testing.assert_array_equal(resumed.evaluate_sites([more, again, *others])[1:], seen[:3])
    assert resumed.evaluations == 1 and len(memory) == 4
    other = Evaluator(quantized, images, labels, 0, memory=memory, name="other images")
    np.testing.assert_array_equal(other.evaluate_sites([first]), seen[:1])
    assert other.evaluations == 1


def fault_of(elements: Any, words: Any, layer=0, target="weights", how="flip"):
    return Fault({(layer, target): FaultSites(np.asarray(elements), np.asarray(words))}, how)


def per_image(images, *numbers):
    return np.repeat(row(*numbers), images, axis=0)


REFUSED = {
    "'toggle' is none of flip, clear, set": fault_of(row(0), row(1), how="toggle"),
    "a target is one of weights, activations": fault_of(row(0), row(1), target="bias"),
    "the network has the layers 0 to 2": fault_of(row(0), row(1), layer=3),
    "1, 2.* elements, but .*1, 1.* words": fault_of(row(0, 1), row(1)),
    "uint32": fault_of(row(0).astype(np.int64), row(1)),
    r"uint32 \[images, sites\]": fault_of(row(0)[0], row(1)[0]),
    "weights of 40 images": fault_of(per_image(40, 1), per_image(40, 1)),
    "activations of 39 images, there are 40": fault_of(
        per_image(39, 1), per_image(39, 1), target="activations"
    ),
    "layer `a`, weights: element 48 is none of 0 to 47": fault_of(row(3, 48), row(1, 1)),
    "layer `b`, activations: element 8 is none of 0 to 7": fault_of(
        np.concatenate([per_image(39, 7), row(8)]), per_image(40, 1), 1, "activations"
    ),
    "element 5 is faulty twice": fault_of(row(5, 3, 5), row(1, 1, 2)),
    "element 2 is faulty twice in one image": fault_of(
        np.concatenate([per_image(39, 2, 3), row(2, 2)]), per_image(40, 1, 1), 1, "activations"
    ),
    "the format has the bits 0 to 15": fault_of(row(0, 1), row(1, 1 << 16)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_faults_that_cannot_be_are_refused_in_one_line(quantized, images, labels, message):
    evaluator = Evaluator(quantized, images, labels, 0)
    with pytest.raises(InputError, match=message) as raised:
        evaluator.evaluate_sites([Fault.at(Site(0, 0, 0)), REFUSED[message]])
    assert "\n" not in str(raised.value) and not evaluator.memory


@pytest.mark.parametrize(
    "site", [Site(0, -1, 0), Site(0, NOWHERE, 0), Site(0, 0, 32), Site(0, 0, -1)]
)
def test_sites_that_nothing_has_are_refused_before_they_become_words(site):
    with pytest.raises(InputError, match="counted from 0"):
        Fault.at(Site(0, 0, 0), site)


def test_no_faults_have_no_answers(quantized, images, labels):
    assert Evaluator(quantized, images, labels, 0).evaluate_sites([]).shape == (0, len(images))
