"""Job `campaign` from an experiment to what stands in result.json, for every design."""

import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from afpjax.config.work import SILENT, Work
from afpjax.evaluate import engine, sizes
from afpjax.experiment import prepare
from afpjax.faults.model import FaultModel
from afpjax.faults.sites import Fault, Site
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign import run as campaign
from afpjax.jobs.shared.outcome import result_text, tables
from afpjax.jobs.shared.result import plain

WEIGHTS = {"stem": 162, "hidden": 36, "head": 24}
INPUTS = {"stem": 192, "hidden": 6, "head": 6}
ALL_TARGETS: dict[str, Any] = {
    "campaign__targets": ["weights", "activations", "link"],
    "campaign__mapping": [0, 1, 0],  # hidden and head read what another device made
}
DESIGNS: dict[str, dict[str, Any]] = {
    "single": {**ALL_TARGETS, "campaign__bits": [3, 10, 15], "campaign__margin": 0.15},
    "neyman": {
        **ALL_TARGETS,
        "campaign__design": "neyman",
        "campaign__bits": [10, 15],
        "campaign__targets": ["weights", "link"],
        "campaign__trials": 160,
        "campaign__interval": "clopper-pearson",
    },
    "exhaustive": {**ALL_TARGETS, "campaign__design": "exhaustive", "campaign__bits": [9, 15]},
    "bernoulli, rates": {
        **ALL_TARGETS,
        "campaign__design": "bernoulli",
        "campaign__targets": ["weights", "link"],
        "campaign__rates": [0.01, 0.3],
        "campaign__trials": 5,
        "campaign__strata": "layer",
    },
    "listed": {
        "campaign__design": "listed",
        "campaign__sites": ["stem/weights/7/15", "head/activations/3/10+15", "hidden/weights/0/0"],
    },
    "a network": {"campaign__strata": "network", "campaign__margin": 0.12},
}
FLAGS = ("sdc1", "sdc5", "sdc10", "sdc20", "non_finite")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The clean speed is measured for half a second; here a moment will do."""
    rate = engine.Engine.clean_rate
    monkeypatch.setattr(engine.Engine, "clean_rate", lambda self, draws: rate(self, draws, 0.01))


def cell_of(result, **named):
    (cell,) = [c for c in result["cells"] if all(c.get(k) == v for k, v in named.items())]
    return cell


def lasting(result):
    """A result without its speed."""
    return {key: value for key, value in result.items() if key != "throughput"}


def holds(record, name, stem):
    low, high = record[f"{stem}_interval"]
    assert 0 <= low <= record[name] <= high <= 1


@pytest.mark.parametrize("name", DESIGNS)
def test_results_hold_the_contract(result_of, name):
    """DESIGN.md, section `result.json`, of job campaign, and what is told beside it."""
    result = result_of("campaign", **DESIGNS[name])
    assert not re.search("NaN|Infinity", result_text(result))
    for cell in result["cells"]:
        assert cell["layer"] in (*WEIGHTS, "all") and cell["trials"] > 0 and cell["images"] == 16
        assert cell["target"] in ("weights", "activations", "link")
        assert cell["bit"] == "all" or cell["bit"] == "10+15" or 0 <= cell["bit"] < 16
        holds(cell, "accuracy", "accuracy")
        holds(cell, "sdc_rate", "sdc")
        for share in ("masked", "tolerable", *FLAGS):
            assert 0 <= cell[share] <= 1 + 1e-12
        assert cell["sdc1"] == pytest.approx(cell["sdc_rate"])
        assert cell["sdc5"] <= cell["sdc1"] and cell["sdc20"] <= cell["sdc10"]
        assert cell["masked"] + cell["tolerable"] + max(cell["sdc1"], cell["sdc10"]) <= 1 + 1e-9
        if "critical_rate" in cell:
            holds(cell, "critical_rate", "critical")
            assert cell["critical_rate"] >= cell["sdc_rate"] - 1e-9
    names = [(*(c[k] for k in ("layer", "bit", "target")), c.get("rate"), c.get("device"))
             for c in result["cells"]]  # fmt: skip
    assert name == "listed" or len(set(names)) == len(names)
    speed = result["throughput"]
    assert min(speed["inferences_per_second"], speed["clean_inferences_per_second"]) > 0
    design, wanted = result["design"], DESIGNS[name].get("campaign__targets", ["weights"])
    assert design["name"] == DESIGNS[name].get("campaign__design", "single")
    assert design["name"] == "listed" or list(design["estimand"]) == result["targets"] == wanted
    assert 0.95 <= design["level"] < 1 and design["trials"] > 0
    assert result["clean"]["images"] == 16 and 0.5 < result["clean"]["accuracy"] < 1
    assert "cells" in tables(result)
    changes = sum(row["count"] for row in result["confusion"])
    assert changes > 0
    assert all(row["from"] != row["to"] for row in result["confusion"])


@pytest.mark.parametrize("name", ["single", "neyman", "exhaustive"])
def test_cells_over_strata_are_their_weighted_means(result_of, name):
    result = result_of("campaign", **DESIGNS[name])
    single = [c for c in result["cells"] if c["layer"] != "all"]
    keys = ("accuracy", "sdc_rate", "critical_rate", "masked", "tolerable", *FLAGS)
    pooled = 0
    for whole in result["cells"]:
        alike = [c for c in single if c["target"] == whole["target"]]
        if whole["layer"] != "all":
            alike = [c for c in alike if c["layer"] == whole["layer"]]
        bits = {c["bit"] for c in alike} - {"all"} if whole["bit"] == "all" else {whole["bit"]}
        parts = [c for c in alike if c["bit"] in (bits or {"all"})]
        if whole in parts:
            continue
        pooled += 1
        sizes = np.array([c["population"] for c in parts])
        assert whole["population"] == sizes.sum()
        assert whole["trials"] == sum(c["trials"] for c in parts)
        for key in keys:
            mean = np.dot(sizes, [c[key] for c in parts]) / sizes.sum()
            assert whole[key] == pytest.approx(mean, abs=1e-12)
    assert pooled >= 3
    strata = [c for c in single if c["bit"] != "all"] or single
    assert result["design"]["strata"] == len(strata)
    assert result["design"]["trials"] == sum(c["trials"] for c in strata)
    assert result["design"]["population"] == sum(c["population"] for c in strata)


def test_cells_are_those_that_were_asked_for(result_of):
    result = result_of("campaign", **DESIGNS["single"])
    counts = {"weights": WEIGHTS, "activations": INPUTS, "link": {"hidden": 6, "head": 6}}
    for target, of_layers in counts.items():
        for layer, count in of_layers.items():
            for bit in (3, 10, 15):
                assert cell_of(result, layer=layer, bit=bit, target=target)["population"] == count
            whole = cell_of(result, layer=layer, bit="all", target=target)
            assert whole["population"] == 3 * count
        for bit in (3, 10, 15):
            column = cell_of(result, layer="all", bit=bit, target=target)
            assert column["population"] == sum(of_layers.values())
        cell_of(result, layer="all", bit="all", target=target)
    assert len(result["cells"]) == sum(3 * n + n + 3 + 1 for n in (3, 3, 2))
    # The sign bit of what crosses a link does more harm than bit 3, which does next to none.
    for target in counts:
        high, low = (cell_of(result, layer="all", bit=b, target=target) for b in (15, 3))
        assert high["sdc_rate"] > low["sdc_rate"] + 0.1
    # All of the small strata were met: nothing is left to be unsure of.
    whole = cell_of(result, layer="head", bit=15, target="link")
    assert whole["trials"] == 6
    assert whole["sdc_interval"] == pytest.approx([whole["sdc_rate"]] * 2)


def test_an_exhaustive_campaign_knows_every_fault(config_of, result_of):
    """Each fault by itself, through the evaluator's other door."""
    result = result_of("campaign", **DESIGNS["exhaustive"])
    config = config_of(run__job="campaign", **DESIGNS["exhaustive"])
    held = config.campaign.images
    evaluator = prepare(config, Work({}, SILENT), measured_images=held).held_out
    means = {}
    for target, counts in (("weights", WEIGHTS), ("activations", INPUTS)):
        for place, (layer, count) in enumerate(counts.items()):
            for bit in (9, 15):
                sites = [Site(place, element, bit, target) for element in range(count)]
                correct = evaluator.evaluate_sites([Fault.at(site) for site in sites])
                cell = cell_of(result, layer=layer, bit=bit, target=target)
                assert cell["accuracy"] == pytest.approx(correct.mean(), abs=1e-12)
                assert cell["accuracy_interval"] == pytest.approx([cell["accuracy"]] * 2)
                assert cell["trials"] == cell["population"] == count
                means[layer, bit, target] = correct.mean()
    assert len(set(means.values())) > 5
    for layer, bit in (("hidden", 9), ("head", 15)):  # what crosses a link is what is read there
        cell = cell_of(result, layer=layer, bit=bit, target="link")
        assert cell["accuracy"] == pytest.approx(means[layer, bit, "activations"])


def test_masks_are_the_fault_models(config_of, result_of):
    """Some cells again, trial by trial, without the evaluator."""
    options = DESIGNS["bernoulli, rates"]
    result, config = result_of("campaign", **options), config_of(run__job="campaign", **options)
    experiment = prepare(config, Work({}, SILENT), measured_images=config.campaign.images)
    images, key = experiment.inputs(experiment.held), experiment.key("draws campaign")
    clean = np.asarray(experiment.quantized(images)).argmax(axis=1)
    assert len(result["cells"]) == 2 * (3 + 2)
    for layer, target, rate in (("stem", "weights", "weight"), ("head", "link", "activation")):
        cell = cell_of(result, bit="all", layer=layer, target=target, rate=0.3)
        assert cell["trials"] == 5 and "device" not in cell
        rates = {"weight_rate": 0.0, "activation_rate": 0.0, f"{rate}_rate": 0.3}
        model = FaultModel(bits=(4, 5), layers=(layer,), **rates)  # pyright: ignore
        said = [
            np.asarray(experiment.quantized(images, faults=model, key=key, trial=t)).argmax(axis=1)
            for t in range(5)
        ]
        right = np.mean([each == experiment.held.labels for each in said])
        other = np.mean([each != clean for each in said])
        assert (cell["accuracy"], cell["sdc_rate"]) == pytest.approx((right, other))


@pytest.mark.parametrize("name", ["a network", "listed"])
def test_neither_batches_nor_what_is_remembered_change_the_result(
    outcome_of, result_of, counted, monkeypatch, name
):
    expected = lasting(result_of("campaign", **DESIGNS[name]))
    monkeypatch.setattr(sizes, "CPU", sizes.CPU._replace(least_images=5, most_images=5))
    memory: dict[bytes, bytes] = {}
    outcome = outcome_of("campaign", memory=memory, progress=counted, **DESIGNS[name])
    assert lasting(plain(outcome.result)) == expected
    assert plain(outcome.result)["throughput"]["passes"] == 16 * (len(memory) - 1)
    (bar,) = [task for task in counted.tasks if task[0] == "Striking"]
    assert bar[1] == bar[2] > 0
    half = dict(list(memory.items())[::2])
    missing = len(memory.keys() - half.keys())
    outcome = outcome_of("campaign", memory=half, **DESIGNS[name])
    assert lasting(plain(outcome.result)) == expected
    assert half.keys() == memory.keys() and missing > 0


@pytest.mark.parametrize(
    "kind, more",
    [
        ("flip", {}),
        ("burst", {"faults__burst": 3, "faults__bits": [0, 1, 2, 3]}),
        ("flip", {"campaign__targets": ["activations"], "faults__scope": "trial"}),
    ],
    ids=["flip", "burst", "activations"],
)
def test_the_worst_faults_can_be_struck_again(result_of, kind, more):
    options = {"faults__kind": kind, **more}
    result = result_of("campaign", **DESIGNS["a network"], **options)
    worst = result["worst"]
    assert 0 < len(worst) <= 20 and worst[0]["sdc_rate"] > 0
    rates = [each["sdc_rate"] for each in worst]
    assert rates == sorted(rates, reverse=True)
    assert all(w["same_in_every_image"] and len(w["sites"]) == 1 for w in worst)
    sites = [each["sites"][0] for each in worst]
    again = result_of("campaign", campaign__design="listed", campaign__sites=sites, **options)
    assert [cell["site"] for cell in again["cells"]] == sites
    assert [cell["sdc_rate"] for cell in again["cells"]] == rates
    for site, rate in zip(sites, rates, strict=True):
        changed = [row for row in again["changed"] if row["site"] == site]
        assert len(changed) == rate * 16 and all(row["before"] != row["after"] for row in changed)


def numbers_of(table):
    """Row's name -> its numbers, of a plan as it is printed."""
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    rows = {}
    for line in captured.get().splitlines()[1:]:
        name, *values = re.split(r" {2,}", line.strip())
        rows[name] = [int(v.replace(",", "")) for v in values if v.replace(",", "").isdigit()]
    return rows


@pytest.mark.parametrize("name", DESIGNS)
def test_a_run_stays_within_its_plan(config_of, outcome_of, result_of, name):
    options = DESIGNS[name]
    memory: dict[bytes, bytes] = {}
    planned = numbers_of(
        campaign.plan(config_of(run__job="campaign", **options), Work(memory, SILENT))
    )
    result = result_of("campaign", **options)
    passes = planned["under faults, 16 images each"]
    assert passes[0] % 16 == passes[1] % 16 == 0
    least, most = (each // 16 for each in passes)
    assert least <= result["design"]["trials"] <= most
    assert planned["all"] == [16 * (1 + least), 16 * (1 + most)]
    assert 0 < result["throughput"]["passes"] <= 16 * most
    if name in ("exhaustive", "neyman", "listed", "bernoulli, rates"):
        assert least == most == result["design"]["trials"]


def test_a_mask_that_stays_for_the_whole_run_is_one_trial(result_of):
    """However many were asked for: they would all be the same, and look sure of themselves."""
    result = result_of(
        "campaign",
        faults__scope="run",
        campaign__design="bernoulli",
        campaign__rates=[0.3],
        campaign__trials=5,
        campaign__strata="network",
    )
    (cell,) = result["cells"]
    assert cell["trials"] == 1 and 0 < cell["accuracy"] < 1
    low, high = cell["accuracy_interval"]
    assert high - low > 0.2  # 16 images
    for text in result["design"]["estimand"].values():
        assert text.endswith("under the one mask of this seed, over new images")


def test_another_seed_draws_other_faults(result_of):
    first, other = (result_of("campaign", **DESIGNS["a network"], run__seed=n) for n in (0, 1))
    assert [w["sites"] for w in first["worst"]] != [w["sites"] for w in other["worst"]]


def test_the_worst_of_faults_that_differ_from_image_to_image(result_of):
    every = result_of("campaign", **DESIGNS["single"])["worst"]
    worst = [each for each in every if each["target"] != "weights"]
    assert worst and not any(each["same_in_every_image"] for each in worst)
    for each in worst:
        assert len(each["sites"]) == 8  # of the first images
        for site in each["sites"]:
            layer, target, element, bit = site.split("/")
            assert (layer, int(bit)) == (each["layer"], each["bit"])
            assert target == "activations" and 0 <= int(element) < INPUTS[layer]
    assert len(set(worst[0]["sites"])) > 1


BERNOULLI = DESIGNS["bernoulli, rates"]
LINK = {"campaign__targets": ["link"]}
NOT_THERE = r"campaign\.targets: link: no layer of faults\.layers reads across a link"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"campaign__bits": [16]}, r"campaign\.bits: the format has the bits 0 to 15, not 16"),
    ({"campaign__bits": [8], "format__bits": 8}, r"campaign\.bits: the format has the bits 0 to 7"),
    ({"campaign__bits": [3, 3]}, r"campaign\.bits: list each once, got \[3, 3\]"),
    ({**BERNOULLI, "campaign__rates": [0.1, 0.1]}, r"campaign\.rates: list each once"),
    ({"campaign__targets": []}, r"campaign\.targets: name one or more"),
    ({"campaign__targets": ["weights"] * 2}, r"campaign\.targets: list each once"),
    ({"campaign__mapping": [0, 1]}, r"campaign\.mapping: 2 devices for 3 layers"),
    ({**LINK, "campaign__mapping": [1, 1, 1]}, r"nothing crosses a link under campaign\.mapping"),
    ({**LINK, "faults__layers": [1]}, NOT_THERE),
    ({**BERNOULLI, "faults__layers": ["stem"]}, NOT_THERE),
    ({"faults__layers": ["haed"]}, r"faults\.layers: no layer 'haed'; layers: stem, hidden, head"),
    ({"campaign__count": 25}, "there are 24 flip faults in weights of layer `head`, too few"),
    ({"campaign__count": 2, "campaign__design": "exhaustive"}, r"campaign\.count: an exhaust"),
    ({"faults__kind": "lost-last"}, r"faults\.kind: lost-last has no single faults"),
    ({"faults__kind": "lost-last", **DESIGNS["listed"]}, r"faults\.kind: lost-last has no single"),
    ({"faults__scope": "image"}, r"faults\.scope: single faults of weights stay"),
    ({"campaign__design": "neyman", "campaign__trials": 9}, r"campaign\.trials: 9 are fewer"),
    (
        {"campaign__design": "bernoulli", "campaign__trials": 10**12},
        r"campaign\.trials: 1000000000000 masks of each cell; give 1048576 or fewer",
    ),
]
SITES = {
    "": r"name faults to strike",
    "nonsense": r"nonsense is not LAYER/TARGET/ELEMENT/BIT with one of the layers stem,",
    "haed/weights/0/0": r"haed/weights/0/0 is not LAYER/TARGET/ELEMENT/BIT",
    "head/weights/first/0": r"head/weights/first/0: element and bit are whole numbers",
    "head/weights/0/3+": r"head/weights/0/3\+: element and bit are whole numbers",
    "head/weights/24/0": r"head/weights/24/0: .*layer `head` has weights 0 to 23",
    "head/weights/-1/0": r"head/weights/-1/0: .*layer `head` has weights 0 to 23",
    "head/activations/0/16": r"head/activations/0/16: .*the format has the bits 0 to 15",
    "head/biases/0/1": r"head/biases/0/1: .*a target is one of weights, activations",
}
REFUSED += [
    (
        {"campaign__design": "listed", "campaign__sites": [site] if site else []},
        rf"campaign\.sites: {message}",
    )
    for site, message in SITES.items()
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_struck(config_of, changes, message):
    memory: dict[bytes, bytes] = {}
    for job in (campaign.run, campaign.plan):
        with pytest.raises(InputError, match=message) as raised:
            job(config_of(run__job="campaign", **changes), Work(memory, SILENT))
        assert "\n" not in str(raised.value)
    assert not {key for key in memory if not key.startswith(b"campaign: ")}
