"""What job `campaign` says of its result."""

import io
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console

from afpjax.jobs.campaign.cells import share
from afpjax.jobs.campaign.result import (
    ALL,
    CampaignResult,
    CellResult,
    Confusion,
    MasksResult,
    Predicted,
    TargetCorrelation,
)
from afpjax.jobs.campaign.view import view
from afpjax.jobs.shared.result import Estimate, plain
from afpjax.jobs.shared.result import read as read_result
from afpjax.report.render import page, terminal

from .campaigns import listed, masks, published, single

GOLDEN = Path(__file__).parents[1] / "golden"
LAYERS, MAPS, BITS = (
    "Which layers are vulnerable",
    "Layer by layer and bit by bit",
    "Which bits are vulnerable",
)
RATES, LISTED, ENDS = "Rate by rate, device by device", "The listed faults", "How faults end"
CLASSES, WORST, METHOD = "Which class becomes which", "The worst faults", "How this was measured"


@pytest.fixture
def read(shown):
    return lambda result: shown(view(result))


def with_cells(result: CampaignResult, change) -> CampaignResult:
    return replace(result, cells=[change(each) for each in result.cells])


def printed(result: CampaignResult, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal(view(result)))
    return console.export_text().replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("campaign", CampaignResult),
        ("campaign-bernoulli", MasksResult),
        ("campaign-listed", CampaignResult),
    ],
)
def test_a_result_is_read_back_as_it_was_written(name, kind):
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    speed = {"inferences_per_second": 3.5, "clean_inferences_per_second": 7.5, "passes": 9}
    own = {key: value for key, value in record.items() if key not in ("job", "seed")}
    own["throughput"] = speed
    again = plain(read_result(kind, own))
    assert again == own
    assert list(again) == list(own)


def test_headline_of_single_faults(read):
    headline = read(single()).headline
    assert "with a chance of 12.5 % [11.5, 13.5] in the weights" in headline
    assert "block2.conv (25.0 %)" in headline
    assert "bit 7, the sign (50.0 %)" in headline


def test_headline_names_what_cannot_be_told_apart(read):
    def closer(each: CellResult) -> CellResult:
        sdc = each.sdc_rate.value
        if each.layer == ALL and each.bit in (5, 6):
            return replace(each, sdc_rate=Estimate(sdc, 0.3, 0.495))
        if each.layer == "block0.conv" and each.bit == ALL:
            return replace(each, sdc_rate=Estimate(sdc, 0.0, 0.241))
        return each

    headline = read(with_cells(single(), closer)).headline
    assert "block2.conv (25.0 %, not told apart from 1 other)" in headline
    assert "(50.0 %, not told apart from 2 others)" in headline


def test_headline_of_two_targets_says_which_is_worse(read):
    headline = read(single(targets=("activations", "weights"))).headline
    assert "12.5 % [11.5, 13.5] in the activations and 6.2 % [5.2, 7.2] in the weights" in headline
    assert "highest among the activations in block2.conv" in headline


def test_headline_of_several_faults_masks_and_listed_faults(read):
    result = single()
    design = replace(result.design, faults_per_trial=3, fault="stuck-at-1")
    assert read(replace(result, design=design)).headline.startswith("3 random bits stuck at 1")
    swept = read(masks()).headline
    assert "a rate of 0.1 in the weights of block2.conv alone" in swept
    assert "10.0 % [9.0, 11.0]" in swept
    assert "a rate of 0.1 (that of c)" in read(masks(devices=("a", "b", "c"))).headline
    assert "alone" not in read(masks(layers=0)).headline
    named = read(listed()).headline
    assert "2 listed faults" in named and "87.5 %" in named and "block1.conv" in named


def test_every_part_appears_where_its_data_are(read):
    end = [ENDS, CLASSES, WORST, METHOD]
    assert read(single()).headings == [LAYERS, MAPS, BITS, *end]
    assert read(masks()).headings == [LAYERS, RATES, *end]
    assert read(masks(layers=0)).headings == [RATES, *end]
    assert read(listed()).headings == [LISTED, ENDS, CLASSES, METHOD]
    assert CLASSES not in read(replace(single(), confusion=[])).headings
    bits_only = [each for each in single().cells if each.layer == ALL]
    assert read(replace(single(), cells=bits_only)).headings == [BITS, *end]
    assert read(replace(single(), cells=bits_only[-1:])).headings == end


def test_figures_by_what_there_is():
    every = page(view(single(targets=("weights", "activations"))), "campaign", {})
    assert sorted(every.figures) == [
        "bits.svg", "confusion.svg", "endings-activations.svg", "endings-weights.svg",
        "layer-bit-activations.svg", "layer-bit-weights.svg", "layers-activations.svg",
        "layers-weights.svg",
    ]  # fmt: skip
    assert every.html.count("<svg ") == len(every.figures)
    swept = set(page(view(masks()), "campaign", {}).figures)
    assert {"rates-accuracy-weights.svg", "rates-sdc-weights.svg"} < swept
    assert "layer-rate-weights.svg" in swept
    on = set(page(view(masks(devices=("a", "b", "c"))), "campaign", {}).figures)
    assert "layer-rate-weights.svg" in on
    assert not any(name.startswith("rates-") for name in on)
    whole = page(view(masks(0, devices=("a", "b", "c"))), "campaign", {}).figures
    assert "devices-weights.svg" in whole


def test_lead_says_what_was_struck_and_how_fast(read):
    text = read(single()).text
    assert "2,400 bit flips in weights, 24 cells, each met by the same 64 images" in text
    assert "A rate here is the share of pairs in weights." in text
    assert "95.3 %" in text
    assert "10,898 images × trials a second; without faults, 7,282 images a second" in text
    assert "masks of random bit flips" in read(masks()).text


def test_layers_ranked_with_their_share_of_the_harm(read):
    """Rates 1 : 2 : 3 on sizes 3 : 2 : 1 are shares of 3, 4 and 3 tenths."""
    rows = read(single()).table("layer", "another class", "of all changes")
    assert [row[0] for row in rows] == ["block2.conv", "block1.conv", "block0.conv"]
    assert [row[2] for row in rows] == ["30.0 %", "40.0 %", "30.0 %"]
    assert rows[0][1] == "25.0 % [24.0, 26.0]"
    assert rows[0][-2:] == ["100", "1,000"]
    assert len(read(masks()).table("layer", "another class")[0]) == 4


def test_numbers_behind_the_heat_map(read):
    result = single()
    rows = read(result).table("layer (% of images)", "0", "1")
    assert [row[0] for row in rows] == ["block0.conv", "block1.conv", "block2.conv"]
    assert rows[2][-1] == "50.0 % [49.0, 51.0]"
    assert rows[0][1] == "0 % [0, 1.0]"
    fewer = [each for each in result.cells if (each.layer, each.bit) != ("block1.conv", 3)]
    lacking = read(replace(result, cells=fewer))
    assert lacking.table("layer (% of images)")[1][4] == "–"
    assert "leaves up to 1.0 %" in lacking.text


def test_bits_and_rates_as_tables(read):
    rows = read(single()).table("bit", "another class")
    assert [row[0] for row in rows] == [str(bit) for bit in reversed(range(8))]
    swept = read(masks()).table("layer", "struck at")
    assert len(swept) == 9
    found = {(row[0], row[1]): row[2] for row in swept}
    assert found["block0.conv", "weights, rate 0.1"] == "3.3 % [2.3, 4.3]"
    on = read(masks(devices=("a", "b", "c"))).table("layer", "struck at")
    assert {row[1] for row in on} >= {"weights, b, rate 0.01"}


def test_endings_sum_to_one_and_flags_are_told(read):
    rows = read(single()).table("layer", "masked")
    assert rows[0][0] == "all"
    assert rows[3] == ["block2.conv", "37.5 %", "18.8 %", "25.0 %", "12.5 %", "43.8 %", "34.4 %",
                       "0 %"]  # fmt: skip
    assert read(listed()).table("fault", "masked")[0][0] == "block0.conv/weights/14/7"


def test_confusion_up_to_twenty_classes_is_a_map(read):
    result = single()
    text = read(result).text
    assert "Of 100 changed classes, 90.0 % end in class 1" in text
    assert "from class 0 to class 1 (60.0 %)" in text
    rows = read(result).table("from → to")
    assert rows == [["0 → 1", "60", "60.0 %"], ["2 → 1", "30", "30.0 %"], ["1 → 0", "10", "10.0 %"]]
    more = replace(result, confusion=[*result.confusion, Confusion(before=20, after=1, count=1)])
    assert "confusion.svg" not in page(view(more), "campaign", {}).figures
    assert read(more).table("from → to")[-1][0] == "20 → 1"


def test_worst_faults_and_how_to_strike_them_again(read):
    reader = read(single())
    assert "--campaign.design listed --campaign.sites block0.conv/weights/14/7" in reader.text
    rows = reader.table("images changed", "layer")
    assert rows[0][-1] == "block0.conv/weights/14/7"
    assert rows[1] == ["50.0 %", "block1.conv", "6", "activations", "trial 9"]
    assert "same experiment and seed" in reader.text
    swept = read(masks())
    assert "--campaign.sites" not in swept.text
    assert swept.table("images changed")[0][3:] == ["weights, rate 0.1", "trial 3"]


def test_names_are_quoted_for_the_shell_and_escaped():
    result = single()
    assert result.worst
    odd = replace(result.worst[0], sites=["a <b> $x/weights/1/2"])
    html = page(view(replace(result, worst=[odd])), "campaign", {}).html
    assert "'a <b> $x/weights/1/2'" in unescape(html)
    assert "<b> $x" not in html


def test_listed_faults_and_the_images_they_change(read):
    reader = read(listed())
    assert [row[0] for row in reader.table("fault", "another class")] == [
        "block1.conv/weights/3/6", "block0.conv/weights/14/7"
    ]  # fmt: skip
    assert reader.table("fault", "image") == [["block0.conv/weights/14/7", "5", "1 → 2"]]


def test_prediction_beside_what_was_measured(read):
    rows = [
        Predicted(layer=f"block{n}.conv", bit=ALL, target="weights", predicted=loss, sdc_rate=sdc)
        for n, loss, sdc in ((0, 3.0, 0.083), (2, 2.0, 0.25), (1, 1.0, 0.1))
    ]
    result = replace(
        single(),
        vulnerability=rows,
        vulnerability_correlation=[TargetCorrelation("weights", 3, -0.25)],
    )
    reader = read(result)
    said = reader.table("", "layer", "bit", "target", "loss added")
    assert said[0] == ["1", "block0.conv", "all", "weights", "3.00", "8.3 %", "3"]
    assert [row[-1] for row in said] == ["3", "1", "2"]
    assert "weights −0.25." in reader.text


def test_method_says_why_the_level_is_higher(read):
    assert "at 96.6 %" in read(single()).text
    same = replace(single(), design=replace(single().design, level=0.95))
    assert "stop as soon as" not in read(same).text
    assert "SDC rate within ±10.0 points" in read(single()).text
    assert "accuracy within ±10.0 points" in read(masks()).text


@pytest.mark.parametrize("result", [single(), masks(), masks(0, devices="abc"), listed()])
def test_the_page_says_no_none_and_no_tag(result, read):
    html = page(view(result), "campaign", {"run": {"seed": 0}}).html
    assert not re.search(r"\b(nan|inf)\b", html)
    text = read(result).text
    assert "None" not in text
    assert not re.search(r"</?(small|br|span|b)\b", text)
    body = html[html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)


def test_float_formats_name_the_exponent():
    html = page(view(single(bits=16, form="bfloat16")), "campaign", {}).html
    assert "bit (7 to 14: exponent, 15: sign)" in html


@pytest.mark.parametrize("result", [single(layers=12), single(targets=("weights", "activations"))])
def test_what_is_printed_fits_eighty_columns(result):
    """The interval's column once broke over two lines."""
    lines = printed(result).splitlines()
    assert lines[0].split()[0] == "layer"
    assert ("target" in lines[0]) == (len(result.targets) > 1)
    for row in lines[1:13]:
        assert re.search(r" %  *\[[\d.]+, [\d.]+\]  +\d+\.\d %$", row)
    assert [row.split()[0] for row in lines[1:13]].count("all") >= len(result.targets)
    assert f"12 of {len(result.cells)} cells" in " ".join(lines)


def test_what_others_measured_stands_beside_ours(read):
    reader, text = read(published()), " ".join(printed(published(), 200).split())
    for said in (reader.text, text):
        assert "1.28 % of their (fault, image) pairs" in said
        assert "1.20 % (1.00 % to 1.40 %)" in said
        assert "1 of 2 bits and for 1 of 1 layers" in said
        assert "240 faults" in said and "square of 1.02" in said and "95.0 % are within" in said
    assert [row[0] for row in reader.table("bit", "theirs")] == ["31", "30"]
    assert [row[3] for row in reader.table("bit", "theirs")] == ["no", "yes"]
    assert "are within" not in read(published(rms=None)).text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, "0"), (1e-7, "<0.001"), (1.25e-5, "0.0013"), (0.0099, "0.99"), (0.01, "1.0"),
     (0.382, "38.2"), (1, "100.0")],
)  # fmt: skip
def test_shares_never_say_zero_for_what_is_not(fraction, text):
    assert share(fraction) == f"{text}\u00a0%"
