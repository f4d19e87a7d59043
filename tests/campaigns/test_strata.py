"""Strata: which faults there are, counted by hand, and each of them drawn exactly once.

On the network of conftest.py: kernels of 48, 64 and 32 weights, inputs of 6, 8 and 8 values.
"""

import itertools
from collections import Counter
from typing import Any

import pytest

from afpjax.campaigns.strata import Single, faults_of, site_names, strata
from afpjax.faults.sites import NOWHERE, check_fault
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

WEIGHTS, INPUTS = (48, 64, 32), (6, 8, 8)
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


@pytest.mark.parametrize("kind", [Single(), Single("stuck-at-0"), Single("stuck-at-1")])
@pytest.mark.parametrize("target, counts", [("weights", WEIGHTS), ("activations", INPUTS)])
def test_populations_by_hand(quantized, kind, target, counts):
    def populations(by, **changes):
        found = made(quantized, kind, by=by, targets=[target], **changes)
        assert [each.number for each in found] == list(range(len(found)))
        assert {(each.target, each.kind) for each in found} == {(target, kind)}
        return [(each.layers, each.bits, each.population) for each in found]

    every, whole = tuple(range(WIDTH)), (0, 1, 2)
    assert populations("network") == [(whole, every, sum(counts) * 16)]
    assert populations("layer") == [((k,), every, counts[k] * 16) for k in whole]
    assert populations("bit") == [(whole, (bit,), sum(counts)) for bit in every]
    assert populations("layer-bit") == [((k,), (bit,), counts[k]) for k in whole for bit in every]
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
        (Single("zero"), "bit", [2], [144]),
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
    (whole,) = made(quantized, by="network", targets=["link"], crossing=(2,))
    assert (whole.layers, whole.population) == ((2,), 8 * 16)
    (fault,) = drawn(quantized, whole, range(3, 4))
    assert [target for _, target in fault.sites] == ["activations"]


@pytest.mark.parametrize("target, counts", [("weights", WEIGHTS), ("activations", INPUTS)])
def test_an_exhaustive_campaign_goes_through_plain_loops(quantized, target, counts):
    """Layers outermost, then elements, then bits."""
    bits = (0, 7, 15)
    (whole,) = made(quantized, by="network", targets=[target], layers=[0, 2], bits=bits)
    expected = [
        {(layer, target, element): 1 << bit}
        for layer in (0, 2)
        for element in range(counts[layer])
        for bit in bits
    ]
    assert [faulty(f) for f in drawn(quantized, whole, in_order=True)] == expected


@pytest.mark.parametrize("by", ["network", "layer", "bit", "layer-bit"])
@pytest.mark.parametrize("in_order", [True, False])
def test_all_trials_together_meet_every_fault_once(quantized, by, in_order):
    met = Counter(
        (*place, word)
        for stratum in made(quantized, by=by)
        for fault in drawn(quantized, stratum, in_order=in_order)
        for place, word in faulty(fault).items()
    )
    every = {
        (layer, "weights", element, 1 << bit)
        for layer, count in enumerate(WEIGHTS)
        for element, bit in itertools.product(range(count), range(WIDTH))
    }
    assert set(met) == every and set(met.values()) == {1}


@pytest.mark.parametrize("length", [1, 10, 7, 64])
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
    assert {fault.how for fault in in_order} == {"clear"}
    shuffled = [faulty(fault) for fault in drawn(quantized, whole)]
    assert sorted(map(sorted, shuffled)) == sorted(map(sorted, expected))
    for fault in in_order:
        check_fault(fault, quantized, 1)


def test_bursts_are_runs_of_adjacent_bits(quantized):
    (stratum,) = made(quantized, Single("burst", 3), by="network", layers=[2], bits=[1, 2, 3, 4, 6])
    words = [word for fault in drawn(quantized, stratum) for word in faulty(fault).values()]
    assert Counter(words) == {0b1110: 32, 0b11100: 32}


@pytest.mark.parametrize(
    "kind, how, word",
    [
        (Single("zero"), "clear", 0xFFFF),
        (Single("stuck-at-0"), "clear", 1 << 9),
        (Single("stuck-at-1"), "set", 1 << 9),
        (Single(), "flip", 1 << 9),
    ],
)
def test_what_a_kind_does_to_the_bits(quantized, kind, how, word):
    stratum = made(quantized, kind, by="layer", layers=[0], bits=[9])[0]
    for fault in drawn(quantized, stratum):
        assert fault.how == how and list(faulty(fault).values()) == [word]


@pytest.mark.parametrize("by", ["network", "layer-bit"])
@pytest.mark.parametrize(
    "kind",
    [Single(), Single("flip", 1, 3), Single("lost", 5), Single("random")],
)
@pytest.mark.parametrize("target, images", [("weights", 1), ("activations", 4)])
def test_a_trials_fault_does_not_depend_on_the_range_it_is_asked_in(
    quantized, by, kind, target, images
):
    stratum = made(quantized, kind, by=by, targets=[target])[-1]
    whole = [f.name for f in drawn(quantized, stratum, images=images)]
    cuts = [0, 1, max(1, len(whole) // 3), len(whole)]
    parts = [
        drawn(quantized, stratum, range(a, b), images=images) for a, b in itertools.pairwise(cuts)
    ]
    assert [f.name for part in parts for f in part] == whole
    other = [f.name for f in drawn(quantized, stratum, images=images, seed=2)]
    assert other != whole or len(whole) < 3


def test_strata_are_drawn_independently(quantized):
    """Equal strata of two targets, and bits of one layer, go through their faults in other ways."""
    found = made(quantized, by="layer-bit", layers=[1], targets=["weights", "activations"])
    orders = [
        tuple(element for fault in drawn(quantized, each) for _, _, element in faulty(fault))
        for each in found
    ]
    assert len(set(orders)) == len(orders) == 2 * WIDTH


def test_each_image_has_places_of_its_own_and_meets_every_fault_once(quantized):
    (stratum,) = made(quantized, by="network", targets=["activations"], bits=[3, 12])
    faults = drawn(quantized, stratum, images=5)
    every = sorted(
        (layer, "activations", element, 1 << bit)
        for layer, count in enumerate(INPUTS)
        for element in range(count)
        for bit in (3, 12)
    )
    of_images = []
    for image in range(5):
        met = [(*place, w) for fault in faults for place, w in faulty(fault, image).items()]
        assert len(met) == len(faults) and sorted(met) == every
        of_images.append(tuple(met))
    assert len(set(of_images)) == 5
    alone = [(*place, w) for f in drawn(quantized, stratum) for place, w in faulty(f).items()]
    assert tuple(alone) == of_images[0]  # the first image's, whatever the others
    for fault in faults:
        check_fault(fault, quantized, 5)


def test_several_faults_of_one_element_are_one_entry(quantized):
    """All 16 bits of 48 elements in trials of 96 bits: some elements are struck several times."""
    stratum = made(quantized, Single("flip", 1, 96), by="layer", layers=[0])[0]
    assert stratum.population == 8
    met, several = Counter(), 0
    for fault in drawn(quantized, stratum):
        check_fault(fault, quantized, 1)
        words = faulty(fault)
        assert sum(word.bit_count() for word in words.values()) == 96
        several += len(words) < 96
        met.update((place, bit) for place, w in words.items() for bit in range(16) if w >> bit & 1)
    assert several == 8 and len(met) == 48 * 16 and set(met.values()) == {1}


def test_several_faults_reach_into_several_layers(quantized):
    (stratum,) = made(quantized, Single("zero", 1, 36), by="network")
    faults = drawn(quantized, stratum)
    assert len(faults) == 4
    assert sorted(place for fault in faults for place in faulty(fault)) == [
        (layer, "weights", element) for layer, n in enumerate(WEIGHTS) for element in range(n)
    ]
    assert all(len({layer for layer, *_ in faulty(fault)}) == 3 for fault in faults)


@pytest.mark.parametrize(
    "fmt, width",
    [(QFormat(16, 8), 16), (QFormat(6, 3), 6), (QFormat(kind="float32"), 32)],
    ids=["16", "6", "float32"],
)
def test_random_words_stay_in_the_format_and_use_all_of_it(network_of, fmt, width):
    network = network_of(fmt)
    (stratum,) = made(network, Single("random"), by="network", bits=range(width))
    words = [w for fault in drawn(network, stratum) for w in faulty(fault).values()]
    assert len(words) == 144 and max(words) < 2**width
    for bit in range(width):  # each is set in half of the words, within 5 deviations of 6
        assert 42 < sum(word >> bit & 1 for word in words) < 102
    again = {f.name for f in drawn(network, stratum)}
    assert again != {f.name for f in drawn(network, stratum, seed=5)}
    for fault in drawn(network, stratum):
        check_fault(fault, network, 1)


def test_random_words_of_two_strata_are_not_the_same(quantized):
    """Element 5 of one layer and element 5 of another become different words."""
    first, second, _ = made(quantized, Single("random"), by="layer")

    def by_element(stratum):
        return {e: w for f in drawn(quantized, stratum) for (_, _, e), w in faulty(f).items()}

    one, other = by_element(first), by_element(second)
    assert sum(one[element] == other[element] for element in range(48)) < 3


def test_names_are_those_of_a_report(quantized):
    (stratum,) = made(quantized, Single("burst", 2), by="network", layers=[1], bits=[4, 5])
    (fault,) = drawn(quantized, stratum, range(7, 8), in_order=True)
    assert site_names(quantized, fault) == ["b/weights/7/4+5"]
    (inputs,) = made(quantized, by="network", targets=["activations"], bits=[0])
    faults = drawn(quantized, inputs, images=3)
    for image in range(3):
        got = [name for fault in faults for name in site_names(quantized, fault, image)]
        assert sorted(got) == sorted(
            f"{name}/activations/{element}/0"
            for name, count in zip("abc", INPUTS, strict=True)
            for element in range(count)
        )


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        (
            Single(),
            {"bits": [3, 16]},
            r"campaign\.bits: the format has the bits 0 to 15, not 16",
        ),
        (Single(), {"bits": [-1]}, r"campaign\.bits: the format has the bits 0 to 15, not -1"),
        (Single(), {"bits": []}, r"campaign\.bits: none left"),
        (Single(), {"bits": [2, 2]}, r"campaign\.bits: .* once"),
        (Single(), {"targets": ["weights"] * 2}, r"campaign\.targets: .* once"),
        (Single("flip", 1, 0), {}, r"campaign\.count: 0 faults in a trial"),
        (
            Single("lost-last"),
            {},
            r"faults\.kind: lost-last has no single faults; .*bernoulli",
        ),
        (
            Single("burst", 3),
            {"bits": [0, 1, 3, 4]},
            r"faults\.burst: no 3 adjacent bits among",
        ),
        (Single("burst", 17), {}, r"faults\.burst: no 17 adjacent bits"),
        (
            Single("flip", 1, 33),
            {},
            "there are 32 flip faults in weights of layer `c`, too few",
        ),
        (Single("zero", 1, 145), {"by": "network"}, "144 zero faults in weights of 3 layers"),
        (Single(), {"layers": []}, "weights: no layer of faults.layers is struck"),
        (Single(), {"targets": ["link"], "crossing": (1,), "layers": [0]}, "across a link"),
        (Single(), {"targets": ["weights", "link"], "by": "network"}, "across a link"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(quantized, kind, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        made(quantized, kind, **changes)
    assert "\n" not in str(raised.value)
