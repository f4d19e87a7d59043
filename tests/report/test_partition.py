"""The story of job `partition`: true in every case, its numbers those of the result."""

import pytest

from afpjax.jobs.partition import view as partition
from afpjax.jobs.partition import view_detail as partition_detail
from afpjax.jobs.partition import view_mapping as partition_mapping
from afpjax.report.tools import worst_rate

from .conftest import near, plain, row_of

PARTS = {
    "Three tools, three kinds of fault": ("table",),
    "Which layer runs where": ("selected", "model", "devices"),
    "The devices": ("selected", "model", "devices"),
    "Every trade-off found": ("front",),
    "When faults get more frequent": ("sweep",),
    "Which layers are fragile": ("sensitivity",),
    "What each layer costs": ("costs", "devices"),
    "How this was measured": ("clean",),
}


def set_accuracy(result, tool, accuracy, interval=None):
    row_of(result, tool).update(accuracy=accuracy, accuracy_interval=interval or near(accuracy))


def sentence(result):
    return plain(partition.answer(result))


def light(result):
    """Without what takes figures to draw."""
    heavy = ("sweep", "sensitivity", "front")
    search = {k: v for k, v in result["search"].items() if k != "history"}
    return {k: v for k, v in result.items() if k not in heavy} | {"search": search}


# The headline and the verdict


def test_headline_when_afarepart_is_ahead(make):
    assert sentence(make()) == (
        "When bits flip in weights and activations, AFarePart's mapping gets 79.9 % [74.9, 83.9] "
        "of images right and the fault-unaware mapping 38.8 % [33.8, 42.8]; AFarePart's costs 8 % "
        "more latency and 3 % more energy."
    )


def test_headline_when_afarepart_is_behind_and_cheaper(make):
    result = make()
    set_accuracy(result, "afarepart", 0.2)
    row_of(result, "afarepart").update(latency_ms=1.0, energy_mj=1.99)
    assert "gets 20.0 % [15.0, 24.0] of images right and" in sentence(result)
    assert sentence(result).endswith("costs 20 % less latency and 0.5 % less energy.")


def test_headline_when_all_is_equal(make):
    result = make()
    row_of(result, "afarepart").update(
        {k: v for k, v in row_of(result, "fault-unaware").items() if k != "tool"}
    )
    said = sentence(result)
    assert said.count("38.8 % [33.8, 42.8]") == 2
    assert said.endswith("costs the same latency and energy.")
    assert "AFarePart's mapping is the same as the fault-unaware mapping" not in said


def test_headline_without_the_tools(make):
    assert sentence({}) == "Where each layer of the network should run"
    result = make()
    result["table"] = [row for row in result["table"] if row["tool"] == "cnnparted"]
    assert sentence(result) == "Where each layer of the network should run"


def verdict(result):
    return plain(partition.lead(result)).partition(" right. ")[2]


def test_verdict_above_below_level_and_same(make):
    result = make()
    assert verdict(result) == (
        "AFarePart's mapping gets more images right than the fault-unaware mapping and "
        "CNNParted's (the 95 % intervals are apart)."
    )
    set_accuracy(result, "fault-unaware", 0.95)
    assert verdict(result) == (
        "AFarePart's mapping gets more images right than CNNParted's (the 95 % intervals are "
        "apart); it gets fewer images right than the fault-unaware mapping (the 95 % intervals "
        "are apart)."
    )
    set_accuracy(result, "fault-unaware", 0.79)
    set_accuracy(result, "cnnparted", 0.81)
    assert verdict(result) == (
        "AFarePart's mapping may differ from the fault-unaware mapping and CNNParted's by chance "
        "alone (the 95 % intervals overlap)."
    )
    row_of(result, "cnnparted")["mapping"] = row_of(result, "afarepart")["mapping"]
    assert verdict(result).endswith("it is the same as CNNParted's.")


def test_intervals_that_touch_are_not_apart(make):
    result = make()
    set_accuracy(result, "afarepart", 0.5, [0.4, 0.6])
    set_accuracy(result, "fault-unaware", 0.3, [0.2, 0.4])
    set_accuracy(result, "cnnparted", 0.7, [0.6, 0.8])
    assert "by chance alone" in verdict(result)
    assert "more images" not in verdict(result)
    assert "fewer images" not in verdict(result)


def test_lead_says_how_many_devices_and_what_is_right_without_faults(make):
    text = plain(partition.lead(make(devices=5)))
    assert "5 accelerators" in text
    assert "Without faults the network gets 97.7 % right." in text
    assert "Without faults" not in plain(partition.lead({}))


# Parts


def test_every_part_appears(make, read):
    assert read(make()).headings == list(PARTS)


@pytest.mark.parametrize("key", sorted({key for needs in PARTS.values() for key in needs}))
def test_parts_without_their_data_are_left_out(make, read, key):
    whole = light(make())
    there = [part for part, needs in PARTS.items() if set(needs) <= whole.keys()]
    left = [part for part in there if key not in PARTS[part]]
    assert read({k: v for k, v in whole.items() if k != key}).headings == left
    assert read({**whole, key: type(whole.get(key, []))()}).headings == left  # empty is absent too


@pytest.mark.parametrize("key", ["data", "faults", "search"])
def test_what_no_part_needs_may_be_missing(make, read, key):
    whole = light(make())
    assert read({k: v for k, v in whole.items() if k != key}).headings == read(whole).headings


def test_result_with_nothing_in_it(read):
    assert read({"job": "partition"}).headings == []


# What is said about how it was measured


def test_method_says_what_was_measured_on_what(make):
    text = plain(partition_detail.method(light(make())).html)
    assert "measured after the search, on 384 images and 8 fault draws" in text
    assert "used 64 other images" in text
    assert "97.7 % in the chosen number format, 97.9 % in floating point" in text
    assert "Bits that may flip: 0, 1 (0 is the lowest)" in text
    assert "30 generations, 1,021 different mappings tried" in text
    assert "0.750, up to 3.50 ms, 4.50 mJ and 1.00 of accuracy lost" in text
    assert "one at a time" not in text


def test_method_says_when_the_search_struck_layers_one_at_a_time(make):
    """It once said so of the table too, where all layers are struck."""
    result = light(make())
    result["faults"]["strategy"] = "layerwise"
    text = plain(partition_detail.method(result).html)
    assert "The search summed the losses of layers struck one at a time" in text
    assert "in every figure but the layers' own, all are struck together" in text


def test_method_says_what_the_search_spent(make):
    result = light(make())
    assert "passes of an image" not in plain(partition_detail.method(result).html)
    draws = [{"draws": 8, "mappings": 655}]
    result["search"]["effort"] = {"spent": 335360, "draws": draws}
    text = plain(partition_detail.method(result).html)
    assert (
        "It took 335,360 passes of an image under faults; fault draws that a mapping met: 8."
        in text
    )
    draws.insert(0, {"draws": 2, "mappings": 400})
    result["search"]["effort"] = {"total": 200000, "spent": 150000, "draws": draws}
    text = plain(partition_detail.method(result).html)
    assert "150,000 passes of an image under faults of the 200,000 it was given; " in text
    assert "met: 2 to 8, more where the ranking was open" in text


def test_method_says_when_all_mappings_were_tried(make):
    result = light(make())
    result["search"].update(method="enumeration", evaluations=81)
    text = plain(partition_detail.method(result).html)
    assert "All 81 mappings were tried" in text
    assert "generations" not in text


def test_star_is_explained_by_how_it_was_chosen(make):
    text = plain(partition_mapping.front(make()).html)
    assert "Each dot is one of 3 mappings found" in text
    assert "on the search's own images under new fault draws" in text
    result = make(points=1)
    del result["selected"]
    text = plain(partition_mapping.front(result).html)
    assert "The dot is the one mapping found" in text
    assert "The star" not in text


@pytest.mark.parametrize(
    ("scenario", "rate"), [("weights", 0.04), ("activations", 0.5), ("both", 0.5)]
)
def test_line_of_the_searched_rate_is_the_scenario_s_own(make, scenario, rate):
    """It was the highest of all rates, also where only weights are struck."""
    result = make(devices=3)
    result["faults"]["activation_rate"] = [0.5, 0.0, 0.1]
    assert worst_rate(result, scenario) == rate
    assert worst_rate({}, scenario) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bits", "a share of 0.001 of the bits flip."),
        ("zero", "a share of 0.001 of the packets are lost, and read as zeros."),
        ("last", "a share of 0.001 of the packets are lost, and read as the last value that"),
        ("resent", "a share of 0.001 of the packets are lost, and sent again."),
    ],
)
def test_what_a_link_does_is_said_where_it_does_anything(make, kind, words):
    result = make()
    assert "On the way from one device" not in plain(partition.lead(result))
    result["faults"]["link"] = {"kind": kind, "rate": 0.001}
    assert words in plain(partition.lead(result))
