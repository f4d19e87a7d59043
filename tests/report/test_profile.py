"""The story of job `profile`."""

import pytest


def test_headline_names_the_quickest_and_the_most_frugal(make_profile, read):
    result = make_profile(layers=2, devices=2)
    for record in result["costs"]:
        first = record["device"] == "eyeriss"
        record.update(latency_ms=1.25 if first else 1.0, energy_mj=0.5 if first else 3.0)
    assert read(result).headline == (
        "Run whole on one device, the network is quickest on simba (2.00 ms) and spends the least "
        "energy on eyeriss (1.00 mJ)."
    )


def test_every_part_appears_and_those_without_data_do_not(make_profile, read):
    result = make_profile()
    parts = ["The whole network on each device", "Layer by layer", "The network"]
    assert read(result).headings == parts
    for key, left in (("costs", parts[2:]), ("devices", parts[2:]), ("model", parts[:2])):
        assert read({k: v for k, v in result.items() if k != key}).headings == left
    assert read({"job": "profile"}).headline == "The layers of the network"


def test_lead_sums_the_layers(make_profile, read):
    text = read(make_profile(layers=4)).text
    assert "4 layers, 10.0 k multiply-accumulates (MACs) for an image, 100 weights" in text
    assert "1 layer, 1.00 k multiply" in read(make_profile(layers=1)).text


@pytest.mark.parametrize(
    ("title", "key"), [("Latency, ms", "latency_ms"), ("Energy, mJ", "energy_mj")]
)
def test_costs_and_their_sums(make_profile, read, title, key):
    result = make_profile(layers=3, devices=2)
    reader = read(result)
    tables = [rows for rows in reader.tables if rows[0][:2] == ["layer", "1eyeriss"]]
    rows = tables[("latency_ms", "energy_mj").index(key)]
    whole = {row[0]: row for row in reader.table("device", "Latency, ms")}
    for place, device in enumerate(result["devices"]):
        own = [record[key] for record in result["costs"] if record["device"] == device]
        column = [float(row[place + 1]) for row in rows[1:]]
        assert column[:-1] == pytest.approx(own, rel=5e-3)
        assert column[-1] == pytest.approx(sum(own), rel=5e-3)
        shown = whole[f"{place + 1}{device}"][1 if key == "latency_ms" else 2]
        assert float(shown) == pytest.approx(sum(own), rel=5e-3)
    assert rows[-1][0] == "sum"
    assert f"{title}, layer by layer" in reader.text


def test_memory_is_not_summed(make_profile, read):
    """Activations of one layer make room for the next's: the sum is no need of memory."""
    reader = read(make_profile(layers=3))
    memory = [rows for rows in reader.tables if rows[0][:2] == ["layer", "1eyeriss"]][2]
    assert len(memory) == 4
    assert "sum" not in [row[0] for row in memory]
    assert memory[1][1:] == ["1.00 kB"] * 3


def test_device_without_costs_of_a_layer_has_a_dash(make_profile, read):
    result = make_profile(layers=2, devices=2)
    result["costs"] = result["costs"][:-1]
    rows = next(rows for rows in read(result).tables if rows[0][:2] == ["layer", "1eyeriss"])
    assert rows[2][2] == "–"


def test_deep_networks_show_their_costliest_layers(make_profile, read):
    assert "The 24 costliest of 40 layers." in read(make_profile(layers=40, devices=3)).text
    assert "costliest" not in read(make_profile(layers=24, devices=3)).text


def test_layers_as_traced(make_profile, read):
    result = make_profile(layers=2)
    del result["model"]["layers"][1]["neurons"]
    assert read(result).table("layer", "kind") == [
        ["layer0.0.conv", "conv", "1.00 k", "10", "4"],
        ["layer0.1.conv", "conv", "2.00 k", "20", "–"],
    ]
