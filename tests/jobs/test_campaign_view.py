"""What job `campaign` says of its result."""

import re
from dataclasses import replace
from html import unescape

import pytest

from afpjax.jobs.campaign import view as drawing
from afpjax.jobs.campaign.cells import share
from afpjax.jobs.campaign.result import ALL, CampaignResult, Confusion
from afpjax.jobs.shared.result import Estimate
from afpjax.report.render import page

from .campaigns import RATES, masks, published, single
from .kept import kept, once, printed

view = once(drawing.view)
NAMES = ("one", "two", "three")
LAYERS, MAPS, BITS = (
    "Which layers are vulnerable",
    "Layer by layer and bit by bit",
    "Which bits are vulnerable",
)
RATED, LISTED, ENDS = "Rate by rate, device by device", "The listed faults", "How faults end"
CLASSES, WORST, METHOD = "Which class becomes which", "The worst faults", "How this was measured"


@pytest.fixture
def read(shown):
    return lambda result: shown(view(result))


def figures(result: CampaignResult) -> set[str]:
    return set(page(view(result), "campaign", {}).figures)


def percents(estimate: Estimate) -> str:
    """As on a page, but for what is smaller than 0.1 %."""
    value, low, high = (f"{100 * end:.1f}" for end in (estimate.value, *estimate.bounds))
    return f"{value} % [{low if estimate.low else 0}, {high}]"


def test_the_headline_has_the_chance_and_where_it_is_highest(read):
    both = single("activations", "weights")
    whole = [each for each in both.cells if each.layer == each.bit == ALL]
    headline = read(both).headline
    assert all(percents(each.sdc_rate) in headline for each in whole)
    assert "among the activations in" in headline and "bit 15, the sign" in headline
    swept = read(masks(NAMES)).headline
    assert "0.1" in swept and "in the weights of three alone" in swept
    assert "10.0 % [9.0, 11.0]" in swept
    assert "0.1 (that of c)" in read(masks(devices="abc")).headline
    listed = kept("campaign-listed")
    most = max(each.sdc_rate.value for each in listed.cells)
    assert share(most).replace("\u00a0", " ") in read(listed).headline


def test_headline_names_what_cannot_be_told_apart(read):
    """The worst layer from one, whose interval reaches above it, and from no other."""
    result = masks(NAMES)
    highest = [each for each in result.cells if each.rate == RATES[-1]]
    near = replace(highest[0], sdc_rate=Estimate(0.05, 0.02, 0.12))
    cells = [near if each == highest[0] else each for each in result.cells]
    assert "not told apart from 1 other" in read(replace(result, cells=cells)).headline
    assert "not told apart" not in read(result).headline


def test_every_part_appears_where_its_data_are(read):
    own = read(single()).headings
    assert own[:6] == [LAYERS, MAPS, BITS, ENDS, CLASSES, WORST] and own[-1] == METHOD
    assert read(masks(NAMES)).headings[:2] == [LAYERS, RATED]
    assert read(masks()).headings[0] == RATED
    assert read(kept("campaign-listed")).headings == [LISTED, ENDS, CLASSES, METHOD]
    assert CLASSES not in read(replace(single(), confusion=[])).headings
    bits_only = [each for each in single().cells if each.layer == ALL]
    assert read(replace(single(), cells=bits_only)).headings[0] == BITS


def test_figures_by_what_there_is():
    targets = ("weights", "activations")
    expected = {f"{kind}-{t}.svg" for kind in ("endings", "layer-bit", "layers") for t in targets}
    assert figures(single(*targets)) == {*expected, "bits.svg", "confusion.svg"}
    swept, on = figures(masks(NAMES)), figures(masks(NAMES, devices="abc"))
    assert {"rates-accuracy-weights.svg", "rates-sdc-weights.svg"} < swept
    assert "layer-rate-weights.svg" in swept & on
    assert not any(name.startswith("rates-") for name in on)
    assert "devices-weights.svg" in figures(masks(devices="abc"))


def test_layers_ranked_with_their_share_of_the_harm(read):
    """A layer's rate times how many faults it has, of all layers' sum."""
    cells = [each for each in single().cells if each.layer != ALL and each.bit == ALL]
    cells.sort(key=lambda each: -each.sdc_rate.value)
    harm = [each.sdc_rate.value * (each.population or 0) for each in cells]
    rows = read(single()).table("layer", "another class", "of all changes")
    for row, each, own in zip(rows, cells, harm, strict=True):
        assert row[:2] == [each.layer, percents(each.sdc_rate)]
        assert float(row[2].split()[0]) == pytest.approx(100 * own / sum(harm), abs=0.051)
        assert row[-2:] == [f"{each.trials:,}", f"{each.population:,}"]
    assert len(read(masks(NAMES)).table("layer", "another class")[0]) == 4


def test_numbers_behind_the_heat_map_and_of_the_bits(read):
    result = single()
    rows = read(result).table("layer (% of images)", "0", "1")
    layers = [layer.name for layer in result.model.layers]
    assert [row[0] for row in rows] == layers
    by_place = {(each.layer, each.bit): each.sdc_rate for each in result.cells}
    assert rows[0][1] == "0 % [0, 2.0]" and by_place[layers[0], 0].value == 0
    assert rows[-1][-1] == percents(by_place[layers[-1], 15])
    fewer = [each for each in result.cells if (each.layer, each.bit) != (layers[1], 3)]
    assert read(replace(result, cells=fewer)).table("layer (% of images)")[1][4] == "–"
    bits = read(result).table("bit", "another class")
    assert [row[0] for row in bits] == [str(bit) for bit in reversed(range(16))]


def test_rates_as_a_table(read):
    found = {(row[0], row[1]): row[2] for row in read(masks(NAMES)).table("layer", "struck at")}
    assert len(found) == 9 and found["one", "weights, rate 0.1"] == "3.3 % [2.3, 4.3]"
    on = read(masks(NAMES, devices="abc")).table("layer", "struck at")
    assert {row[1] for row in on} >= {"weights, b, rate 0.01"}


def test_endings_are_told_layer_by_layer(read):
    rows = read(single()).table("layer", "masked")
    assert [row[0] for row in rows] == ["all", *(layer.name for layer in single().model.layers)]
    whole = next(each for each in single().cells if each.layer == each.bit == ALL).endings
    for cell, value in zip(rows[0][1:4], (whole.masked, whole.tolerable, whole.sdc1), strict=True):
        assert cell == share(value).replace("\u00a0", " ")
    listed = kept("campaign-listed")
    tables = [rows[1:] for rows in read(listed).tables if rows[0][:2] == ["fault", "masked"]]
    assert {row[0] for rows in tables for row in rows} == {each.site for each in listed.cells}


def test_confusion_up_to_twenty_classes_is_a_map(read):
    counts = {(0, 1): 60, (2, 1): 30, (1, 0): 10}
    pairs = [Confusion(before=one, after=other, count=n) for (one, other), n in counts.items()]
    result = replace(single(), confusion=pairs)
    rows = read(result).table("from → to")
    assert rows == [["0 → 1", "60", "60.0 %"], ["2 → 1", "30", "30.0 %"], ["1 → 0", "10", "10.0 %"]]
    more = replace(result, confusion=[*pairs, Confusion(before=20, after=1, count=1)])
    assert "confusion.svg" in figures(result) and "confusion.svg" not in figures(more)
    assert read(more).table("from → to")[-1][0] == "20 → 1"


def test_worst_faults_and_how_to_strike_them_again(read):
    """Their names are quoted for the shell, and escaped."""
    result = single()
    assert result.worst
    named = replace(result.worst[0], sites=["a <b> $x/weights/1/2"])
    other = replace(
        result.worst[0], sites=["a", "b"], same_in_every_image=False, trial=9, sdc_rate=0.5
    )
    made = replace(result, worst=[named, other])
    html = page(view(made), "campaign", {}).html
    command = "--campaign.design listed --campaign.sites 'a <b> $x/weights/1/2'"
    assert command in unescape(html) and "<b> $x" not in html
    rows = read(made).table("images changed", "layer")
    assert rows[0][-1] == "a <b> $x/weights/1/2"
    assert rows[1] == ["50.0 %", other.layer, "15", "weights", "trial 9"]
    swept = read(masks())
    assert "--campaign.sites" not in swept.text
    assert swept.table("images changed")[0][3:] == ["weights, rate 0.01", "trial 73"]


def test_listed_faults_and_the_images_they_change(read):
    result = kept("campaign-listed")
    rows = read(result).table("fault", "another class")
    by_rate = sorted(result.cells, key=lambda each: -each.sdc_rate.value)
    assert [row[0] for row in rows] == [each.site for each in by_rate]
    first = result.changed[0]
    expected = [first.site, str(first.image), f"{first.before} → {first.after}"]
    assert read(result).table("fault", "image")[0] == expected


def test_prediction_beside_what_was_measured(read):
    result = single()
    assert result.vulnerability
    rows = read(result).table("", "layer", "bit", "target", "loss added")
    foreseen = sorted(result.vulnerability, key=lambda row: -row.sdc_rate)
    for place, (row, cells) in enumerate(zip(result.vulnerability, rows, strict=False), 1):
        assert cells[:4] == [str(place), row.layer, str(row.bit), row.target]
        assert cells[-1] == str(foreseen.index(row) + 1)


def test_what_is_printed_fits_eighty_columns():
    """The interval's column once broke over two lines."""
    for result in (single(), single("weights", "activations")):
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
