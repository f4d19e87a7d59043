"""Parts of job `distribute`'s page beside its methods: memory, search, placement, chance, costs."""

import pytest

from afpjax.jobs.distribute.view_where import loads
from afpjax.report.page import render

from .conftest import Reader
from .distributions import distribution
from .test_distribute import only


def test_advantage_is_counted_over_thresholds_that_leave_a_difference(read):
    """Of four thresholds the last replicates everything."""
    result = only(distribution(), "curve")
    rows = read(result).table("beside", "top-k replication", "its replicas for random neurons")
    assert rows[0] == ["1 of 4 lost", "3 more, 0 less of 3", "3 more, 0 less of 3"]
    for row in result["curve"]:
        if row["method"] == "topk" and row["threshold"] == 0.2:
            row["difference_interval"] = [-0.3, -0.1]
        if row["method"] == "topk" and row["threshold"] == 0.1:
            row["difference_interval"] = [-0.1, 0.1]
    rows = read(result).table("beside", "top-k replication", "its replicas for random neurons")
    assert rows[2] == ["3 of 4 lost", "1 more, 1 less of 3", "3 more, 0 less of 3"]


def test_advantage_without_differences_is_by_intervals(read):
    """15.4 ± 2 is apart from 10.1 ± 2, at the next threshold 10.8 ± 2 is not from 7.1 ± 2."""
    result = only(distribution(), "curve")
    for row in result["curve"]:
        row.pop("difference_interval", None)
    reader = read(result)
    rows = reader.table("beside", "top-k replication", "its replicas for random neurons")
    assert rows[2] == ["3 of 4 lost", "2 more, 0 less of 3", "3 more, 0 less of 3"]
    assert "the two intervals being apart" in reader.text


def test_curve_without_rivals_counts_nothing(read):
    result = only(distribution(), "curve")
    result["curve"] = [row for row in result["curve"] if row["method"] == "robustdice"]
    reader = read(result)
    assert [rows[0][0] for rows in reader.tables] == ["method"]


def test_searched_thresholds_are_on_the_curve_of_the_same_loss_alone():
    result = only(distribution(), "curve", "search")
    figures = render(result, {}).figures
    assert b"Searched thresholds" in figures["curve-4-1.svg"]
    assert b"Searched thresholds" not in figures["curve-4-2.svg"]
    result["search"]["devices"] = 3
    assert b"Searched thresholds" not in render(result, {}).figures["curve-4-1.svg"]


def test_gains_of_the_search_and_what_they_are_of_the_loss(read):
    """0.915 - 0.64 = 0.275 is lost by the constant threshold; 0.14 of it is 51 %."""
    reader = read(only(distribution(), "search"))
    rows = reader.table("memory", "searched", "constant")
    assert rows[-1] == ["45.0 %", "78.0 %", "64.0 %", "14.0 [11.0, 17.0]", "51 %"]
    assert (
        "The widest gain at no more memory, 45 % of the weights: 14.0 points [11.0, 17.0] more than"
        in reader.text
    )
    assert "lies above zero at 3 and below it at 0." in reader.text
    assert "each of 3 groups of layers, searched for one of 4 devices lost, 600" in reader.text


def test_a_search_that_gains_nothing_says_so(read):
    result = only(distribution(), "search")
    for row in result["search"]["gain"]:
        row |= {"difference": -0.05, "difference_interval": [-0.07, -0.03]}
    text = read(result).text
    assert "5.0 points [3.0, 7.0] less than a constant threshold" in text
    assert "lies above zero at 0 and below it at 4." in text


def test_thresholds_of_the_search(read):
    reader = read(only(distribution(), "search"))
    found = [rows for rows in reader.tables if rows[0][-1] == "thresholds"]
    searched, constant = found
    assert searched[1] == ["45.0 %", "78.0 % [76.0, 80.0]", "0.140", "49.0", "0.2 0.2 0.2"]
    assert constant[1][-1] == "0.2"


def test_search_without_gains_or_fronts(read):
    result = only(distribution(), "search")
    del result["search"]["gain"]
    assert "widest gain" not in read(result).text
    result["search"] |= {"front": [], "constant": []}
    assert read(result).headings == []


def test_loads_are_counted_from_the_masks():
    assert loads({"held": [0b0001, 0b1011, 0b1000, 0b1111]}, 4) == [3, 2, 1, 3]


def test_neurons_in_one_copy_and_on_every_device(read):
    result = only(distribution(), "placement")
    layer = result["placement"][1]
    layer |= {"held": [1, 1, 2, 4, 8, 15, 15, 15] * 2, "copies": 2.125, "clusters": 7}
    layer["threshold"] = 0.25
    reader = read(result)
    rows = reader.table("layer", "neurons", "threshold")
    assert rows[1] == ["block1.conv", "16", "0.25", "7", "2.12", "62.5 %", "10, 8, 8, 8"]
    assert rows[0][-1] == "8"  # equal on all devices
    # 8 + 10 + 8 of 48 in one copy, 4 + 6 + 4 on all four devices
    assert "Of all 48 neurons 54.2 % have one copy" in reader.text
    assert "29.2 % live on every device" in reader.text


@pytest.mark.parametrize(("layers", "figures"), [(1, 1), (12, 1), (13, 3), (53, 6)])
def test_networks_of_many_layers_have_several_figures(layers, figures):
    result = only(distribution(layers=layers), "placement")
    page = render(result, {})
    assert len(page.figures) == figures
    assert ("copies.svg" in page.figures) == (layers > 12)
    text = Reader(page.html).text
    assert ("Layers 1 to 12" in text) == (layers > 12)
    assert ("Layer 13" in text) == (layers == 13)


def test_expected_accuracy_and_its_spread(read):
    reader = read(only(distribution(), "expected"))
    rows = reader.table("method", "devices", "expected")
    assert rows[0][:3] == ["RobustDiCE", "4", "74.1 % [72.1, 76.1]"]
    assert rows[0][3:] == ["54.1 %", "64.1 %", "75.1 %", "76.1 %", "79.1 %", "6.2", "1.2", "16"]
    assert "Each is lost with probability 0.1." in reader.text


def test_devices_that_fail_unequally_are_named_in_their_order(read):
    result = only(distribution(), "expected")
    for row in result["expected"]:
        row["failure"] = [0.1, 0.2, 0, 1e-6]
    assert "Lost with probability 0.1, 0.2, 0 and 10⁻⁶, in their order." in read(result).text


def test_flips_stand_beside_the_same_loss_without_them(read):
    reader = read(only(distribution(), "flips", "methods"))
    (table,) = [rows for rows in reader.tables if "without flips" in rows[0]]
    rows = {(row[0], row[1]): row[2:] for row in table[1:]}
    assert rows["RobustDiCE", "0 of 4"][3] == "91.5 %"
    assert rows["RobustDiCE", "1 of 4"] == [
        "76.0 % [74.0, 78.0]", "71.0 %", "81.0 %", "82.3 %", "8"
    ]  # fmt: skip
    assert rows["LOP", "2 of 4"][3] == "7.0 %"
    alone = read(only(distribution(), "flips"))
    (table,) = [rows for rows in alone.tables if "without flips" in rows[0]]
    assert [row[5] for row in table[1:] if row[1] == "1 of 4"] == ["–"] * 3


def test_flip_rates_of_every_device(read):
    rows = read(only(distribution(), "flips")).table("device", "flip rate of weights")
    assert rows == [[str(n), f"{0.001 * n:g}", "0"] for n in (1, 2, 3, 4)]


def test_resources_beside_full_replication_on_as_many_devices(read):
    """29 + 122 · 0.594 MB of 151."""
    reader = read(only(distribution(), "resources"))
    rows = reader.table("method", "devices", "MB", "J/image", "images/s")
    assert rows[0] == ["RobustDiCE", "4", "101 −33 %", "0.156 −14 %", "48.4 +5 %", "59.4 %"]
    assert rows[3][:3] == ["Full replication", "4", "151"]
    assert "not measured: jetson-xavier-nx over gigabit, 1,000 images" in reader.text


def test_resources_without_full_replication_have_no_change(read):
    result = only(distribution(), "resources")
    result["resources"] = [r for r in result["resources"] if r["method"] == "robustdice"]
    reader = read(result)
    assert reader.table("method", "devices", "MB")[0][2] == "101"
    assert "the change from" not in reader.text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("training", "on 1,256 training images, scaled"),
        ("search", "on 1,256 search images, scaled"),
        ("importance run", "on 1,256 images by an earlier run of job importance, scaled"),
    ],
)
def test_what_the_scores_are_from(read, source, said):
    result = only(distribution(), "scores")
    result["scores"]["from"] = source
    assert said in read(result).text


def test_method_names_what_was_chosen(read):
    result = only(distribution(), "scores") | {"classifier": "whole", "thresholds": [0.1, 0.2]}
    result["scores"] |= {"names": ["l1"], "normalise": "rank"}
    text = read(result).text
    assert "Every device computes the last layer whole." in text
    assert "below 0.1 to 0.2, a threshold for each layer" in text
    assert "replaced by their ranks" in text
    assert "Divergence" not in text  # its score was not used
    assert "Taylor score" not in text
