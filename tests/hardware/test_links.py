"""Links: time and energy of a transfer, against figures worked out by hand and published ones."""

import pytest

from afpjax.hardware import Link, load_link, shipped_links

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
    ("payload", "packets"), [(0, 0), (1, 1), (1500, 1), (1501, 2), (3000, 2), (3001, 3)]
)
def test_every_started_packet_has_its_overhead(payload, packets):
    framed = link(packet_payload_bytes=1500, packet_overhead_bytes=26)
    assert framed.sent_bytes(payload) == payload + 26 * packets
    assert framed.transfer_ms(payload) == pytest.approx(8 * (payload + 26 * packets) / 1e6)


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


def test_an_infinite_bandwidth_is_a_link_that_costs_its_latency():
    free = link(bandwidth_gbit_s=float("inf"), latency_us=2.0, power_mw=100.0)
    assert free.transfer_ms(BYTES) == pytest.approx(2e-3)
    assert free.transfer_mj(BYTES) == 0.0


@pytest.mark.parametrize(("name", "rate"), [("wifi-n", 150.0), ("wifi-ac", 433.3)])
def test_wifi_carries_a_third_of_its_rate_and_radios_work_half_of_the_time(name, rate):
    link = load_link(name)
    assert link.bandwidth_gbit_s == pytest.approx(rate * 2 / 3 / 2 / 1e3, rel=5e-3)
    sent_s = 8 * (1500 + 38) / (link.bandwidth_gbit_s * 1e9)
    assert link.transfer_ms(1500) == pytest.approx(1.0 + 1e3 * sent_s)
    assert link.transfer_mj(1500) == pytest.approx(1e3 * (1.14 + 0.94) / 2 * sent_s)
