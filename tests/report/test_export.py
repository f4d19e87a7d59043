"""The story of job `export`."""

import pytest

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


@pytest.fixture
def mapping(make):
    base = make(layers=3, devices=2)
    return {
        **{key: base[key] for key in ("version", "seed", "model", "devices", "seconds")},
        "job": "export",
        "data": {"name": "digits"},
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


@pytest.fixture
def placement(mapping):
    del mapping["mapping"]
    return mapping | {
        "kind": "placement",
        "method": "lop",
        "source": "distributed",
        "substitute": "zero",
        "placement": [{"layer": "stem", "neurons": 6, "held": [4, 3]}],
        "lost": [
            {
                "device": "simba",
                "images": 320,
                "alike": 0.995,
                "accuracy": 0.75,
                "accuracy_interval": [0.7, 0.8],
                "afpjax_accuracy": 0.755,
            }
        ],
    }


def test_headline_and_lead(mapping, read):
    page = read(mapping)
    assert page.headline == (
        "2 ONNX files, one for each device that has work: run together by onnxruntime, they name "
        "the same class as afpjax for 99.7 % of 1,000 images."
    )
    assert "AFarePart's search found the mapping" in page.text
    assert "Each file takes 2 images at once, in fixed numbers of 8 bits" in page.text
    one = read(mapping | {"parts": mapping["parts"][:1], "batch": 1, "source": "given"})
    assert one.headline.startswith("1 ONNX file, one") and "takes 1 image at" in one.text
    assert read({"job": "export"}).headline == "The network as ONNX files"


def test_parts_without_data_are_left_out(mapping, placement, read):
    assert read(placement).headings == PARTS
    for key, left in (("agreement", PARTS[1:]), ("sends", PARTS[:2]), ("parts", PARTS[::2])):
        assert read({k: v for k, v in placement.items() if k != key}).headings == left


def test_what_is_sent_is_summed_for_one_image(mapping, read):
    page = read(mapping)
    assert page.table("from", "to", "tensors") == [
        ["1eyeriss", "2simba", "1", "1.50 kB"],
        ["2simba", "1eyeriss", "2", "300 B"],
    ]
    assert page.table("tensor", "from")[1] == ["<b>", "simba", "eyeriss", "100 B"]


def test_devices_their_files_and_what_they_hold(mapping, placement, read):
    page = read(placement)
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


def test_agreement_and_losses(placement, read):
    page = read(placement)
    rows = dict(page.table("logits"))
    assert rows["same class"] == "99.7 % [99.1, 99.9]"
    assert rows["largest difference, of the range"] == "0.0123"
    (lost,) = page.table("device lost")
    assert "placed by LOP." in page.text and "A lost neuron gives zero. 320 images." in page.text
    assert lost == ["2simba", "75.0 % [70.0, 80.0]", "75.5 %", "99.5 %"]
