"""The story of job `distribute`: its sentence, its parts, and what it claims from the numbers."""

import re

import pytest

from afpjax.report.page import render

from .conftest import Reader
from .distributions import OPTIONAL, SUBSETS, distribution, near, row_of

PARTS = {
    "methods": "What is left when devices are lost",
    "curve": "Robustness against memory",
    "search": "Thresholds chosen by search",
    "placement": "Which neurons live where",
    "ablation": "What each importance score is worth",
    "normalisations": "Scores on one scale",
    "substitutes": "What stands in for a lost neuron",
    "expected": "When devices fail by chance",
    "flips": "Bit-flips and lost devices together",
    "resources": "Memory, energy and throughput",
    "scores": "How this was measured",
}


#: What no part is made of; drawing all of them takes seconds.
COMMON = ("job", "model", "data", "format", "clean", "thresholds", "substitute", "classifier")
COMMON += ("board", "throughput", "seconds")


def only(result, *keys):
    """What all parts share, and what these are made of."""
    return {key: value for key, value in result.items() if key in (*COMMON, *keys)}


@pytest.fixture(scope="module")
def whole():
    return Reader(render(distribution(), {}).html)


def test_headline_says_what_is_kept_at_which_memory_beside_lop(whole):
    assert whole.headline == (
        "With one of 4 devices lost, RobustDiCE has 82.3 % [80.3, 84.3] of the images right "
        "(91.5 % with none lost) where a device holds up to 59 % of the weights; contiguous "
        "slices without replicas (LOP) have 14.1 % [12.1, 16.1] with 25 %."
    )


def test_headline_says_when_the_two_are_not_told_apart(read):
    result = only(distribution(devices=(4,)), "methods")
    row_of(result, "lop")["difference_interval"] = [-0.01, 0.9]
    assert read(result).headline.endswith("with 25 %; these images do not tell the two apart.")


@pytest.mark.parametrize("left", ["lop", "robustdice"])
def test_headline_without_one_of_the_two(read, left):
    result = only(distribution(devices=(4,)), "methods")
    result["methods"] = [row for row in result["methods"] if row["method"] != left]
    headline = read(result).headline
    assert "LOP" not in headline
    assert ("82.3 %" in headline) == (left == "lop")


def test_no_loss_is_no_headline(read):
    """Losing none of the devices may stand first in the result; it is not what is asked."""
    result = only(distribution(devices=(4,)), "methods")
    none = row_of(result, "robustdice") | {"failed": 0, "accuracy": 0.915, "worst_failed": []}
    result["methods"] = [none, *result["methods"]]
    reader = read(result)
    assert reader.headline.startswith("With one of 4 devices lost, RobustDiCE has 82.3 %")
    assert "none of 4 lost" in reader.text


def test_every_part_appears(whole):
    assert whole.headings == list(PARTS.values())


@pytest.mark.parametrize("key", PARTS)
def test_a_part_appears_where_its_data_is_and_nowhere_else(read, key):
    """But for `methods`, which the figures of others look into for the same devices lost."""
    assert read(only(distribution(devices=(4,)), key)).headings == [PARTS[key]]


def test_a_result_of_nothing_has_a_page(read):
    assert read({"job": "distribute"}).headline == "What is left when devices are lost"


def test_optional_blocks_are_optional(read):
    headings = read(distribution((2,), optional=False)).headings
    assert headings == [title for key, title in PARTS.items() if key not in OPTIONAL]


def test_lead_says_what_was_measured(read, whole):
    text = whole.text
    assert "384 held-out images, 91.5 % of them right with all devices" in text
    assert "by l1 + Taylor + JSD (min-max, threshold 0.1). A lost neuron gives zero." in text
    assert "9,312 images × sets of lost devices a second; with no device lost, 7,282" in text
    mixed = only(distribution(), "scores") | {"thresholds": [0.3, 0.05, 0.1], "substitute": "mean"}
    said = read(mixed).text
    assert "threshold 0.05 to 0.3" in said
    assert "gives its mean over calibration images" in said


def test_numbers_of_every_method(read):
    result = only(distribution(devices=(4,)), "methods")
    rows = read(result).table("method", "lost", "images right", "worst", "lost then")
    assert len(rows) == len(result["methods"])
    assert rows[0][:3] == ["RobustDiCE", "1", "82.3 % [80.3, 84.3]"]
    assert rows[0][3:9] == ["72.3 %", "1", "87.3 %", "4", "6", "59.4 %"]
    lop = next(row for row in rows if row[0] == "LOP")
    assert lop[9:] == ["17.1 %", "68.2 [65.7, 70.7]"]
    two = next(row for row in rows if row[:2] == ["RobustDiCE", "2"])
    assert (two[4], two[6]) == ("12", "34")  # devices 1 and 2, devices 3 and 4


def test_sampled_sets_are_said_to_be_so(read):
    result = only(distribution(devices=(4,)), "methods")
    assert "means over all sets" in read(result).text
    for row in result["methods"]:
        row |= {"sampled": True, "sets": 4096}
    reader = read(result)
    assert "means over a sample of the sets" in reader.text
    assert reader.table("method", "lost")[0][7] == "4,096 drawn"


def test_differences_are_grouped_by_memory_and_keep_their_sign(whole):
    text = whole.text
    assert (
        "at the same memory (59.4 %): 28.2 points [25.7, 30.7] more than top-k replication and "
        "55.4 points [52.9, 57.9] more than its replicas for random neurons"
    ) in text
    assert "at another memory: 68.2 points [65.7, 70.7] more than LOP (25 %)" in text
    assert "9.2 points [6.7, 11.7] less than full replication (100 %)" in text


def test_a_difference_that_may_be_none_is_no_claim(read):
    result = only(distribution(devices=(4,)), "methods")
    row_of(result, "topk").update(difference=0.01, difference_interval=[-0.02, 0.04])
    said = read(result).text
    assert "neither more nor less than top-k replication for certain (1.0 points [−2.0, 4.0])" in (
        said
    )


def test_methods_that_no_image_tells_apart_keep_as_much(read):
    """A difference of nothing, for certain, was once said to be uncertain."""
    result = only(distribution(devices=(4,)), "methods")
    row_of(result, "topk").update(difference=0.0, difference_interval=[0, 0.0])
    assert "(59.4 %): as much as top-k replication and 55.4 points" in read(result).text


def test_scores_that_are_worth_the_same_have_no_best(read):
    result = only(distribution(), "ablation")
    for row in result["ablation"]:
        row |= {"accuracy": 0.8, "accuracy_interval": near(0.8)}
    assert "1 of 4 lost: all have 80.0 % right." in read(result).text


def test_cdc_is_explained_where_it_is(read, whole):
    assert "last is a spare" in whole.text
    assert "spare" not in read(only(distribution(devices=(2,)), "methods")).text


def test_more_losses_than_fit_are_said_to_be_left_out(read):
    for devices, said in ((10, True), (9, False)):
        text = read(only(distribution(devices=(devices,)), "methods")).text
        assert (f"The first 8 of {devices - 1} losses." in text) == said


def test_the_seven_rows_of_the_ablation(whole):
    rows = whole.table("scores", "threshold", "memory")
    assert [row[0] for row in rows] == [
        "l1", "Taylor", "JSD", "l1 + Taylor", "l1 + JSD", "Taylor + JSD", "l1 + Taylor + JSD"
    ]  # fmt: skip
    assert rows[0] == ["l1", "0.1", "59.4 %", "70.0 % [68.0, 72.0]"]


@pytest.mark.parametrize(
    ("wide", "said"),
    [
        (0.0, "82.0 %; its interval is apart from all others."),
        (0.015, "82.0 %; its interval meets that of Taylor + JSD."),
        (0.025, "82.0 %; its interval meets that of l1 + JSD; Taylor + JSD."),
        (0.5, "82.0 %; its interval meets all others'."),
    ],
)
def test_what_is_said_of_the_ablation_follows_from_its_intervals(read, wide, said):
    """Rows are two points apart."""
    result = only(distribution(), "ablation")
    for row in result["ablation"]:
        row["accuracy_interval"] = near(row["accuracy"], wide)
    assert f"1 of 4 lost: highest with l1 + Taylor + JSD, {said}" in read(result).text


@pytest.mark.parametrize(
    ("name", "cell"),
    [("alexnet", "52.4 %"), ("nets/vgg16-bn.onnx", "72.5 %"), ("convnext_tiny", "76.8 %")],
)
def test_the_paper_stands_beside_its_own_networks(read, name, cell):
    result = only(distribution(), "ablation", "resources")
    result["model"]["name"] = name
    reader = read(result)
    rows = reader.table("scores", "threshold", "memory", "images right", "paper")
    assert [row[0] for row in rows][-1] == "l1 + Taylor + JSD"
    assert rows[-1][-1] == cell
    assert len(rows) == len(SUBSETS)
    resources = reader.table("method", "devices", "MB", "paper's")
    full = {row[3] for row in resources if row[0] == "Full replication"}
    assert len(full) == 1  # the same however many devices


@pytest.mark.parametrize("name", ["resnet20", "alexnet_small", "toy"])
def test_the_paper_stands_beside_no_other_network(read, name):
    result = only(distribution(), "ablation", "resources")
    result["model"]["name"] = name
    reader = read(result)
    assert "paper" not in reader.table("scores")[0]
    assert "paper's" not in [cell for table in reader.tables for cell in table[0]]
    assert "ImageNet" not in reader.text


def test_scales_and_substitutes(whole):
    reader = whole
    scales = reader.table("scale", "threshold", "memory")
    assert scales[1] == ["z-score", "0.2", "59.3 %", "72.3 % [70.3, 74.3]"]
    assert [row[0] for row in reader.table("a lost neuron gives")] == [
        "zero", "its mean", "its layer's bias"
    ]  # fmt: skip
    assert (
        "its mean keeps 5.0 points [3.0, 7.0] more than zero; its layer's bias keeps neither"
        in (reader.text)
    )


def test_substitutes_without_differences_are_compared_by_their_intervals(read):
    result = only(distribution(), "substitutes")
    for row in result["substitutes"]:
        row.pop("difference_interval", None)
    assert "highest with its mean, 87.3 %; its interval is apart from all others." in (
        read(result).text
    )


@pytest.mark.in_ci("devices0-True", "devices1-False")
@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("devices", [(2,), (6, 3)])
def test_the_page_reaches_nowhere_and_has_its_figures(devices, optional):
    result = distribution(devices, optional=optional)
    page = render(result, {"run": {"seed": 0}})
    assert page.html.count("<svg ") == len(page.figures)
    for count in devices:
        assert f"methods-{count}.svg" in page.figures
    for outside in ("<script", "<link", "<img", "http-equiv", 'src="http', 'href="http'):
        assert outside not in page.html
    assert not re.search(r"\b(nan|inf)\b", page.html, re.I)
    assert "None" not in Reader(page.html).text
    body = page.html[page.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)


def test_nothing_depends_on_when():
    result = only(distribution((2,)), "methods", "curve", "scores")
    assert render({**result, "seconds": 1e6}, {}) == render(result, {})


@pytest.mark.slow
def test_deep_and_wide_networks_have_a_page_of_moderate_size():
    deep = distribution((8, 4, 2), layers=53, neurons=4096)
    page = render(deep, {})
    assert len(page.html) < 1_000_000
    assert "copies.svg" in page.figures
    assert max(map(len, page.figures.values())) < 100_000


def test_names_are_escaped():
    result = distribution((3,))
    name = '<b>&"x'
    result["placement"][0]["layer"] = result["board"]["name"] = name
    for row in result["methods"]:
        row["method"] = name if row["method"] == "random" else row["method"]
    page = render(result, {}).html
    assert name not in page
    assert name in Reader(page).text


def test_a_method_that_the_page_does_not_know_is_shown_all_the_same(read):
    result = distribution((3,))
    for row in (*result["methods"], *result["resources"], *result["expected"]):
        row["method"] = "new" if row["method"] == "replication" else row["method"]
    rows = read(result).table("method", "devices", "MB")
    assert rows[-1][0] == "new"
