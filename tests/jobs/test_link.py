"""Faults of the link in experiments: what a file says, what jobs search under and report."""

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.hardware import load_link
from afpjax.inputs.errors import InputError
from afpjax.search.objectives import costs
from afpjax.search.partition import partition, tables_for

ON_TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}
LOSSY = {**ON_TWO, "faults__link": "zero", "faults__link_rate": 1.0}
CUT, WHOLE = [0, 1, 1], [1, 1, 1]

LINK = """
name = "long-wire"
description = "one that loses much"
bandwidth_gbit_s = 1.0
latency_us = 1.0
packet_payload_bytes = 100
packet_overhead_bytes = 10
power_mw = 1.0
energy_pj_per_bit = 1.0
bit_error_rate = 0.125
packet_loss_rate = 0.25
"""


@pytest.fixture
def wire(tmp_path):
    path = tmp_path / "wire.toml"
    path.write_text(LINK)
    return path


@pytest.fixture(scope="module")
def experiment_of(config_of):
    """A prepared experiment; tests that ask for the same share it and its compiled programs."""
    known = {}

    def made(**changes):
        name = repr(sorted(changes.items()))
        if name not in known:
            known[name] = prepare(config_of(**changes), Work({}, SILENT))
        return known[name]

    return made


@pytest.mark.parametrize(
    ("kind", "rate"), [("bits", 0.125), ("zero", 0.25), ("last", 0.25), ("resent", 0.25)]
)
def test_the_rate_is_the_experiments_or_the_links_own(experiment_of, wire, kind, rate):
    own = {"platform__link": str(wire), "faults__link": kind}
    faults = experiment_of(**own).faults
    assert (faults.link_kind, faults.link_rate) == (kind, rate)
    assert experiment_of(**own, faults__link_rate=0.5).faults.link_rate == 0.5
    assert experiment_of(**own, faults__link_rate=0.0).faults.link_rate == 0.0
    assert experiment_of(faults__link=kind).faults.link_rate == 0.0  # shipped links are good


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faults__link_rate": [0.1, 0.2]}, "faults.link_rate: 2 rates for the one link"),
        ({"faults__link_rate": 1.5}, "faults.link_rate"),
        ({"faults__link": "late"}, "faults.link"),
        ({"faults__link": "resent", "faults__link_rate": 1.0}, "resent for ever"),
        ({"faults__budget": 3, "faults__link_rate": 0.1}, "faults.budget: .* not of the link"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(experiment_of, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        experiment_of(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["bit_error_rate", "packet_loss_rate"])
def test_a_links_rate_lies_between_0_and_1(wire, key):
    wire.write_text("\n".join(line for line in LINK.splitlines() if key not in line))
    assert getattr(load_link(str(wire)), key) == 0.0
    wire.write_text(wire.read_text() + f"\n{key} = 1.25\n")
    with pytest.raises(InputError, match=f"`{key}` is 1.25: give 1 at most"):
        load_link(str(wire))


def test_the_links_faults_belong_to_the_activations(experiment_of):
    experiment = experiment_of(faults__link_rate=0.4)
    for name, factor, rate in [
        ("weights", 1.0, 0.0),
        ("activations", 0.5, 0.2),
        ("both", 1.0, 0.4),
        ("both", 5.0, 1.0),
    ]:
        assert experiment.scenario(name, factor).link_rate == pytest.approx(rate)
    again = experiment_of(faults__link="resent", faults__link_rate=0.4)
    assert {again.scenario(name, 5.0).link_rate for name in ("weights", "both")} == {0.4}


@pytest.mark.parametrize(("kind", "times"), [("resent", 4.0), ("zero", 1.0)])
def test_what_is_resent_costs_more_and_changes_no_value(experiment_of, kind, times):
    plain = experiment_of(**ON_TWO)
    lossy = experiment_of(**ON_TWO, faults__link=kind, faults__link_rate=0.75)
    assert plain.tables.shared is lossy.tables.shared is None
    for name, before in plain.tables._asdict().items():
        if name == "shared":
            continue
        factor = times if name.startswith("link") else 1
        np.testing.assert_allclose(getattr(lossy.tables, name), factor * np.asarray(before), 1e-6)
    cost = [costs(each.tables, np.array([CUT, WHOLE])) for each in (plain, lossy)]
    for total, link in (("latency_ms", "link_latency_ms"), ("energy_mj", "link_energy_mj")):
        added = getattr(cost[1], total) - getattr(cost[0], total)
        expected = (times - 1) * getattr(cost[0], link)
        np.testing.assert_allclose(added, expected, 1e-4, 1e-9)
        assert expected[1] == 0 and (expected[0] > 0) == (times > 1)
    if kind == "resent":
        drops = [each.objective("both").drop(np.array([CUT, WHOLE])) for each in (plain, lossy)]
        np.testing.assert_array_equal(*drops)


def test_the_library_charges_what_is_resent_too(experiment_of):
    experiment = experiment_of(**ON_TWO, faults__link="resent", faults__link_rate=0.5)
    images, labels = experiment.inputs(experiment.searched), experiment.searched.labels
    front = partition(
        experiment.quantized,
        experiment.platform,
        experiment.faults,
        images,
        labels,
        experiment.key("x"),
        trials=1,
    )
    once = tables_for(experiment.quantized, experiment.platform)
    twice = once._replace(
        link_latency_ms=2 * once.link_latency_ms, link_energy_mj=2 * once.link_energy_mj
    )
    expected = costs(twice, front.mappings)
    np.testing.assert_array_equal(front.latency_ms, expected.latency_ms)
    np.testing.assert_array_equal(front.energy_mj, expected.energy_mj)


def test_a_search_keeps_to_one_device_where_nothing_arrives(result_of):
    """Neither device is better at both: without faults in the link, the front has cuts."""
    usual, lossy = result_of("partition", **ON_TWO), result_of("partition", **LOSSY)
    cuts = [[len(set(p["mapping"])) > 1 for p in each["front"]] for each in (usual, lossy)]
    assert sum(cuts[0]) > sum(cuts[1])
    assert len(set(lossy["selected"]["mapping"])) == 1
    assert "link" not in usual["faults"]
    assert lossy["faults"]["link"] == {"kind": "zero", "rate": 1.0}
    assert usual["sensitivity"] == lossy["sensitivity"]
