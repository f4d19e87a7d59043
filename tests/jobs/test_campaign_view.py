"""What job `campaign` says of its result."""

import re
from dataclasses import replace
from html import unescape

import pytest

from afpjax.jobs.campaign import view as drawing
from afpjax.jobs.campaign.cells import share
from afpjax.jobs.campaign.result import (
    ALL,
    CampaignResult,
    CellResult,
    Confusion,
    Predicted,
    TargetCorrelation,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.report.render import page

from .campaigns import listed, masks, published, single
from .kept import once, printed

view = once(drawing.view)
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


def figures(result: CampaignResult) -> set[str]:
    return set(page(view(result), "campaign", {}).figures)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (single(), ("12.5 % [11.5, 13.5]", "block2.conv (25.0 %)", "bit 7, the sign (50.0 %)")),
        (
            single(targets=("activations", "weights")),
            ("12.5 % [11.5, 13.5]", "6.2 % [5.2, 7.2] in the weights", "activations in block2"),
        ),
        (masks(), ("0.1", "weights of block2.conv alone", "10.0 % [9.0, 11.0]")),
        (masks(devices=("a", "b", "c")), ("0.1 (that of c)",)),
        (listed(), ("2 listed faults", "87.5 %", "block1.conv")),
    ],
    ids=["one target", "two targets", "masks", "devices", "listed"],
)
def test_the_headline_has_the_chance_and_where_it_is_highest(read, result, said):
    headline = read(result).headline
    assert all(words in headline for words in said), headline


def test_headline_names_what_cannot_be_told_apart(read):
    def closer(each: CellResult) -> CellResult:
        sdc = each.sdc_rate.value
        if each.layer == ALL and each.bit in (5, 6):
            return replace(each, sdc_rate=Estimate(sdc, 0.3, 0.495))
        if each.layer == "block0.conv" and each.bit == ALL:
            return replace(each, sdc_rate=Estimate(sdc, 0.0, 0.241))
        return each

    result = single()
    headline = read(replace(result, cells=[closer(each) for each in result.cells])).headline
    assert "block2.conv (25.0 %, not told apart from 1 other)" in headline
    assert "(50.0 %, not told apart from 2 others)" in headline


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
    targets = ("weights", "activations")
    expected = {f"{kind}-{t}.svg" for kind in ("endings", "layer-bit", "layers") for t in targets}
    assert figures(single(targets=targets)) == {*expected, "bits.svg", "confusion.svg"}
    swept, on = figures(masks()), figures(masks(devices=("a", "b", "c")))
    assert {"rates-accuracy-weights.svg", "rates-sdc-weights.svg"} < swept
    assert "layer-rate-weights.svg" in swept & on
    assert not any(name.startswith("rates-") for name in on)
    assert "devices-weights.svg" in figures(masks(0, devices=("a", "b", "c")))


def test_layers_ranked_with_their_share_of_the_harm(read):
    """Rates 1 : 2 : 3 on sizes 3 : 2 : 1 are shares of 3, 4 and 3 tenths."""
    rows = read(single()).table("layer", "another class", "of all changes")
    assert [row[0] for row in rows] == ["block2.conv", "block1.conv", "block0.conv"]
    assert [row[2] for row in rows] == ["30.0 %", "40.0 %", "30.0 %"]
    assert rows[0][1] == "25.0 % [24.0, 26.0]"
    assert rows[0][-2:] == ["100", "1,000"]
    assert len(read(masks()).table("layer", "another class")[0]) == 4


def test_numbers_behind_the_heat_map_and_of_the_bits(read):
    result = single()
    rows = read(result).table("layer (% of images)", "0", "1")
    assert [row[0] for row in rows] == ["block0.conv", "block1.conv", "block2.conv"]
    assert rows[2][-1] == "50.0 % [49.0, 51.0]"
    assert rows[0][1] == "0 % [0, 1.0]"
    fewer = [each for each in result.cells if (each.layer, each.bit) != ("block1.conv", 3)]
    assert read(replace(result, cells=fewer)).table("layer (% of images)")[1][4] == "–"
    bits = read(result).table("bit", "another class")
    assert [row[0] for row in bits] == [str(bit) for bit in reversed(range(8))]


def test_rates_as_a_table(read):
    swept = read(masks()).table("layer", "struck at")
    assert len(swept) == 9
    found = {(row[0], row[1]): row[2] for row in swept}
    assert found["block0.conv", "weights, rate 0.1"] == "3.3 % [2.3, 4.3]"
    on = read(masks(devices=("a", "b", "c"))).table("layer", "struck at")
    assert {row[1] for row in on} >= {"weights, b, rate 0.01"}


def test_endings_are_told_layer_by_layer(read):
    rows = read(single()).table("layer", "masked")
    assert rows[0][0] == "all"
    shares = ["37.5 %", "18.8 %", "25.0 %", "12.5 %", "43.8 %", "34.4 %", "0 %"]
    assert rows[3] == ["block2.conv", *shares]
    assert read(listed()).table("fault", "masked")[0][0] == "block0.conv/weights/14/7"


def test_confusion_up_to_twenty_classes_is_a_map(read):
    result = single()
    rows = read(result).table("from → to")
    assert rows == [["0 → 1", "60", "60.0 %"], ["2 → 1", "30", "30.0 %"], ["1 → 0", "10", "10.0 %"]]
    more = replace(result, confusion=[*result.confusion, Confusion(before=20, after=1, count=1)])
    assert "confusion.svg" in figures(result) and "confusion.svg" not in figures(more)
    assert read(more).table("from → to")[-1][0] == "20 → 1"


def test_worst_faults_and_how_to_strike_them_again(read):
    reader = read(single())
    assert "--campaign.design listed --campaign.sites block0.conv/weights/14/7" in reader.text
    rows = reader.table("images changed", "layer")
    assert rows[0][-1] == "block0.conv/weights/14/7"
    assert rows[1] == ["50.0 %", "block1.conv", "6", "activations", "trial 9"]
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
    correlation = [TargetCorrelation("weights", 3, -0.25)]
    reader = read(
        replace(single(), vulnerability=rows, vulnerability_correlation=correlation),
    )
    said = reader.table("", "layer", "bit", "target", "loss added")
    assert said[0] == ["1", "block0.conv", "all", "weights", "3.00", "8.3 %", "3"]
    assert [row[-1] for row in said] == ["3", "1", "2"]
    assert "weights −0.25." in reader.text


def test_method_says_why_the_level_is_higher(read):
    assert "at 96.6 %" in read(single()).text
    same = replace(single(), design=replace(single().design, level=0.95))
    assert "stop as soon as" not in read(same).text


def test_float_formats_name_the_exponent(read):
    assert "bit (7 to 14: exponent, 15: sign)" in read(single(bits=16, form="bfloat16")).text


@pytest.mark.parametrize("result", [single(layers=12), single(targets=("weights", "activations"))])
def test_what_is_printed_fits_eighty_columns(result):
    """The interval's column once broke over two lines."""
    lines = printed(view(result)).splitlines()
    assert lines[0].split()[0] == "layer"
    assert ("target" in lines[0]) == (len(result.targets) > 1)
    for row in lines[1:13]:
        assert re.search(r" %  *\[[\d.]+, [\d.]+\]  +\d+\.\d %$", row.rstrip())
    assert [row.split()[0] for row in lines[1:13]].count("all") >= len(result.targets)
    assert f"12 of {len(result.cells)} cells" in " ".join(lines)


def test_what_others_measured_stands_beside_ours(read):
    reader, text = read(published()), " ".join(printed(view(published()), 200).split())
    for said in (reader.text, text):
        assert "1.28 % of their" in said and "1.20 % (1.00 % to 1.40 %)" in said
        assert "1 of 2 bits" in said and "1 of 1 layers" in said
        assert "240 faults" in said and "1.02" in said and "95.0 %" in said
    rows = reader.table("bit", "theirs")
    assert [(row[0], row[3]) for row in rows] == [("31", "no"), ("30", "yes")]
    assert "are within" not in read(published(rms=None)).text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0, "0"), (1e-7, "<0.001"), (1.25e-5, "0.0013"), (0.0099, "0.99"), (0.01, "1.0"),
     (0.382, "38.2"), (1, "100.0")],
)  # fmt: skip
def test_shares_never_say_zero_for_what_is_not(fraction, text):
    assert share(fraction) == f"{text}\u00a0%"
