"""The story of job `campaign`."""

import copy
import re
from html import unescape
from io import StringIO

import pytest
from rich.console import Console

from afpjax.jobs.campaign.summary import summary
from afpjax.report.page import render
from afpjax.report.style import CSS

from .campaigns import cell, listed, masks, single
from .conftest import Reader

LAYERS, MAPS, BITS = (
    "Which layers are vulnerable",
    "Layer by layer and bit by bit",
    "Which bits are vulnerable",
)
RATES, LISTED, ENDS = "Rate by rate, device by device", "The listed faults", "How faults end"
CLASSES, WORST, METHOD = "Which class becomes which", "The worst faults", "How this was measured"


def test_headline_of_single_faults(read):
    assert read(single()).headline == (
        "One random bit flip changes the class of an image with a chance of 12.5 % [11.5, 13.5] "
        "in the weights; it is highest in block2.conv (25.0 %) and in the sign bit (7) (50.0 %)."
    )
    assert read({"job": "campaign"}).headline == "How vulnerable the network is"


def test_headline_names_what_cannot_be_told_apart(read):
    result = single()
    for each in result["cells"]:
        if each["layer"] == "all" and each["bit"] in (5, 6):
            each["sdc_interval"] = [0.3, 0.495]
        if each["layer"] == "block0.conv" and each["bit"] == "all":
            each["sdc_interval"] = [0.0, 0.241]
    assert read(result).headline.endswith(
        "highest in block2.conv (25.0 %, not told apart from 1 other) and in bits 5, 6 and the "
        "sign, 7 (up to 50.0 %)."
    )


def test_headline_of_two_targets_says_which_is_worse(read):
    headline = read(single(targets=("activations", "weights"))).headline
    assert "12.5 % [11.5, 13.5] in the activations and 6.2 % [5.2, 7.2] in the weights" in headline
    assert "highest among the activations in block2.conv" in headline


def test_headline_of_several_faults_at_once(read):
    result = single()
    result["design"] |= {"faults_per_trial": 3, "fault": "stuck-at-1"}
    assert read(result).headline.startswith("3 random bits stuck at 1 together change the class")


def test_headline_of_masks_and_of_listed_faults(read):
    assert read(masks()).headline.startswith(
        "Struck at a rate of 0.1 in each faulty bit of the weights of block2.conv alone, the worst "
        "layer, the network gives 10.0 % [9.0, 11.0] of the images another class"
    )
    on = read(masks(devices=("a", "b", "c"))).headline
    assert on.startswith("Struck at a rate of 0.1 (that of c) in")
    assert "alone" not in read(masks(layers=0)).headline
    assert read(listed()).headline.startswith(
        "Of the 2 listed faults, struck again, the worst changes the class of 87.5 %"
    )


def test_every_part_appears_where_its_data_are(read):
    end = [ENDS, CLASSES, WORST, METHOD]
    assert read(single()).headings == [LAYERS, MAPS, BITS, *end]
    assert read(masks()).headings == [LAYERS, RATES, *end]
    assert read(masks(layers=0)).headings == [RATES, *end]
    assert read(listed()).headings == [LISTED, ENDS, CLASSES, METHOD]
    without = {key: value for key, value in single().items() if key != "confusion"}
    assert CLASSES not in read(without).headings
    assert CLASSES not in read(single() | {"confusion": []}).headings
    bits_only = single()
    bits_only["cells"] = [c for c in bits_only["cells"] if c["layer"] == "all"]
    assert read(bits_only).headings == [BITS, *end]
    bits_only["cells"] = bits_only["cells"][-1:]
    assert read(bits_only).headings == end


def test_figures_by_what_there_is():
    every = render(single(targets=("weights", "activations")), {})
    assert sorted(every.figures) == [
        "bits.svg", "confusion.svg", "endings-activations.svg", "endings-weights.svg",
        "layer-bit-activations.svg", "layer-bit-weights.svg", "layers-activations.svg",
        "layers-weights.svg",
    ]  # fmt: skip
    assert every.html.count("<svg ") == len(every.figures)
    swept = set(render(masks(), {}).figures)
    assert {"rates-accuracy-weights.svg", "rates-sdc-weights.svg"} < swept
    assert "layer-rate-weights.svg" in swept
    on = set(render(masks(devices=("a", "b", "c")), {}).figures)
    assert "layer-rate-weights.svg" in on
    assert not any(name.startswith("rates-") for name in on)
    assert "devices-weights.svg" in render(masks(0, devices=("a", "b", "c")), {}).figures


def test_lead_says_what_was_struck_and_how_fast(read):
    text = read(single()).text
    assert "2,400 bit flips in weights in 24 cells, each met by the same 64 images." in text
    assert "A rate here is the share of pairs in weights." in text
    assert "Without faults 95.3 % of 64 images are right. Intervals are Wilson, 95 %." in text
    assert "10,898 images × trials a second; without faults, 7,282 images a second" in text
    assert "masks of random bit flips" in read(masks()).text


def test_layers_ranked_with_their_share_of_the_harm(read):
    """Rates 1 : 2 : 3 on sizes 3 : 2 : 1 are shares of 3, 4 and 3 tenths."""
    rows = read(single()).table("layer", "another class", "of all changes")
    assert [row[0] for row in rows] == ["block2.conv", "block1.conv", "block0.conv"]
    assert [row[2] for row in rows] == ["30.0 %", "40.0 %", "30.0 %"]
    assert rows[0][1] == "25.0 % [24.0, 26.0]"
    assert rows[0][-2:] == ["100", "1,000"]
    assert "of all changes" not in read(masks()).table("layer", "another class")[0]


def test_numbers_behind_the_heat_map(read):
    result = single()
    rows = read(result).table("layer (% of images)", "0", "1")
    assert [row[0] for row in rows] == ["block0.conv", "block1.conv", "block2.conv"]
    assert rows[2][-1] == "50.0 % [49.0, 51.0]"
    assert rows[0][1] == "0 % [0, 1.0]"
    result["cells"] = [c for c in result["cells"] if (c["layer"], c["bit"]) != ("block1.conv", 3)]
    assert read(result).table("layer (% of images)")[1][4] == "–"
    assert "0 is none seen, which leaves up to 1.0 %" in read(result).text


def test_bits_and_rates_as_tables(read):
    rows = read(single()).table("bit", "another class")
    assert [row[0] for row in rows] == [str(bit) for bit in reversed(range(8))]
    swept = read(masks()).table("layer", "struck at")
    assert len(swept) == 9
    assert swept[2][:3] == ["block0.conv", "rate 0.1", "3.3 % [2.3, 4.3]"]
    assert read(masks(devices=("a", "b", "c"))).table("layer", "struck at")[1][1] == "b, rate 0.01"


def test_endings_sum_to_one_and_flags_are_told(read):
    rows = read(single()).table("layer", "masked")
    assert rows[0][0] == "all"
    assert rows[3] == ["block2.conv", "37.5 %", "18.8 %", "25.0 %", "12.5 %", "43.8 %", "34.4 %",
                       "0 %"]  # fmt: skip
    assert read(listed()).table("site", "masked")[0][0] == "block0.conv/weights/14/7"
    assert "no logit moved" in read(single()).text


def test_confusion_up_to_twenty_classes_is_a_map(read):
    result = single()
    text = read(result).text
    assert "Of 100 changed classes, 90.0 % end in class 1" in text
    assert "from class 0 to class 1 (60.0 %)" in text
    rows = read(result).table("from → to")
    assert rows == [["0 → 1", "60", "60.0 %"], ["2 → 1", "30", "30.0 %"], ["1 → 0", "10", "10.0 %"]]
    result["confusion"].append({"from": 20, "to": 1, "count": 1})
    assert "confusion.svg" not in render(result, {}).figures
    assert read(result).table("from → to")[-1][0] == "20 → 1"


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
    result["worst"][0]["sites"] = ["a <b> $x/weights/1/2"]
    page = render(result, {}).html
    assert "'a <b> $x/weights/1/2'" in unescape(page)
    assert "<b> $x" not in page


def test_listed_faults_and_the_images_they_change(read):
    reader = read(listed())
    assert [row[0] for row in reader.table("fault", "another class")] == [
        "block1.conv/weights/3/6", "block0.conv/weights/14/7"
    ]  # fmt: skip
    assert reader.table("fault", "image") == [["block0.conv/weights/14/7", "5", "1 → 2"]]


def test_prediction_beside_what_was_measured(read):
    result = single()
    result["vulnerability"] = [
        {"layer": name, "bit": "all", "target": "weights", "predicted": value}
        for name, value in (("block0.conv", 3.0), ("block2.conv", 2.0), ("gone", 1.0))
    ]
    result["vulnerability_correlation"] = -0.25
    reader = read(result)
    rows = reader.table("", "layer", "bit", "target", "loss added")
    assert rows[0] == ["1", "block0.conv", "all", "weights", "3.00", "8.3 %", "2"]
    assert rows[1][-2:] == ["25.0 %", "1"]
    assert rows[2][-2:] == ["–", "–"]
    assert "Rank correlation between the two: −0.25." in reader.text
    result["vulnerability_correlation"] = {"weights": 0.5}
    assert "weights 0.50." in read(result).text


def test_method_says_why_the_level_is_higher(read):
    assert "computed at 96.6 %" in read(single()).text
    result = single()
    result["design"]["level"] = 0.95
    assert "computed at" not in read(result).text
    assert "SDC rate within ±10.0 points" in read(single()).text
    assert "accuracy within ±10.0 points" in read(masks()).text


@pytest.mark.parametrize("result", [single(), masks(), masks(0, devices="abc"), listed()])
def test_the_page_reaches_nowhere_and_says_no_none(result):
    before = copy.deepcopy(result)
    page = render(result, {"run": {"seed": 0}})
    assert result == before
    for outside in ("<script", "<link", "<img", 'src="http', 'href="http'):
        assert outside not in page.html
    assert not re.search(r"\b(nan|inf)\b", page.html, re.I)
    assert "None" not in Reader(page.html).text
    body = page.html[page.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)


def test_float_formats_name_the_exponent():
    result = single(bits=16, form="bfloat16")
    assert "bit (7 to 14: exponent, 15: sign)" in render(result, {}).html
    exponent = [cell("all", bit, 0.1 * (bit == 14)) for bit in (13, 14)]
    result["cells"] = [cell("all", "all", 0.05), *exponent]
    assert "bit 14 of the exponent" in Reader(render(result, {}).html).headline


def test_colours_are_defined_in_light_and_dark():
    used = set(re.findall(r"var\(--([\w-]+)\)", render(single(), {}).html))
    blocks = re.findall(r":root\{([^}]*)\}", CSS)
    assert {"heat-0", "heat-7"} <= used
    assert len(blocks) == 2
    for block in blocks:
        assert used <= set(re.findall(r"--([\w-]+):", block))


@pytest.mark.parametrize("result", [single(layers=12), single(targets=("weights", "activations"))])
def test_what_is_printed_fits_eighty_columns(result):
    """The interval's column once broke over two lines."""
    console = Console(width=80, record=True, file=StringIO())
    console.print(summary(result), markup=False)
    lines = console.export_text().splitlines()
    assert lines[0].split()[0] == "layer"
    assert ("target" in lines[0]) == (len(result["targets"]) > 1)
    for row in lines[1 : lines.index("")]:
        assert re.search(r" %  +\[\d+\.\d\d, \d+\.\d\d\]  +\d+\.\d %$", row)
    told = " ".join(" ".join(lines).split())
    assert f"faults in {' and '.join(result['targets'])}, 24 cells" in told


def published(rms=1.02):
    """A list's result: the sign bit's share is not what others found."""
    result = single()
    result["design"] |= {"name": "listed", "interval": "by image", "not_finite": "argmax"}
    part = {"faults": 7, "sdc_rate": 0.012, "sdc_interval": [0.01, 0.014], "published_rate": 0.0128}
    result["published"] = {
        "faults": 16627,
        "images": 250,
        "published_images": 10000,
        "confidence": 0.95,
        "whole": part | {"inside": True},
        "masked": {"rate": 0.18, "published_rate": 0.34},
        "scores": {"expected_images": 5, "faults": 240, "rms": rms, "mean": 0.1, "inside": 0.95},
        "bits_inside": 1,
        "bits": [
            part | {"bit": 30, "inside": True},
            part | {"bit": 31, "published_rate": 0.4, "inside": False},
        ],
        "layers_inside": 1,
        "layers": [part | {"layer": "block0.conv", "inside": True}],
    }
    return result


def test_what_others_measured_stands_beside_ours(read):
    page = read(published())
    assert page.headline.startswith("A bit flip of the list changes the class")
    text = page.text
    assert "What others measured of these faults" in page.headings
    assert "theirs have 1.3 % of another class, these 1.2 % [1.0, 1.4]" in text
    assert "inside the interval for 1 of 2 bits and for 1 of 1 layers" in text
    assert "240 faults" in text and "square of 1.02" in text and "95.0 % are within" in text
    assert "the first one wins" in text and "over images (the faults are given)" in text


def test_the_terminal_says_what_others_measured():
    result = published() | {"clean": {"accuracy": 0.9, "images": 250}, "targets": ["weights"]}
    console = Console(width=200, file=StringIO())
    with console.capture() as captured:
        console.print(summary(result))
    assert "Published: 1.280 %, 10,000 images; here 1.200 % [1.000, 1.400]." in captured.get()
    assert "1 of 2 bits, 1 of 1 layers" in captured.get() and "1.020" in captured.get()
