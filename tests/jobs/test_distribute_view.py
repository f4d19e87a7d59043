"""What job `distribute` says of its result; the result is a golden run's, changed where needed."""

import re
from dataclasses import replace

import pytest

from afpjax.jobs.distribute import view as drawing
from afpjax.jobs.distribute.charts import look, ordered
from afpjax.jobs.distribute.result import (
    SAFE_SPARE,
    DistributeResult,
    ExpectedResult,
    LayerPlacement,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.neurons import methods
from afpjax.report import style
from afpjax.report.render import Page, page

from ..conftest import Reader
from .kept import SPEED, about, kept, once, printed

view = once(drawing.view)
NUMBERS = ("method", "lost", "images right", "worst", "lost then", "best", "lost then", "sets")
NONE = {"curve", "ablation", "normalisations", "substitutes", "expected", "flips", "search"}


@pytest.fixture(scope="module")
def result() -> DistributeResult:
    return kept("distribute")


@pytest.fixture(scope="module")
def bare(result) -> DistributeResult:
    """Without what may be left out, which takes seconds to draw."""
    return replace(result, **dict.fromkeys(NONE), stability=None)


@pytest.fixture(scope="module")
def drawn(result) -> Page:
    """The whole page, which takes seconds to draw."""
    return page(view(result), "distribute", {"run": {"seed": 0}})


@pytest.fixture(scope="module")
def whole(drawn) -> Reader:
    return Reader(drawn.html)


def with_methods(result: DistributeResult, change) -> DistributeResult:
    """Each method's row through `change`."""
    return replace(result, methods=[change(row) for row in result.methods])


def words(estimate: Estimate) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(
        *(100 * value for value in (estimate.value, *estimate.bounds))
    )


def gap(estimate: Estimate | None) -> str:
    """In points."""
    if estimate is None:
        return "–"
    value, low, high = (
        f"{100 * end:.1f}".replace("-", "−").replace("−0.0", "0.0")
        for end in (estimate.value, *estimate.bounds)
    )
    return f"{value} [{low}, {high}]"


def test_every_number_of_the_methods_is_on_the_page(result, whole):
    rows = whole.table(*NUMBERS)
    by_name = {(cells[0], cells[1]): cells for cells in rows}
    assert len(by_name) == len(result.methods)
    for row in result.methods:
        cells = by_name[look(row.method).name, f"{row.failed} of {row.devices}"]
        assert cells[2] == words(row.accuracy)
        assert cells[3] == f"{100 * row.accuracy_worst:.1f} %"
        assert cells[5] == f"{100 * row.accuracy_best:.1f} %"
        keys = [
            "".join(str(d + 1) for d in failed) for failed in (row.worst_failed, row.best_failed)
        ]
        assert [cells[4], cells[6]] == keys
        assert cells[7] == str(row.sets)
        assert cells[8] == gap(row.difference)
        optimistic = "–" if row.optimistic is None else f"{100 * row.optimistic:.1f} %"
        assert cells[9] == optimistic


def test_one_table_is_on_the_page_and_in_the_terminal(result, whole):
    rows = whole.table("method", "memory", "1 lost")
    text = printed(view(result))
    assert rows[0] == ["3 devices"]
    own, first = rows[1], result.method("robustdice", (3, 1))
    assert own[0] == "RobustDiCE" and own[-1] == "–"
    assert own[1].split()[0] == f"{100 * first.memory:.0f}"
    for cells, lost in zip(own[2:4], (1, 2), strict=True):
        accuracy = result.method("robustdice", (3, lost)).accuracy
        low, high = (f"{100 * bound:.0f}" for bound in accuracy.bounds)
        assert cells == f"{100 * accuracy.value:.1f} [{low}, {high}]"
        assert cells in text
    lop = next(cells for cells in rows if cells[0] == "LOP")
    assert lop[-1] == gap(result.method("lop", (3, 1)).difference)
    assert "more by" not in text
    assert f"{SPEED['inferences_per_second']:,.0f} images" in text
    assert f"{max(row.difference.value for row in result.search.gain) * 100:+.1f} points" in text


def test_losses_beyond_the_third_are_said_to_be_elsewhere(bare, shown):
    rows = [
        replace(row, devices=10, failed=failed)
        for row in bare.methods[:2]
        for failed in range(1, 10)
        if row.method == "robustdice"
    ]
    many = replace(bare, methods=rows)
    assert "up to 9" in printed(view(many))
    assert "The first 8 of 9 losses" in shown(view(many)).text
    assert "up to" not in printed(view(bare))


def test_headline_is_robustdice_beside_lop(bare, shown):
    headline = shown(view(bare)).headline
    own, lop = (bare.method(name, (3, 1)) for name in ("robustdice", "lop"))
    assert "1 of 3 devices" in headline
    for row in (own, lop):
        assert words(row.accuracy) in headline
        assert f"{100 * row.memory:.0f} %" in headline
    assert f"{100 * bare.clean.accuracy.value:.1f} % with none lost" in headline
    assert "do not tell" not in headline
    level = with_methods(bare, lambda row: replace(row, difference=Estimate(0.4, -0.01, 0.9)))
    assert "do not tell the two apart" in shown(view(level)).headline
    for left, name in (("lop", "LOP"), ("robustdice", "RobustDiCE")):
        rows = [row for row in bare.methods if row.method != left]
        assert name not in shown(view(replace(bare, methods=rows))).headline


def test_parts_appear_where_their_data_is(whole, bare, shown):
    every, few = whole.headings, shown(view(bare)).headings
    assert len(every) == 10 and len(few) == 4  # devices that fail by chance were not asked for
    assert {*few} < {*every}


def test_advantages_on_the_curve_are_counted(result, whole):
    """Thresholds that replicate everything are left out."""
    rows = whole.table("RobustDiCE beside")
    for cells, lost in zip(rows, (1, 2), strict=True):
        own = [
            row.difference
            for row in result.curve
            if (row.method, row.failed) == ("topk", lost) and row.memory < 0.9995
        ]
        more, less = sum(d.low > 0 for d in own), sum(d.high < 0 for d in own)
        assert cells[0] == f"{lost} of 3 lost"
        assert f"{more} more, {less} less of {len(own)}" in cells[1:]


def test_searched_thresholds_are_on_the_curve_of_the_same_loss_alone(drawn):
    figures = drawn.figures
    assert b"Searched thresholds" in figures["curve-3-1.svg"]
    assert b"Searched thresholds" not in figures["curve-3-2.svg"]


def test_gains_of_the_search_and_what_they_are_of_the_loss(result, whole):
    clean = result.clean.accuracy.value
    rows = whole.table("memory", "searched", "constant")
    for cells, row in zip(rows, result.search.gain, strict=True):
        assert cells[:3] == [f"{100 * x:.1f} %" for x in (row.memory, row.searched, row.constant)]
        assert cells[3] == gap(row.difference)
        gone = clean - row.constant
        if gone > 0.01:
            assert float(cells[4].removesuffix(" %").replace("−", "-")) == pytest.approx(
                100 * row.difference.value / gone, abs=0.51
            )
    above = sum(row.difference.low > 0 for row in result.search.gain)
    assert f"above zero at {above}" in whole.text
    searched, constant = (rows for rows in whole.tables if rows[0][-1] == "thresholds")
    assert len(searched) == 1 + len(result.search.front)
    assert all(" " in cells[-1] for cells in searched[1:])
    assert not any(" " in cells[-1] for cells in constant[1:])  # one for all


def test_a_search_without_gains(result, bare, shown):
    found = replace(result.search, gain=[], constant=[])
    reader = shown(view(replace(bare, search=found)))
    assert not any(rows[0][:2] == ["memory", "searched"] for rows in reader.tables)


def test_neurons_in_one_copy_and_on_every_device(bare, shown):
    held = [1, 1, 2, 4, 8, 15, 15, 15] * 2
    layers = [
        LayerPlacement("odd", 16, 0.25, 7, 2.125, held),
        LayerPlacement("even", 1, 0.0, 1, 4.0, [15]),
    ]
    reader = shown(view(replace(bare, placement=layers)))
    rows = reader.table("layer", "neurons", "threshold")
    assert rows[0] == ["odd", "16", "0.25", "7", "2.12", "62.5 %", "10, 8, 8, 8"]
    assert rows[1][-1] == "1"  # equal on all devices
    assert "58.8 % have one copy" in reader.text  # 10 of 17
    assert "41.2 % live on every device" in reader.text


@pytest.mark.parametrize(("layers", "figures"), [(12, 1), (13, 3), (53, 6)])
def test_networks_of_many_layers_have_several_figures(bare, layers, figures):
    some = [replace(bare.placement[0], layer=f"block{n}.conv") for n in range(layers)]
    drawn = page(view(replace(bare, placement=some)), "distribute", {}).figures
    assert len(drawn) - 1 == figures  # beside the one of the methods
    assert ("copies.svg" in drawn) == (layers > 12)


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [("alexnet", "52.4 %"), ("nets/vgg16-bn.onnx", "72.5 %")],
)
def test_the_paper_stands_beside_its_own_networks(result, bare, whole, shown, name, accuracy):
    own = replace(bare, ablation=result.ablation, model=replace(result.model, name=name))
    reader = shown(view(own))
    rows = reader.table("scores", "lost", "threshold", "memory", "images right", "paper")
    assert [row[0] for row in rows] == [
        "l1", "Taylor", "JSD", "l1 + Taylor", "l1 + JSD", "Taylor + JSD", "l1 + Taylor + JSD"
    ]  # fmt: skip
    assert rows[-1][-1] == accuracy
    costs = {row[0]: row for row in reader.table("method", "devices", "MB", "paper's")}
    assert "–" not in (costs["RobustDiCE"][3], costs["replication"][3])
    assert costs["LOP"][3] == "–"  # not the paper's
    heads = [cell for table in whole.tables for cell in table[0]]
    assert not any("paper" in head for head in heads)  # of another network


def test_scales_and_substitutes(result, whole):
    scales = whole.table("scale", "lost", "threshold", "memory")
    assert [row[-1] for row in scales] == [words(row.accuracy) for row in result.normalisations]
    given = whole.table("a lost neuron gives")
    assert [row[-2] for row in given] == [words(row.accuracy) for row in result.substitutes]
    assert [row[-1] for row in given] == [gap(row.difference) for row in result.substitutes]


def expected(method: str, failure: list[float], trials: int | None = None) -> ExpectedResult:
    quantiles = {"5%": 0.5, "25%": 0.6, "50%": 0.7, "75%": 0.8, "95%": 0.9}
    return ExpectedResult(
        method, 3, failure, 0.6, about(0.74), 0.0625, 0.0125, quantiles, 8, False, trials
    )


def test_expected_accuracy_and_its_spread(bare, shown):
    chances = [0.1, 0.0, 1e-6]
    own = [expected("robustdice", chances), expected("robustdice", chances, 4)]
    reader = shown(view(replace(bare, expected=own)))
    alone, both = reader.table("method", "bits flip", "devices", "expected")
    assert alone[3] == words(about(0.74))
    assert alone[4:9] == ["50.0 %", "60.0 %", "70.0 %", "80.0 %", "90.0 %"]
    assert alone[9:] == ["6.2", "1.2", "8"]
    assert (alone[1], both[1]) == ("no", "4 draws")
    assert "0.1, 0 and 10⁻⁶" in reader.text


def test_flips_stand_beside_the_same_loss_without_them(result, whole):
    (table,) = [rows for rows in whole.tables if "without flips" in rows[0]]
    place = table[0].index("without flips")
    rows = {(row[0], row[1]): row for row in table[1:]}
    for row in result.flips:
        cells = rows[look(row.method).name, f"{row.failed} of 3"]
        alone = result.method(row.method, row.setting)
        clean = (alone or result.clean).accuracy.value
        assert cells[2] == words(row.accuracy)
        assert cells[place] == f"{100 * clean:.1f} %"
    rates = whole.table("device", "flip rate of weights")
    assert [row[1] for row in rates] == [f"{rate:g}" for rate in result.flips[0].weight_rate]


def test_resources_beside_full_replication_on_as_many_devices(bare, shown):
    reader = shown(view(bare))
    costs = {row.method: row for row in bare.resources}
    rows = {row[0]: row for row in reader.table("method", "devices", "MB", "J/image", "images/s")}
    own, full = costs["robustdice"], costs["replication"]
    value, change = rows["RobustDiCE"][2].split(" ", 1)
    assert float(value) == pytest.approx(own.memory_mb, rel=5e-3)
    sign = 1 if change[0] == "+" else -1
    assert sign * float(re.sub(r"\D", "", change)) == pytest.approx(
        100 * (own.memory_mb / full.memory_mb - 1), abs=0.5
    )
    assert " " not in rows["replication"][2]


def test_sampled_sets_are_said_to_be_so(bare, shown):
    drawn = with_methods(bare, lambda row: replace(row, sets=4096, sampled=True))
    rows = shown(view(drawn)).table(*NUMBERS)
    assert {row[7] for row in rows} == {"4,096 drawn"}


def test_a_method_without_a_file_is_shown_under_its_own_name(bare, shown):
    """Which the terminal takes for no markup."""
    name = '<b>&"x [new]'
    other = with_methods(
        bare, lambda row: replace(row, method=name) if row.method == "replication" else row
    )
    assert name not in page(view(other), "distribute", {}).html
    assert name in printed(view(other))
    assert shown(view(other)).table("method", "memory", "1 lost")[-1][0] == name


def test_a_method_of_the_folder_has_a_look_of_its_own():
    looks = [look(name) for name in methods.names()]
    assert len({one.colour for one in looks}) == len(looks)
    assert len({one.marker for one in looks}) == len(looks)
    assert look("robustdice").colour == style.METHODS[0]
    assert look("cdc" + SAFE_SPARE).colour == look("cdc").colour != look("lop").colour
    assert look("cdc" + SAFE_SPARE).name != look("cdc").name


def test_a_new_method_is_one_file(tmp_path, monkeypatch):
    """It gets a name, a colour and a place without another file that knows it."""
    text = '"""New."""\n\nLABEL = "brand new"\n\n\ndef fresh(request, layer):\n    """All."""\n'
    (tmp_path / "fresh.py").write_text(text)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert look("fresh").name == "brand new"
    assert look("fresh").colour in style.METHODS[1:]
    rows = [expected(name, [0.1]) for name in ("unknown", "fresh", "robustdice")]
    assert [row.method for row in ordered(rows)] == ["robustdice", "fresh", "unknown"]
