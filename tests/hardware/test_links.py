"""Links: time and energy of a transfer, against figures worked out by hand and published ones."""

import pytest

from afpjax.hardware import Link, load_link, shipped_links
from afpjax.inputs.errors import InputError

BYTES = 802816  # 64 channels of 112x112 in bytes: the transfer of CNNParted's own example


def link(**changes) -> Link:
    plain = dict(
        name="wire",
        description="",
        bandwidth_gbit_s=1.0,
        latency_us=0.0,
        packet_payload_bytes=0,
        packet_overhead_bytes=0,
        power_mw=0.0,
        energy_pj_per_bit=0.0,
    )
    return Link(**{**plain, **changes})


def test_gigabit_ethernet_has_cnnparteds_time_and_energy():
    ethernet = load_link("ethernet-1g")
    assert ethernet.transfer_ms(BYTES) == pytest.approx(6.534, abs=5e-4)
    assert ethernet.transfer_mj(BYTES) == pytest.approx(3.920, abs=5e-4)


def test_ucie_energy_is_per_bit_and_not_6000_times_too_low():
    """CNNParted divides by the frame rate and multiplies by the time: 2.52e-7 mJ."""
    assert load_link("ucie").transfer_mj(BYTES) == pytest.approx(1.606e-3, rel=1e-3)
    assert load_link("ucie").transfer_ms(BYTES) == pytest.approx(8 * BYTES / 1024e6 + 1e-6)


@pytest.mark.parametrize(
    ("payload", "packets"), [(0, 0), (1, 1), (1499, 1), (1500, 1), (1501, 2), (3000, 2), (3001, 3)]
)
def test_every_started_packet_has_its_overhead(payload, packets):
    framed = link(packet_payload_bytes=1500, packet_overhead_bytes=26)
    assert framed.sent_bytes(payload) == payload + 26 * packets
    assert framed.transfer_ms(payload) == pytest.approx(8 * (payload + 26 * packets) / 1e6)


def test_ten_times_the_bandwidth_takes_a_tenth_of_the_time():
    slow, fast = (load_link(f"ethernet-{speed}") for speed in ("100m", "1g"))
    constant = 0.03e-3
    sending = [each.transfer_ms(BYTES) - constant for each in (slow, fast)]
    assert sending[0] == pytest.approx(10 * sending[1])


def test_power_is_paid_while_sending_and_not_while_waiting():
    wire = link(power_mw=500.0, latency_us=1e6)
    assert wire.transfer_ms(125_000) == pytest.approx(1.0 + 1000.0)
    assert wire.transfer_mj(125_000) == pytest.approx(0.5)


def test_wired_and_wireless_links_are_shipped():
    wired = {"ethernet-100m", "ethernet-1g", "ethernet-10g", "ucie"}
    assert set(shipped_links()) == {*wired, "wifi-n", "wifi-ac"}
    assert {n for n in shipped_links() if load_link(n).shared_medium} == {"wifi-n", "wifi-ac"}
    for name in shipped_links():
        assert load_link(name).name == name


def test_a_link_of_ones_own(tmp_path):
    path = tmp_path / "can.toml"
    path.write_text(
        'name = "can"\ndescription = "CAN FD"\nbandwidth_gbit_s = 0.008\nlatency_us = 1\n'
        "packet_payload_bytes = 64\npacket_overhead_bytes = 11\npower_mw = 100.0\n"
        "energy_pj_per_bit = 0\n"
    )
    can = load_link(str(path))
    assert (can.name, can.latency_us) == ("can", 1.0)
    assert can.transfer_ms(64) == pytest.approx(75 * 8 / 0.008e6 + 1e-3)


def test_an_unknown_link_gives_the_nearest():
    with pytest.raises(InputError, match="unknown link `ethernet-1gb`, did you mean `ethernet-1g`"):
        load_link("ethernet-1gb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwidth_gbit_s": 0.0}, "`bandwidth_gbit_s` is 0.0: give more than zero"),
        ({"latency_us": -1.0}, "`latency_us` is -1.0: give zero or more"),
        ({"power_mw": float("nan")}, "`power_mw` is nan: give zero or more"),
        ({"energy_pj_per_bit": float("inf")}, "`energy_pj_per_bit` is inf: give a finite number"),
        ({"packet_overhead_bytes": -1}, "`packet_overhead_bytes` is -1"),
    ],
)
def test_a_link_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        link(**change)


def test_an_infinite_bandwidth_is_a_link_that_costs_its_latency():
    free = link(bandwidth_gbit_s=float("inf"), latency_us=2.0, power_mw=100.0)
    assert free.transfer_ms(BYTES) == pytest.approx(2e-3)
    assert free.transfer_mj(BYTES) == 0.0
