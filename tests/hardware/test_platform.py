"""Platforms: what is shipped loads and is what its comments say, and bad files say how to mend."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from afpjax.faults.model import FaultModel
from afpjax.hardware import (
    Sizes,
    layer_cost,
    load_device,
    load_link,
    load_platform,
    shipped_devices,
    shipped_links,
)
from afpjax.inputs.errors import InputError

SHIPPED = ("eyeriss", "simba", "simba-ecc", "simba-ecc-weights")

DEVICE = """
name = "mine"
description = "a device"
clock_mhz = 100
word_bits = 8
memory_bytes = 1048576
dram_gb_s = 1.5
weight_fault_rate = 0.1
activation_fault_rate = 0.2
[array]
dataflow = "fixed"
rows = 4
columns = 8
[memory]
buffer_bytes = 65536
input_words = 16
weight_words = 16
partial_sum_words = 16
[energy_pj]
mac = 1.0
input = 0
weight = 0
partial_sum = 0
buffer = 2.0
dram = 100.0
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes DEVICE, with one text put for another, and gives its path."""

    def written(old: str = "", new: str = "", name: str = "mine.toml") -> str:
        assert old in DEVICE
        path = tmp_path / name
        path.write_text(DEVICE.replace(old, new, 1) if old else DEVICE)
        return str(path)

    return written


def test_shipped_devices_load_in_the_order_asked_for():
    assert shipped_devices() == SHIPPED
    platform = load_platform(("simba-ecc", "eyeriss", "simba"), "ucie")
    assert platform.names == ("simba-ecc", "eyeriss", "simba")
    assert platform.link.name == "ucie"
    assert platform.weight_rates == (0.0, 0.02, 0.2)
    assert platform.activation_rates == (0.0, 0.02, 0.2)


def test_the_hardened_device_follows_from_simba_as_its_comments_say():
    simba, hardened = load_device("simba"), load_device("simba-ecc")
    stored = 22 / 16  # SECDED: 6 check bits for 16 data bits
    expected = dataclasses.replace(
        simba,
        name="simba-ecc",
        description=hardened.description,
        clock_mhz=160.0,
        memory_bytes=int(simba.memory_bytes / stored),
        dram_gb_s=hardened.dram_gb_s,
        weight_fault_rate=0.0,
        activation_fault_rate=0.0,
        energy_pj=hardened.energy_pj,
    )
    assert hardened == expected
    assert hardened.dram_gb_s == pytest.approx(simba.dram_gb_s / stored, abs=0.05)
    energies = {k: v * stored for k, v in dataclasses.asdict(simba.energy_pj).items()}
    energies["mac"] = 2 * simba.energy_pj.mac + 0.08
    assert dataclasses.asdict(hardened.energy_pj) == pytest.approx(energies)


def test_the_device_that_protects_weights_follows_from_simba_as_its_comments_say():
    simba, protected = load_device("simba"), load_device("simba-ecc-weights")
    stored = 22 / 16
    energy = simba.energy_pj
    expected = dataclasses.replace(
        simba,
        name="simba-ecc-weights",
        description=protected.description,
        memory_bytes=int(simba.memory_bytes / stored),
        dram_gb_s=protected.dram_gb_s,
        weight_fault_rate=0.0,
        energy_pj=dataclasses.replace(
            energy,
            weight=energy.weight * stored,
            buffer=energy.buffer * stored,
            dram=energy.dram * stored,
        ),
    )
    assert protected == expected
    assert protected.dram_gb_s == load_device("simba-ecc").dram_gb_s


@pytest.mark.parametrize("size", [(16, 32), (64, 8), (32, 4)])
def test_protected_weights_cost_energy_alone_and_less_than_all_protected(layer_of, size):
    """Convolutions, which no bandwidth limits: as fast as Simba, between both in energy."""
    channels, pixels = size
    layer = layer_of(("conv", channels, pixels, 3, channels, pixels, 1))
    plain, weights, full = (
        layer_cost(layer, load_device(name), Sizes())
        for name in ("simba", "simba-ecc-weights", "simba-ecc")
    )
    assert weights[0] == plain[0] < full[0]
    assert plain[1] < weights[1] < full[1]


def test_protected_weights_have_no_faults_and_activations_those_of_simba():
    """Rates reach the fault model by the device's number, as a mapping has it."""
    platform = load_platform(("simba", "simba-ecc-weights", "simba-ecc"), "ucie")
    faults = FaultModel(
        weight_rate=platform.weight_rates, activation_rate=platform.activation_rates
    )
    assert faults.rates("weight").tolist() == [[0.2] * 4, [0.0] * 4, [0.0] * 4]
    assert faults.rates("activation").tolist() == [[0.2] * 4, [0.2] * 4, [0.0] * 4]


@pytest.mark.parametrize("size", [(16, 32), (64, 8), (32, 4)])
def test_three_ways_to_run_a_convolution_and_none_is_best_in_all(layer_of, size):
    """Simba is the fastest, Eyeriss the most frugal, the hardened one never fails."""
    channels, pixels = size
    layer = layer_of(("conv", channels, pixels, 3, channels, pixels, 1))
    shipped = SHIPPED[:3]
    devices = {name: load_device(name) for name in shipped}
    cost = {name: layer_cost(layer, device, Sizes()) for name, device in devices.items()}
    by_latency = sorted(shipped, key=lambda name: cost[name][0])
    by_energy = sorted(shipped, key=lambda name: cost[name][1])
    by_rate = sorted(shipped, key=lambda name: devices[name].weight_fault_rate)
    assert by_latency == ["simba", "simba-ecc", "eyeriss"]
    assert by_energy == ["eyeriss", "simba", "simba-ecc"]
    assert by_rate == ["simba-ecc", "eyeriss", "simba"]


def test_a_device_of_ones_own_is_a_path(write):
    path = write()
    platform = load_platform(("eyeriss", path), "ethernet-1g")
    assert platform.names == ("eyeriss", "mine")
    mine = platform.devices[1]
    assert (mine.clock_mhz, mine.energy_pj.input, mine.memory.input_share) == (100.0, 0.0, 1)


def test_a_device_that_occurs_again_is_numbered(write):
    path = write('"mine"', '"simba-2"')
    platform = load_platform(("simba", "simba", path, "simba"), "ucie")
    assert platform.names == ("simba", "simba-2", "simba-2-2", "simba-3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "eyeris",
            r"unknown device `eyeris`; did you mean `eyeriss`.* simba-ecc-weights; .*\.toml",
        ),
        ("gpu", "unknown device `gpu`; shipped are eyeriss, simba"),
        *((name, "unknown device") for name in ("../devices/eyeriss", "Eyeriss", "", "a.json")),
    ],
)
def test_an_unknown_device_gives_the_nearest_and_all_and_no_name_is_a_path(name, message):
    with pytest.raises(InputError, match=message):
        load_device(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_mhz", "clock", r"mine\.toml: unknown key `clock`; did you mean `clock_mhz`\?"),
        ("clock_mhz = 100\n", "", r"mine\.toml: key `clock_mhz` is missing"),
        ("[memory]\n", "[memory]\nsize = 1\n", r"mine\.toml: \[memory\]: unknown key `size`"),
        ("100\n", '"fast"\n', r"`clock_mhz` is 'fast': give a number"),
        ("100\n", "true\n", r"`clock_mhz` is True: give a number"),
        ("word_bits = 8", "word_bits = 8.5", r"`word_bits` is 8\.5: give a whole number"),
        ("word_bits = 8", f"word_bits = {10**13}", "`word_bits` is .*: give 1000000000000 at most"),
        ('"mine"', "3", r"`name` is 3: give a text in quotes"),
        ('"mine"', '""', r"mine\.toml: `name` is '': give it a text"),
        ("1.5", "nan", r"`dram_gb_s` is nan: give more than 0"),
        ("mac = 1.0", "mac = inf", r"\[energy_pj\]: `mac` is inf: give a finite number"),
        ("0.1", "1.5", r"mine\.toml: `weight_fault_rate` is 1\.5: give 1 at most"),
        ("rows = 4", "rows = 0", r"\[array\]: `rows` is 0: give more than 0"),
        (
            "fixed",
            "weight",
            r"`dataflow` is 'weight': give 'row-stationary', 'weight-stationary' or",
        ),
        ("columns = 8", "columns = 8\nvector = 3", r"\[array\]: `vector` is 3: give a divisor of"),
        ("[array]", "[[array]]", r"`array` must be a table, \[array\]"),
        ('"mine"', "mine", r"mine\.toml:2: is not valid TOML"),
    ],
)
def test_a_bad_device_file_says_what_and_where(write, old, new, message):
    with pytest.raises(InputError, match=message) as told:
        load_device(write(old, new))
    assert "\n" not in str(told.value)


def test_a_layer_table_lies_beside_its_device(write, tmp_path):
    path = write("[array]", 'layer_table = "table.csv"\n[array]')
    with pytest.raises(InputError, match=r"layer_table: \S*table\.csv does not exist"):
        load_device(path)
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(InputError, match=r"layer_table: \S*table\.csv: no column `Layer`"):
        load_device(path)
    (tmp_path / "table.csv").write_text("Layer;Latency [ms];Energy [mJ]\na;1;1\n")
    assert load_device(path).layer_table == str(tmp_path / "table.csv")


@pytest.mark.parametrize("name", shipped_links())
def test_a_link_that_resends_costs_so_many_transfers(name):
    link = load_link(name)
    twice = link.resending(2.0)
    for size in (1, 1500, 10**6):
        assert twice.transfer_ms(size) == pytest.approx(2 * link.transfer_ms(size))
        assert twice.transfer_mj(size) == pytest.approx(2 * link.transfer_mj(size))
    assert link.resending(1.0) == link
