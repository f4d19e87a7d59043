"""Job `partition` in other number formats: what these alone regain."""

from dataclasses import replace

import numpy as np
import pytest

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.jobs.partition import format_view
from afpjax.jobs.partition.result import FormatRow
from afpjax.jobs.partition.view import view
from afpjax.jobs.shared.outcome import result_text
from afpjax.jobs.shared.result import Estimate, plain
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize

from .kept import about, printed

TWO = {"platform__devices": ["eyeriss", "simba-ecc"]}


@pytest.fixture(scope="module")
def memory() -> dict[bytes, bytes]:
    return {}


@pytest.fixture(scope="module")
def found(outcome_of, memory, counted_once):
    return outcome_of("partition", memory, counted_once, **TWO)


def test_every_row_is_the_mapping_in_that_format_on_held_out_images_and_draws(found, config_of):
    """Again, image by image, without the evaluator that the job uses."""
    experiment = prepare(config_of(**TWO), Work({}, SILENT))
    held, network = experiment.held, experiment.network
    images, calibration = (experiment.inputs(each) for each in (held, experiment.calibration))
    key, faults = experiment.key("draws held out"), experiment.scenario("both")
    unaware = found.result.row("fault-unaware")
    mapping = np.array(unaware.mapping)
    rows = found.result.formats
    assert [row.scale for row in rows] == ["global", "global", "tensor", "channel"]
    right, clean = [], []
    for row in rows:
        fmt = QFormat(16, row.frac or 0, scale=row.scale)
        quantized = quantize(network, fmt, calibration if row.frac is None else None)
        said = [
            np.asarray(
                quantized(images, mapping=mapping, faults=faults, key=key, trial=trial)
            ).argmax(axis=1)
            for trial in range(3)
        ]
        right.append(np.array(said) == held.labels)
        clean.append(np.asarray(quantized(images)).argmax(axis=1) == held.labels)
        assert row.accuracy.value == right[-1].mean()
        assert row.clean.value == clean[-1].mean()
    own, others = rows[0], rows[1:]
    assert own.format == "Q11.5" and own.accuracy == unaware.accuracy
    assert own.difference is None and own.regained is None
    assert own.clean.value == found.result.clean.accuracy
    lost = clean[0].mean() - right[0].mean()
    assert lost > 0, "faults take nothing: the test shows nothing"
    for row, correct in zip(others, right[1:], strict=True):
        gained = correct.mean() - right[0].mean()
        assert row.difference.value == pytest.approx(gained)
        assert row.regained.value == pytest.approx(gained / lost)
        assert row.regained.low == pytest.approx(row.difference.low / lost)


def test_the_finest_binary_point_makes_faults_in_low_bits_harmless(found):
    """Bits 4 and 5 of numbers with 12 fraction bits or so are small beside those with 5."""
    assert found.result.formats[1].frac > 9
    assert found.result.formats[1].accuracy.value > found.result.formats[0].accuracy.value


def test_progress_ends_and_half_of_the_rows_give_the_same(found, memory, outcome_of, counted_once):
    named = [task for task in counted_once.tasks if task[0] == "Comparing number formats"]
    assert named and all(done == total == 4 * 3 for _, total, done in named)
    again = outcome_of("partition", dict(list(memory.items())[::2]), **TWO)
    assert result_text(plain(again.result)) == result_text(plain(found.result))


@pytest.mark.parametrize("off", [{"search__formats": False}, {"format__kind": "bfloat16"}])
def test_without_them_there_is_no_table(outcome_of, found, off):
    rest = outcome_of("partition", **TWO, **off)
    assert rest.result.formats is None
    assert "Number format alone" not in printed(rest.view, 200)
    if "search__formats" in off:
        assert plain(replace(found.result, formats=None)) == plain(rest.result)


def row(name: str, accuracy: float, regained: Estimate | None) -> FormatRow:
    difference = None if regained is None else about(0.1)
    return FormatRow(name, "global", 8, about(0.95), about(accuracy), difference, regained)


def test_a_format_that_solves_the_case_comes_before_the_mappings(found):
    rows = [row("Q8.8", 0.15, None), row("Q6.10", 0.886, about(0.92)), row("x", 0.5, about(0.4))]
    shown = view(replace(found.result, formats=rows))
    assert next(part.title for part in shown.parts) == "Other number formats of the same width"
    said = " ".join(printed(shown, 200).split())
    assert said.startswith("Number format alone: the fault-unaware mapping in Q6.10")
    assert "keeps 88.6 % of images right, in Q8.8 as configured 15.0 %" in said
    assert "Number format alone" in str(shown.headline)


@pytest.mark.parametrize(
    "regained",
    [Estimate(0.79, 0.7, 0.9), Estimate(0.9, -0.1, 1.9)],
    ids=["less than 80 %", "may be chance"],
)
def test_one_that_does_not_stands_below_and_is_not_announced(found, regained):
    rows = [row("Q8.8", 0.15, None), row("Q6.10", 0.5, regained)]
    assert format_view.solved(rows) is None
    shown = view(replace(found.result, formats=rows))
    titles = [part.title for part in shown.parts]
    assert titles.index("Other number formats of the same width") > titles.index(
        "Which layer runs where"
    )
    assert "Number format alone" not in printed(shown, 200) + str(shown.headline)
