"""What job `export` says of its result; the result is a golden run's, changed where needed."""

from dataclasses import replace

import pytest

from afpjax.jobs.export.result import ExportResult, LostDevice, NeuronsHeld, SendResult
from afpjax.jobs.export.view import view

from .kept import about, kept

PARTS = ["Does it give the same answers?", "Who runs what", "What is sent"]


@pytest.fixture(scope="module")
def mapping() -> ExportResult:
    """Two parts, two images at once."""
    result = kept("export")
    first = replace(
        result.parts[0], tasks=2, layers=2, file_bytes=4321, weight_bytes=1200,
        activation_bytes=34000, sha256="ab" * 32,
    )  # fmt: skip
    return replace(
        result,
        batch=2,
        source="searched",
        parts=[first, replace(first, device="simba", file="simba.onnx")],
        sends=[
            SendResult("a", "eyeriss", "simba", 3000),
            SendResult("<b>", "simba", "eyeriss", 100),
            SendResult("c", "simba", "eyeriss", 500),
        ],
        agreement=replace(
            result.agreement, images=1000, top1=about(0.997, 0.001), largest_difference=0.0123
        ),
    )


@pytest.fixture(scope="module")
def placement(mapping) -> ExportResult:
    return replace(
        mapping,
        kind="placement",
        method="lop",
        source="distributed",
        substitute="zero",
        mapping=None,
        placement=[NeuronsHeld("stem", 6, [4, 3, 2])],
        lost=[LostDevice("simba", 320, 0.995, about(0.75, 0.05), 0.755)],
    )


def test_headline_and_lead(mapping, shown):
    page = shown(view(mapping))
    assert "2 ONNX files" in page.headline and "99.7 % of 1,000 images" in page.headline
    assert "2 images at once" in page.text and "16 bits" in page.text
    one = shown(view(replace(mapping, parts=mapping.parts[:1], batch=1)))
    assert one.headline.startswith("1 ONNX file, one") and "takes 1 image at" in one.text
    unchecked = shown(view(replace(mapping, agreement=None)))
    assert "%" not in unchecked.headline and unchecked.headings == PARTS[1:]


def test_what_is_sent_is_summed_for_one_image(mapping, shown):
    page = shown(view(mapping))
    assert page.table("from", "to", "tensors") == [
        ["1eyeriss", "2simba", "1", "1.50 kB"],
        ["2simba", "1eyeriss", "2", "300 B"],
    ]
    assert page.table("tensor", "from")[1] == ["<b>", "simba", "eyeriss", "100 B"]


def test_devices_their_files_and_what_they_hold_and_lose(placement, shown):
    page = shown(view(placement))
    sizes = ["1.20 kB", "34.0 kB", "4.32 kB"]
    assert page.table("device", "file")[0] == ["1eyeriss", "eyeriss.onnx", "2", "2", *sizes]
    assert page.table("layer", "neurons")[0][:2] == ["stem", "6"]
    assert page.table("file", "tensors that enter")[1][-1] == "ab" * 32
    rows = dict(page.table("logits"))
    assert rows["same class"] == "99.7 % [99.6, 99.8]"
    assert rows["largest difference, of the range"] == "0.0123"
    assert "LOP" in page.text and "320 images" in page.text
    lost = ["2simba", "75.0 % [70.0, 80.0]", "75.5 %", "99.5 %"]
    assert page.table("device lost") == [lost]
