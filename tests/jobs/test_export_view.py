"""What job `export` says of its result."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from afpjax.jobs.export.result import ExportResult, LostDevice, NeuronsHeld
from afpjax.jobs.export.view import view
from afpjax.jobs.shared.result import Estimate, LayerResult, ModelResult, plain, read

GOLDEN = Path(__file__).parents[1] / "golden" / "export.json"

PARTS = ["Does it give the same answers?", "Who runs what", "What is sent"]


def part(name, layers):
    return {
        "device": name,
        "file": f"{name}.onnx",
        "inputs": ["image"],
        "outputs": ["logits"],
        "sha256": "ab" * 32,
        "layers": layers,
        "tasks": 2,
        "file_bytes": 4321,
        "weight_bytes": 1200,
        "activation_bytes": 34000,
    }


LAYERS = [LayerResult(f"layer{n}", "conv", 1000, 100, 0, 4, 8, 8) for n in range(3)]


@pytest.fixture
def mapping() -> ExportResult:
    record = {
        "model": plain(ModelResult("toy", LAYERS)),
        "notes": [],
        "data": {"name": "digits"},
        "devices": ["eyeriss", "simba"],
        "tasks": [],
        "format": {"kind": "fixed", "bits": 8},
        "kind": "mapping",
        "method": "afarepart",
        "source": "searched",
        "batch": 2,
        "parts": [part("eyeriss", 2), part("simba", 1)],
        "mapping": [0, 1, 0],
        "sends": [
            {"tensor": "a", "from": "eyeriss", "to": "simba", "bytes": 3000},
            {"tensor": "<b>", "from": "simba", "to": "eyeriss", "bytes": 100},
            {"tensor": "c", "from": "simba", "to": "eyeriss", "bytes": 500},
        ],
        "agreement": {
            "images": 1000,
            "top1": 0.997,
            "top1_interval": [0.991, 0.999],
            "largest_difference": 0.0123,
            "accuracy": 0.912,
            "afpjax_accuracy": 0.915,
        },
    }
    return read(ExportResult, record)


@pytest.fixture
def placement(mapping) -> ExportResult:
    return replace(
        mapping,
        kind="placement",
        method="lop",
        source="distributed",
        substitute="zero",
        mapping=None,
        placement=[NeuronsHeld("stem", 6, [4, 3])],
        lost=[LostDevice("simba", 320, 0.995, Estimate(0.75, 0.7, 0.8), 0.755)],
    )


def test_headline_and_lead(mapping, shown):
    page = shown(view(mapping))
    assert page.headline == (
        "2 ONNX files, one for each device that has work: run together by onnxruntime, they name "
        "the same class as afpjax for 99.7 % of 1,000 images."
    )
    assert "AFarePart's search found the mapping" in page.text
    assert "Each file takes 2 images at once, in fixed numbers of 8 bits" in page.text
    one = shown(view(replace(mapping, parts=mapping.parts[:1], batch=1, source="given")))
    assert one.headline.startswith("1 ONNX file, one") and "takes 1 image at" in one.text
    unchecked = shown(view(replace(mapping, agreement=None)))
    assert unchecked.headline == "The network as ONNX files" and unchecked.headings == PARTS[1:]


def test_what_is_sent_is_summed_for_one_image(mapping, shown):
    page = shown(view(mapping))
    assert page.table("from", "to", "tensors") == [
        ["1eyeriss", "2simba", "1", "1.50 kB"],
        ["2simba", "1eyeriss", "2", "300 B"],
    ]
    assert page.table("tensor", "from")[1] == ["<b>", "simba", "eyeriss", "100 B"]


def test_devices_their_files_and_what_they_hold(mapping, placement, shown):
    page = shown(view(placement))
    assert page.table("device", "file")[0] == [
        "1eyeriss",
        "eyeriss.onnx",
        "2",
        "2",
        "1.20 kB",
        "34.0 kB",
        "4.32 kB",
    ]
    assert page.table("layer", "neurons") == [["stem", "6", "4", "3"]]
    assert page.table("file", "tensors that enter")[1][-1] == "ab" * 32


def test_agreement_and_losses(placement, shown):
    page = shown(view(placement))
    rows = dict(page.table("logits"))
    assert rows["same class"] == "99.7 % [99.1, 99.9]"
    assert rows["largest difference, of the range"] == "0.0123"
    (lost,) = page.table("device lost")
    assert "placed by LOP." in page.text and "A lost neuron gives zero. 320 images." in page.text
    assert lost == ["2simba", "75.0 % [70.0, 80.0]", "75.5 %", "99.5 %"]


def test_result_json_is_read_back_as_it_was():
    record = json.loads(GOLDEN.read_text())
    own = {key: value for key, value in record.items() if key not in ("job", "seed")}
    assert plain(read(ExportResult, record)) == own
