"""The tables and strips of job `partition`: their numbers are those of the result."""

import re

import pytest

from afpjax.jobs.partition import view as partition
from afpjax.jobs.partition import view_detail as partition_detail
from afpjax.jobs.partition import view_mapping as partition_mapping

from .conftest import TABLE, Reader, near, plain, row_of

TOOLS = {"CNNParted": "cnnparted", "Fault-unaware": "fault-unaware", "AFarePart": "afarepart"}


def test_table_says_what_the_result_says(make):
    rows = Reader(partition.comparison(make()).html).table("mapping by")
    titles = [row[0] for row in rows if len(row) == 1]
    assert titles == [
        "Faults in weights",
        "Faults in activations",
        "Faults in weights and activations",
    ]
    cells = [row for row in rows if len(row) == 4]
    assert len(cells) == 9
    for place, row in enumerate(cells):
        scenario = ("weights", "activations", "both")[place // 3]
        accuracy, latency, energy = TABLE[TOOLS[row[0]], scenario]
        low, high = near(accuracy)
        assert row[1].strip() == f"{100 * accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        _, base_latency, base_energy = TABLE["fault-unaware", scenario]
        for cell, cost, base in ((row[2], latency, base_latency), (row[3], energy, base_energy)):
            more = round(100 * (cost / base - 1))
            apart = f" {more:+d} %" if more else " 0 %"
            assert cell == f"{cost:.2f}" + (apart if row[0] != "Fault-unaware" else "")


def test_bars_stand_where_the_interval_is(make):
    html = partition.comparison(make()).html
    low, high = near(TABLE["cnnparted", "weights"][0])
    bar = re.search(r"left:([\d.]+)%;width:([\d.]+)%", html)
    assert bar is not None
    assert float(bar[1]) == pytest.approx(100 * low, abs=0.01)
    assert float(bar[2]) == pytest.approx(100 * (high - low), abs=0.01)
    assert "grey mark" in plain(html)
    assert "grey mark" not in plain(partition.comparison({"table": make()["table"]}).html)


def test_devices_say_rates_costs_and_layers(make):
    result = make(layers=4, devices=3)
    rows = Reader(partition.devices(result).html).table("device", "weight bit flips")
    for index, row in enumerate(rows):
        own = [r for r in result["costs"] if r["device"] == result["devices"][index]]
        latency, energy = (sum(r[key] for r in own) for key in ("latency_ms", "energy_mj"))
        assert row[0] == f"{index + 1}{result['devices'][index]}"
        assert row[1:3] == [f"{0.02 * index:g}", f"{0.01 * index:g}"]
        assert [float(row[3]), float(row[4])] == pytest.approx([latency, energy], rel=5e-3)
        assert int(row[5]) == result["selected"]["mapping"].count(index)


def test_equal_rates_share_a_column(make):
    result = make()
    result["faults"]["activation_rate"] = result["faults"]["weight_rate"]
    head = Reader(partition.devices(result).html).tables[0][0]
    assert head == ["device", "bit flips", "whole net, ms", "whole net, mJ", "its layers"]


def test_layers_say_device_work_loss_and_flips(make):
    result = make(layers=4, devices=3)
    rows = Reader(partition_mapping.mapping(result).html).table("layer", "device")
    alone = {(r["layer"], r["device"]): r["alone"] for r in result["sensitivity"]}
    for index, row in enumerate(rows):
        layer, where = result["model"]["layers"][index], result["selected"]["mapping"][index]
        device = result["devices"][where]
        assert row[:3] == [layer["name"], f"{where + 1}{device}", "conv"]
        assert row[3].strip() == f"{10 * (index + 1)}.0 %"  # 1, 2, 3 and 4 of ten parts
        lost = 100 * (0.981 - alone[layer["name"], device])
        assert float(row[4].replace("−", "-")) == pytest.approx(lost, abs=0.05)
        assert row[5:] == ["12.3 k", ("0.500", "1.50", "2.50", "3.50")[index]]


def test_loss_is_against_the_clean_accuracy_of_the_same_images(make):
    """Layers are struck on the search's images: held-out accuracy is no reference for them."""
    result = make()
    del result["clean"]["search_accuracy"]
    without, with_it = (Reader(partition_mapping.mapping(each).html) for each in (result, make()))
    assert "loss alone, points" in with_it.tables[0][0]
    assert "loss alone, points" not in without.tables[0][0]
    assert "Accuracy lost" in with_it.text
    assert "Accuracy lost" not in without.text


def test_front_lists_its_mappings_and_stars_the_chosen(make):
    result = make(points=3)
    result["front"].reverse()
    rows = Reader(partition_mapping.front(result).html).table("latency, ms")
    assert [row[0] for row in rows] == ["1.00", "1.12", "★ 1.25"]
    assert [row[1] for row in rows] == ["3.00", "2.75", "2.50"]
    assert [row[2] for row in rows] == [
        "60.0 % [55.0, 64.0]",
        "62.0 % [57.0, 66.0]",
        "64.0 % [59.0, 68.0]",
    ]
    assert [row[3] for row in rows] == ["1 2 3 1", "2 3 1 2", "3 1 2 3"]


def test_repeated_devices_are_counted(make):
    result = make(points=1)
    result["front"][0]["mapping"] = [0, 0, 0, 1]
    assert Reader(partition_mapping.front(result).html).table("latency, ms")[0][3] == "1×3 2"


def test_sensitivity_lists_both_views(make):
    result = make(layers=2, devices=2)
    rows = Reader(partition_detail.sensitivity(result).html).table("layer", "device")
    for row, record in zip(rows, result["sensitivity"], strict=True):
        place = result["devices"].index(record["device"]) + 1
        assert row[:2] == [record["layer"], f"{place}{record['device']}"]
        for cell, view in zip(row[2:], ("alone", "all_but"), strict=True):
            assert cell.startswith(f"{100 * record[view]:.1f} % [")


# The mappings as strips


def test_few_layers_are_numbered_blocks(make):
    html = partition_mapping.mapping(make(layers=28)).html
    assert html.count('class="blocks few"') == 3
    assert "lanes" not in html


def test_many_layers_are_lanes_so_that_colour_is_not_all(make):
    result = make(layers=29, devices=8)
    html = partition_mapping.mapping(result).html
    assert html.count('class="lanes"') == 3
    strip = html[html.index("AFarePart: a device each lane, 1 to 8 from the top") :]
    margins = re.findall(r"margin-bottom:([\d.]+)rem", strip)
    assert len(margins) == 29
    heights = {}
    for margin, where in zip(margins, result["selected"]["mapping"], strict=True):
        heights.setdefault(where, set()).add(float(margin))
    assert all(len(each) == 1 for each in heights.values())
    order = [heights[where].pop() for where in sorted(heights)]
    assert order == sorted(set(order), reverse=True)  # the first device on top


def test_tools_that_chose_the_same_share_a_strip(make):
    result = make()
    assert partition_mapping.mapping(result).html.count('class="blocks few"') == 3
    row_of(result, "cnnparted")["mapping"] = row_of(result, "fault-unaware")["mapping"]
    html = partition_mapping.mapping(result).html
    assert html.count('class="blocks few"') == 2
    assert "CNNParted and Fault-unaware" in html
