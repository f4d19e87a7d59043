"""Memory: what fits in it changes how rows run, never what comes out; and nothing done is lost.

On three small dense layers with a skip (conftest.py).
"""

from dataclasses import replace

import numpy as np
import pytest

from afpjax.evaluate import engine, sizes
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.execution import Execution
from afpjax.faults.model import thresholds
from afpjax.inputs.errors import InputError
from afpjax.network import compiler

from .together import FAULTS, KEY, TRIALS, one_by_one, together


@pytest.fixture(scope="module")
def mappings():
    """Mappings of the three layers."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 3, (14, 3)).astype(np.int32)


@pytest.fixture(scope="module")
def alone(quantized, images, labels, mappings):
    return one_by_one(quantized, images, labels, mappings)


#: Calls of single nodes, and tables of many.
ALONE, TABLES = sizes.CPU._replace(single_bytes=0), sizes.CPU._replace(single_bytes=2**40)


@pytest.fixture(params=[ALONE, TABLES], ids=["alone", "tables"])
def backend(request, monkeypatch):
    monkeypatch.setattr(sizes, "CPU", request.param)
    return request.param


def test_a_small_cap_cuts_chunks_and_images_and_changes_nothing(
    quantized, images, labels, mappings, alone, ran, backend
):
    def run(cap):
        """The most rows and images at a time; checks the answers, and that the cap was kept to."""
        ran.clear()
        got = together(quantized, images, labels, mappings, memory_bytes=cap)
        np.testing.assert_array_equal(got, alone)
        share = cap // compiler.workers()
        for execution, prepared, _ in ran:
            rows = len(prepared.plan.rows)
            assert rows == 1 or execution.bytes_of(prepared) <= share
            assert execution.row_bytes <= share
        most = max(len(prepared.plan.rows) for _, prepared, _ in ran)
        return most, max(len(block.indices) for *_, block in ran)

    rows, batch = run(10**9)
    assert batch == len(images)
    with_caps = [run(2**power) for power in range(20, 11, -1)]
    assert any(few < rows and same == batch for few, same in with_caps), "rows first"
    assert min(size for _, size in with_caps) < batch, "then images"


def full(monkeypatch, *, rows=10**9, images=10**9, error=None):
    """A device that has no room for plans of more rows, or for blocks of more images."""
    message = "RESOURCE_EXHAUSTED: Out of memory allocating 1234 bytes."

    def outcomes(self, prepared, kernels, block, run=Execution.outcomes):
        if len(prepared.plan.rows) > rows or len(block.indices) > images:
            raise error or RuntimeError(message)
        return run(self, prepared, kernels, block)

    monkeypatch.setattr(Execution, "outcomes", outcomes)


@pytest.mark.parametrize(
    "limits", [dict(rows=4), dict(images=13), dict(images=20, error=MemoryError())], ids=str
)
def test_too_little_memory_leads_to_smaller_parts_and_the_same_answers(
    quantized, images, labels, mappings, alone, limits, ran, monkeypatch, backend
):
    """Only where a single row finds no room are images fewer: they are what is fast."""
    full(monkeypatch, **limits)
    got = together(quantized, images, labels, mappings)
    np.testing.assert_array_equal(got, alone)
    if "rows" in limits:
        assert {len(block.indices) for _, _, block in ran} == {len(images)}


def test_no_call_has_more_images_than_there_is_room_for(
    quantized, images, labels, mappings, alone, ran, monkeypatch, backend
):
    """Of all its nodes together: here programs for more than 13 fail, once their answer is
    waited for."""

    def compile_programs(spec, prepare, shapes, own, *rest, compiled=engine.compile_programs):
        made = compiled(spec, prepare, shapes, own, *rest)
        if own.images <= 13:
            return made

        def fails(*_):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1234 bytes.")

        run = (replace(each, call=fails) if each else None for each in made.run)
        return replace(made, first=replace(made.first, call=fails), run=tuple(run))

    monkeypatch.setattr(engine, "compile_programs", compile_programs)
    got = together(quantized, images, labels, mappings)
    np.testing.assert_array_equal(got, alone)
    (size,) = {len(block.indices) for _, _, block in ran}
    assert 13 / 2 < size <= 13, "halved until it fits, and no further"


def test_no_room_for_a_single_image_is_one_line(quantized, images, labels, mappings, monkeypatch):
    full(monkeypatch, images=0)
    with pytest.raises(InputError, match=r"^memory: .*no room for a single image.*$") as raised:
        together(quantized, images, labels, mappings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [ValueError("another matter"), KeyboardInterrupt()])
def test_what_is_done_is_remembered_when_something_else_goes_wrong(
    quantized, images, labels, mappings, alone, error, ran, monkeypatch
):
    """The exception passes through; rows of the chunks before it are not run again."""
    memory: dict[bytes, bytes] = {}
    monkeypatch.setattr(engine, "ROWS", 4)
    monkeypatch.setattr(sizes, "CPU", ALONE)
    monkeypatch.setattr(compiler, "workers", lambda: 1)
    run = Execution.outcomes  # with `ran` around it

    def outcomes(self, prepared, kernels, block):
        if len(ran) == 2:
            raise error
        return run(self, prepared, kernels, block)

    with monkeypatch.context() as patch:
        patch.setattr(Execution, "outcomes", outcomes)
        with pytest.raises(type(error)):
            together(quantized, images, labels, mappings, memory=memory)
    done = sum(len(prepared.plan.rows) for _, prepared, _ in ran)
    assert len(memory) == done > 0
    ran.clear()
    evaluator = Evaluator(quantized, images, labels, KEY, memory=memory)
    got = evaluator.evaluate(FAULTS, thresholds(FAULTS, quantized, mappings), TRIALS)
    np.testing.assert_array_equal(got, alone)
    assert evaluator.evaluations == len(memory) - done == sum(len(p.plan.rows) for _, p, _ in ran)


def test_an_interrupt_while_progress_is_told_keeps_the_row_it_tells_of(
    quantized, images, labels, mappings
):
    memory: dict[bytes, bytes] = {}
    evaluator = Evaluator(quantized, images, labels, KEY, memory=memory)

    def progress(rows):
        if len(memory) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(FAULTS, thresholds(FAULTS, quantized, mappings), TRIALS, progress)
    assert len(memory) == 3 == evaluator.evaluations
