"""Strata: which faults there are, counted by hand, and each of them drawn exactly once.

On the network of conftest.py: kernels of 48, 64 and 32 weights, inputs of 6, 8 and 8 values.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from afpjax.campaigns.strata import Single, faults_of, site_names, strata
from afpjax.faults.sites import NOWHERE, check_fault
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

COUNTS = {"weights": (48, 64, 32), "activations": (6, 8, 8)}
WEIGHTS, INPUTS = COUNTS.values()
WIDTH, FLIP = 16, Single()
EVERY = dict(by="layer-bit", targets=["weights"], layers=[0, 1, 2], bits=range(WIDTH))


def made(quantized, kind=FLIP, **changes: Any):
    return strata(quantized, kind, **{**EVERY, **changes})


def faulty(fault, image=0):
    """The sites of a fault in an image: (layer, target, element) -> bits."""
    found = {}
    for (layer, target), sites in fault.sites.items():
        row = min(image, len(sites.elements) - 1)
        words = sites.words[row].tolist()
        for element, word in zip(sites.elements[row].tolist(), words, strict=True):
            if element != NOWHERE:
                assert (layer, target, element) not in found
                found[layer, target, element] = word
            else:
                assert word == 0
    return found


def drawn(quantized, stratum, trials=None, *, seed=1, **options):
    trials = range(stratum.population) if trials is None else trials
    return list(faults_of(quantized, stratum, trials, seed=seed, **options))


def met(faults, image=0):
    """What they strike in an image, one after the other: (layer, target, element, bits)."""
    return [(*place, word) for fault in faults for place, word in faulty(fault, image).items()]


def every(target, layers=(0, 1, 2), bits: Sequence[int] = range(WIDTH)):
    """All faults of one bit, in plain loops: layers outermost, then elements, then bits."""
    return [
        (layer, target, element, 1 << bit)
        for layer in layers
        for element in range(COUNTS[target][layer])
        for bit in bits
    ]


@pytest.mark.parametrize("target", COUNTS)
def test_populations_by_hand(quantized, target):
    def populations(by, **changes):
        found = made(quantized, by=by, targets=[target], **changes)
        assert [each.number for each in found] == list(range(len(found)))
        assert {(each.target, each.kind) for each in found} == {(target, FLIP)}
        return [(each.layers, each.bits, each.population) for each in found]

    bits, whole, counts = tuple(range(WIDTH)), (0, 1, 2), COUNTS[target]
    assert populations("network") == [(whole, bits, sum(counts) * 16)]
    assert populations("layer") == [((k,), bits, counts[k] * 16) for k in whole]
    assert populations("bit") == [(whole, (bit,), sum(counts)) for bit in bits]
    assert populations("layer-bit") == [((k,), (bit,), counts[k]) for k in whole for bit in bits]
    few = populations("layer", layers=[0, 2], bits=[3, 15])
    assert few == [((0,), (3, 15), counts[0] * 2), ((2,), (3, 15), counts[2] * 2)]


@pytest.mark.parametrize(
    "kind, by, bits, expected",
    [
        # A burst of three begins at bits 0 to 13; where bit 5 is missing, at 0, 1, 2 and 6 to 13.
        (Single("burst", 3), "layer", range(16), [n * 14 for n in WEIGHTS]),
        (Single("burst", 3), "network", [b for b in range(16) if b != 5], [144 * 11]),
        (Single("burst", 16), "layer-bit", range(16), list(WEIGHTS)),
        # Whole values: bits do not count, and there are none to tell apart.
        (Single("zero"), "layer-bit", range(16), list(WEIGHTS)),
        (Single("random"), "network", range(16), [144]),
        # Packets of 10: the last of a layer's is shorter.
        (Single("lost", 10), "layer", range(16), [5, 7, 4]),
        (Single("lost", 1000), "network", range(16), [3]),
        # Several at once, without drawing any twice.
        (Single("flip", 1, 5), "layer", range(16), [n * 16 // 5 for n in WEIGHTS]),
        (Single("zero", 1, 32), "layer", range(16), [1, 2, 1]),
    ],
)
def test_populations_of_other_kinds_by_hand(quantized, kind, by, bits, expected):
    assert [s.population for s in made(quantized, kind, by=by, bits=bits)] == expected


def test_only_layers_that_read_across_a_link_are_struck_there(quantized):
    found = made(quantized, by="layer", targets=["weights", "link"], crossing=(1, 2))
    assert [(each.target, each.layers, each.population) for each in found] == [
        *(("weights", (k,), WEIGHTS[k] * 16) for k in range(3)),
        *(("link", (k,), INPUTS[k] * 16) for k in (1, 2)),
    ]
    (fault,) = drawn(quantized, found[-1], range(3, 4))
    assert [target for _, target in fault.sites] == ["activations"]


@pytest.mark.parametrize("target", COUNTS)
@pytest.mark.parametrize("by", ["network", "bit", "layer-bit"])
def test_all_trials_together_meet_every_fault_once(quantized, target, by):
    """In an exhaustive campaign one after the other."""
    found = made(quantized, by=by, targets=[target])
    shuffled = [fault for stratum in found for fault in drawn(quantized, stratum)]
    assert sorted(met(shuffled)) == sorted(every(target))
    (whole,) = made(quantized, by="network", targets=[target], layers=[0, 2], bits=(0, 7, 15))
    in_order = drawn(quantized, whole, in_order=True)
    assert met(in_order) == every(target, (0, 2), (0, 7, 15))


@pytest.mark.parametrize("length", [1, 10, 64])
def test_lost_packets_are_cut_one_after_the_other(quantized, length):
    (whole,) = made(quantized, Single("lost", length), by="network")
    expected = [
        {
            (layer, "weights", element): 0xFFFF
            for element in range(first, min(first + length, count))
        }
        for layer, count in enumerate(WEIGHTS)
        for first in range(0, count, length)
    ]
    in_order = drawn(quantized, whole, in_order=True)
    assert [faulty(fault) for fault in in_order] == expected
    shuffled = [faulty(fault) for fault in drawn(quantized, whole)]
    assert sorted(map(sorted, shuffled)) == sorted(map(sorted, expected))
    for fault in in_order:
        check_fault(fault, quantized, 1)


@pytest.mark.parametrize(
    "kind, bits, how, words",
    [
        (Single(), [9], "flip", {1 << 9: 32}),
        (Single("stuck-at-0"), [9], "clear", {1 << 9: 32}),
        (Single("stuck-at-1"), [9], "set", {1 << 9: 32}),
        (Single("zero"), [9], "clear", {0xFFFF: 32}),
        (Single("lost", 4), [9], "clear", {0xFFFF: 32}),
        (Single("burst", 3), [1, 2, 3, 4, 6], "flip", {0b1110: 32, 0b11100: 32}),
    ],
)
def test_what_a_kind_does_to_the_bits(quantized, kind, bits, how, words):
    (stratum,) = made(quantized, kind, by="layer", layers=[2], bits=bits)
    faults = drawn(quantized, stratum)
    assert {fault.how for fault in faults} == {how}
    assert Counter(word for *_, word in met(faults)) == words


@pytest.mark.parametrize(
    "kind, by, target, images",
    [
        (Single(), "network", "weights", 1),
        (Single(), "layer-bit", "activations", 4),
        (Single("flip", 1, 3), "network", "activations", 4),
        (Single("lost", 5), "layer-bit", "weights", 1),
        (Single("random"), "network", "activations", 4),
    ],
)
def test_a_trials_fault_does_not_depend_on_the_range_it_is_asked_in(
    quantized, kind, by, target, images
):
    stratum = made(quantized, kind, by=by, targets=[target])[-1]
    whole = [f.name for f in drawn(quantized, stratum, images=images)]
    cuts = [0, 1, max(1, len(whole) // 3), len(whole)]
    parts = [
        drawn(quantized, stratum, range(a, b), images=images) for a, b in itertools.pairwise(cuts)
    ]
    assert [f.name for part in parts for f in part] == whole
    assert [f.name for f in drawn(quantized, stratum, images=images, seed=2)] != whole


def test_strata_are_drawn_independently(quantized):
    """Equal strata of two targets, and bits of one layer, go through their faults in other ways."""
    found = made(quantized, by="layer-bit", layers=[1], targets=["weights", "activations"])
    orders = [tuple(place[2] for place in met(drawn(quantized, each))) for each in found]
    assert len(set(orders)) == len(orders) == 2 * WIDTH
    # Nor does element 5 of one layer become the random word that it does in another.
    first, second, _ = made(quantized, Single("random"), by="layer")
    one, other = ({e: w for _, _, e, w in met(drawn(quantized, s))} for s in (first, second))
    assert sum(one[element] == other[element] for element in range(48)) < 3


def test_each_image_has_places_of_its_own_and_meets_every_fault_once(quantized):
    (stratum,) = made(quantized, by="network", targets=["activations"], bits=[3, 12])
    faults = drawn(quantized, stratum, images=5)
    of_images = [tuple(met(faults, image)) for image in range(5)]
    for of_image in of_images:
        assert sorted(of_image) == every("activations", bits=(3, 12))
    assert len(set(of_images)) == 5
    alone = drawn(quantized, stratum)
    assert tuple(met(alone)) == of_images[0]  # the first image's, whatever the others
    for fault in faults:
        check_fault(fault, quantized, 5)


def test_several_faults_reach_into_all_layers_and_those_of_one_element_are_one_entry(quantized):
    """All 2,304 bits in trials of 96 bits: some elements are struck several times."""
    (stratum,) = made(quantized, Single("flip", 1, 96), by="network")
    faults, bits = drawn(quantized, stratum), Counter()
    assert len(faults) == 24
    for fault in faults:
        check_fault(fault, quantized, 1)
        words = faulty(fault)
        assert {layer for layer, *_ in words} == {0, 1, 2}
        assert sum(word.bit_count() for word in words.values()) == 96 > len(words)
        bits.update((place, bit) for place, w in words.items() for bit in range(16) if w >> bit & 1)
    assert len(bits) == 144 * 16 and set(bits.values()) == {1}


@pytest.mark.parametrize("fmt, width", [(QFormat(6, 3), 6), (QFormat(kind="float32"), 32)])
def test_random_words_stay_in_the_format_and_use_all_of_it(network_of, fmt, width):
    network = network_of(fmt)
    (stratum,) = made(network, Single("random"), by="network", bits=range(width))
    faults = drawn(network, stratum)
    words = [word for *_, word in met(faults)]
    assert len(words) == 144 and max(words) < 2**width
    for bit in range(width):  # each is set in half of the words, within 5 deviations of 6
        assert 42 < sum(word >> bit & 1 for word in words) < 102
    for fault in faults:
        check_fault(fault, network, 1)


def test_names_are_those_of_a_report(quantized):
    (stratum,) = made(quantized, Single("burst", 2), by="network", layers=[1], bits=[4, 5])
    (fault,) = drawn(quantized, stratum, range(7, 8), in_order=True)
    assert site_names(quantized, fault) == ["b/weights/7/4+5"]
    (inputs,) = made(quantized, by="network", targets=["activations"], bits=[0])
    fault = drawn(quantized, inputs, images=3)[0]
    for image in range(3):
        ((layer, _, element, _),) = met([fault], image)
        assert site_names(quantized, fault, image) == [f"{'abc'[layer]}/activations/{element}/0"]


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        (FLIP, {"bits": [3, 16]}, r"campaign\.bits: the format has the bits 0 to 15, not 16"),
        (FLIP, {"bits": [-1]}, r"campaign\.bits: the format has the bits 0 to 15, not -1"),
        (FLIP, {"bits": []}, r"campaign\.bits: none left"),
        (FLIP, {"bits": [2, 2]}, r"campaign\.bits: .* once"),
        (FLIP, {"targets": ["weights"] * 2}, r"campaign\.targets: .* once"),
        (FLIP, {"layers": []}, "weights: no layer of faults.layers is struck"),
        (FLIP, {"targets": ["link"], "crossing": (1,), "layers": [0]}, "across a link"),
        (FLIP, {"targets": ["weights", "link"], "by": "network"}, "across a link"),
        (Single("flip", 1, 0), {}, r"campaign\.count: 0 faults in a trial"),
        (Single("flip", 1, 33), {}, "there are 32 flip faults in weights of layer `c`, too few"),
        (Single("lost-last"), {}, r"faults\.kind: lost-last has no single faults; .*bernoulli"),
        (Single("burst", 3), {"bits": [0, 1, 3, 4]}, r"faults\.burst: no 3 adjacent bits among"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(quantized, kind, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        made(quantized, kind, **changes)
    assert "\n" not in str(raised.value)
