"""Lists of faults: read, struck in weights as an ONNX file holds them, compared, written again."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from afpjax.config.work import SILENT, Work
from afpjax.experiment import prepare
from afpjax.inputs.errors import InputError
from afpjax.jobs.campaign.fault_file import FILE
from afpjax.jobs.campaign.fault_lists import read_list
from afpjax.jobs.campaign.published import ENOUGH
from afpjax.jobs.shared.result import plain

COUNT, SIDE, CLASSES = 24, 6, 3
TWO = np.array(2, np.float32)
BITS = (20, 21, 22, 30, 31)  # sums stay exact, or overflow: whatever their order, they are equal
LAYERS = {"block.conv": (4, 2, 3, 3), "block.last": (4, 4, 1, 1), "head": (3, 4)}


def arrays() -> dict[str, np.ndarray]:
    """Few bits each: powers of two, and for bit 30 also weights that become infinite or NaN."""
    rng = np.random.default_rng(3)
    some = np.array([0.25, -0.25, 0.5, -0.5, 1.0, -1.0, 1.5], np.float32)
    made = {f"{name}.weight": rng.choice(some, shape) for name, shape in LAYERS.items()}
    made |= {"block.last.bias": rng.choice(some, 4), "head.bias": rng.choice(some, 3)}
    made |= {"block.bn.scale": np.array([2, 0.5, 1, -1], np.float32), "block.bn.bias": np.ones(4)}
    made |= {"block.bn.mean": np.array([1, -2, 0.5, 0]), "block.bn.var": np.array([4, 1, 0.25, 4])}
    return {name: each.astype(np.float32) for name, each in made.items()}


@pytest.fixture(scope="module")
def network_file(tmp_path_factory) -> Path:
    """Convolution, batch norm, ReLU, convolution with a bias, mean, product."""
    nodes = [
        helper.make_node("Clip", ["input", "low", "high"], ["exact"]),  # 255 / 255 may round
        helper.make_node("Conv", ["exact", "block.conv.weight"], ["a"]),
        helper.make_node(
            "BatchNormalization",
            ["a", *(f"block.bn.{name}" for name in ("scale", "bias", "mean", "var"))],
            ["b"],
            epsilon=0.0,
        ),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "block.last.weight", "block.last.bias"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 2, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [
            numpy_helper.from_array(each, name)
            for name, each in (arrays() | {"low": -TWO, "high": TWO}).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    onnx.save(model, path)
    return path


def pixels() -> np.ndarray:
    return np.random.default_rng(4).choice([0, 255], (COUNT, SIDE, SIDE, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, images=pixels(), labels=np.arange(COUNT) % CLASSES)
    return path


def oracle(weights: dict[str, np.ndarray]) -> np.ndarray:
    """Logits [B, classes] by NumPy in float32; images are -2 or 2."""
    x = ((pixels() / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).transpose(0, 3, 1, 2)
    w = weights["block.conv.weight"]
    wide = {n: weights[f"block.bn.{n}"][:, None, None] for n in ("scale", "bias", "mean", "var")}
    with np.errstate(all="ignore"):
        seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        y = (seen[:, None] * w[None, :, :, None, None]).sum(axis=(2, 5, 6), dtype=np.float32)
        y = (y - wide["mean"]) / np.sqrt(wide["var"]) * wide["scale"] + wide["bias"]
        y = np.maximum(y, np.float32(0))
        last = weights["block.last.weight"][:, :, 0, 0]
        y = (y[:, None] * last[None, :, :, None, None]).sum(axis=2, dtype=np.float32)
        y = (y + weights["block.last.bias"][:, None, None]).sum(axis=(2, 3)) / np.float32(16)
        y = (y[:, None] * weights["head.weight"][None]).sum(axis=2, dtype=np.float32)
    return y + weights["head.bias"]


def flipped(layer: str, index: tuple[int, ...], bit: int) -> np.ndarray:
    weights = arrays()
    weights[f"{layer}.weight"].view(np.uint32)[index] ^= np.uint32(1 << bit)
    return oracle(weights)


def ended(logits: np.ndarray, argmax: bool) -> tuple[int, int, int, int]:
    """Masked, non-critical, critical and detected images, by the definitions."""
    clean = oracle(arrays())
    seen = ~np.isfinite(logits).all(axis=1) & (not argmax)
    masked = (logits == clean).all(axis=1)
    critical = (logits.argmax(axis=1) != clean.argmax(axis=1)) & ~seen
    rest = ~(masked | critical | seen)
    return int(masked.sum()), int(rest.sum()), int(critical.sum()), int(seen.sum())


def every_fault() -> list[tuple[str, tuple[int, ...], int]]:
    return [
        (layer, index, bit)
        for layer, shape in LAYERS.items()
        for index in np.ndindex(shape)
        for bit in BITS
    ]


def written(rows, head=("Layer", "TensorIndex", "Bit")) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


@pytest.fixture(scope="module")
def run(network_file, data_file, outcome_of):
    """A campaign of a list's rows: the outcome."""

    def strike(path: Path, **changes: Any):
        options: dict[str, Any] = {
            "model__name": str(network_file),
            "model__classes": CLASSES,
            "model__image_size": SIDE,
            "model__channels": 2,
            "model__fold": False,
            "data__path": str(data_file),
            "data__order": "file",
            "format__kind": "float32",
            "campaign__design": "listed",
            "campaign__list": str(path),
            "campaign__images": COUNT,
        }
        return outcome_of("campaign", **(options | changes))

    return strike


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    """All faults, in a mixed order, under argmax's rule."""
    path = tmp_path_factory.mktemp("list") / "list.csv"
    rows = every_fault()
    order = np.random.default_rng(0).permutation(len(rows))
    path.write_text(written([rows[place] for place in order]))
    return run(path, campaign__not_finite="argmax")


def rows_of(outcome) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(outcome.files[FILE].decode())))


def told(row: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(row[k]) for k in ("masked", "non_critical", "critical", "detected"))


def fault(row: dict[str, str]) -> tuple[str, tuple[int, ...], int]:
    return row["Layer"], tuple(map(int, row["TensorIndex"].strip("()").split(","))), int(row["Bit"])


@pytest.mark.in_ci("argmax")
@pytest.mark.parametrize("not_finite", ["argmax", "detected"])
def test_every_fault_does_what_numpy_says(first, run, tmp_path, not_finite):
    """In the convolution's own weight, batch norm after it; infinite and NaN ones among them."""
    outcome = first
    if not_finite == "detected":
        (tmp_path / "list.csv").write_text(written(every_fault()[::3]))
        outcome = run(tmp_path / "list.csv", campaign__not_finite="detected")
    rows, finite = rows_of(outcome), 0
    for row in rows:
        logits = flipped(*fault(row))
        assert told(row) == ended(logits, not_finite == "argmax"), fault(row)
        finite += np.isfinite(logits).all()
    assert 0 < finite < len(rows) and len({told(row) for row in rows}) > 10
    assert outcome.result.design.not_finite == not_finite


def test_cells_are_means_over_their_faults(first):
    result, rows = plain(first.result), rows_of(first)
    for cell in result["cells"]:
        mine = [
            told(row)
            for row in rows
            if cell["layer"] in ("all", row["Layer"]) and cell["bit"] in ("all", int(row["Bit"]))
        ]
        masked, _, critical, _ = np.sum(mine, axis=0) / len(mine) / COUNT
        assert cell["trials"] == len(mine) > 0 and cell["images"] == COUNT
        assert [cell["sdc_rate"], cell["sdc1"]] == pytest.approx([critical] * 2)
        assert cell["masked"] == pytest.approx(masked)
        for name in ("sdc_rate", "accuracy"):
            low, high = cell[f"{name.removesuffix('_rate')}_interval"]
            assert 0 <= low <= cell[name] <= high <= 1
    layers, bits = len(LAYERS), len(BITS)
    assert len(result["cells"]) == layers * bits + layers + bits + 1
    worst = result["worst"][0]
    assert worst["sdc_rate"] * COUNT == max(told(row)[2] for row in rows)
    assert told(rows[worst["trial"]])[2] == worst["sdc_rate"] * COUNT


def test_a_list_that_was_written_is_read_again_and_agrees(first, run, tmp_path):
    """With itself: the same images, so not one score is other than nothing."""
    path = tmp_path / FILE
    path.write_bytes(first.files[FILE])
    again = run(path, campaign__not_finite="argmax")
    assert [*map(told, rows_of(again))] == [*map(told, rows_of(first))]
    published = plain(again.result)["published"]
    whole = published["whole"]
    assert (
        whole["sdc_rate"] == pytest.approx(whole["published_rate"]) and whole["faults"] == 100 * 5
    )
    assert published["bits_inside"] == len(BITS) and published["layers_inside"] == len(LAYERS)
    assert published["scores"]["faults"] == 0  # nothing is left to chance


def test_what_others_found_on_more_images_is_compared(first, run, tmp_path):
    """Theirs made of ours: 41 times the images, and some faults that do what they don't do here."""
    rows = rows_of(first)
    for row in rows:
        counts = 41 * np.array(told(row)[:3])
        if row["Bit"] == "20" and row["Layer"] == "head":
            counts[2], counts[1] = counts[1] + counts[2], 0
        row |= dict(zip(("masked", "non_critical", "critical"), map(str, counts), strict=True))
        row["n_injections"] = str(counts.sum())
    path = tmp_path / "theirs.csv"
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())
    outcome = run(path, campaign__not_finite="argmax")
    published = plain(outcome.result)["published"]
    assert published["published_images"] == 41 * COUNT and published["images"] == COUNT
    (bit,) = [bit for bit in published["bits"] if bit["bit"] == 20]
    assert bit["published_rate"] > bit["sdc_rate"]
    scored = [row for row in rows_of(outcome) if row["z"]]
    assert len(scored) == published["scores"]["faults"] > 0
    zs = []
    for row in scored:
        known, total = int(row["published_critical"]), int(row["published_n_injections"])
        p = known / total
        assert ENOUGH <= COUNT * p <= COUNT - ENOUGH
        spread = np.sqrt(p * (1 - p) / COUNT * (total - COUNT) / (total - 1))
        zs.append((int(row["critical"]) / COUNT - p) / spread)
        assert float(row["z"]) == pytest.approx(zs[-1], abs=1e-3)
    assert published["scores"]["rms"] == pytest.approx(np.sqrt(np.mean(np.square(zs))))
    inside = [bit["sdc_interval"][0] <= bit["published_rate"] <= bit["sdc_interval"][1]
              for bit in published["bits"]]  # fmt: skip
    assert published["bits_inside"] == sum(inside)


def test_a_folded_network_is_struck_elsewhere(first, run, tmp_path):
    """In what batch norm made of the weight: other bits, so other outcomes."""
    wanted = [each for each in every_fault() if each[0] == "block.conv"][::6]
    (tmp_path / "list.csv").write_text(written(wanted))
    folded = run(tmp_path / "list.csv", model__fold=True, campaign__not_finite="argmax")
    own = {fault(row): told(row) for row in rows_of(first)}
    assert any(told(row) != own[fault(row)] for row in rows_of(folded))


def test_images_are_the_first_of_the_file(network_file, data_file, config_of):
    options = {"data__order": "file", "data__path": str(data_file), "model__channels": 2,
               "model__name": str(network_file), "model__classes": 3, "model__image_size": 6,
               "search__images": 5}  # fmt: skip
    config, work = config_of(**options), Work({}, SILENT)
    experiment = prepare(config, work, measured_images=7)
    assert np.array_equal(experiment.held.images, pixels()[:7])
    assert np.array_equal(experiment.searched.images, pixels()[-5:])
    whole = prepare(config, work, measured_images=COUNT)
    assert np.array_equal(whole.held.images, pixels())
    other = prepare(config_of(search__held_out=0, **options), Work({}, SILENT))
    assert np.array_equal(other.held.images, pixels()[:-5])


GOOD = 'Layer,TensorIndex,Bit\nblock.conv,"(0, 0, 0, 0)",3\n'
COUNTED = "Layer,TensorIndex,Bit,n_injections,masked,non_critical,critical\n"
BAD = {
    "no list": ("", "has no column Layer; its first row must name"),
    "a heading alone": ("Layer,TensorIndex,Bit\n", "lists no faults"),
    "a column less": ("Layer,Bit\nhead,3\n", "has no column TensorIndex"),
    "another layer": (GOOD + "block.cnv,\"(0, 0, 0, 0)\",3\n", "row 3: no layer of the network is "
                      "called 'block.cnv'; did you mean `block.conv`"),
    "outside": (GOOD + "head,\"(3, 0)\",3\n", r"row 3: TensorIndex \(3, 0\): the layer's tensor "
                r"is \(3, 4\)"),
    "too many axes": (GOOD + "head,\"(1, 0, 0)\",3\n", "row 3: TensorIndex"),
    "below zero": (GOOD + "head,\"(-1, 0)\",3\n", "is none, like"),
    "no index": (GOOD + "head,here,3\n", "row 3: TensorIndex 'here' is none"),
    "a high bit": (GOOD + "head,\"(1, 0)\",32\n", "bit 32: the format has the bits 0 to 31"),
    "no bit": (GOOD + "head,\"(1, 0)\",x\n", "row 3: Bit 'x' is no whole number"),
    "a long number": (GOOD + f"head,\"(1, 0)\",{'9' * 5000}\n", "row 3: Bit '999"),
    "a short row": (GOOD + "head\n", "row 3: 1 columns, the first row has more"),
    "counts that do not fit": (COUNTED + "head,\"(1, 0)\",3,10,5,5,1\n", "10 images, but 11 out"),
    "no images": (COUNTED + "head,\"(1, 0)\",3,0,0,0,0\n", "row 2: 0 images"),
    "an endless field": (GOOD + "h" * 200_000 + ",,\n", "row 3: field larger than"),
}  # fmt: skip


@pytest.fixture(scope="module")
def quantized(network_file, data_file, config_of):
    options = {
        "data__path": str(data_file),
        "model__channels": 2,
        "format__kind": "float32",
        "model__name": str(network_file),
        "model__classes": 3,
        "model__image_size": 6,
    }
    return prepare(config_of(**options), Work({}, SILENT)).quantized  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named(name, quantized, tmp_path):
    text, problem = BAD[name]
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_list(path, quantized)
    message = str(caught.value)
    assert message.startswith(f"campaign.list: {path}") and "\n" not in message
    assert len(message) < 400


def test_no_table_at_all_is_refused(quantized, tmp_path):
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 10)
    for name in ("bytes.csv", "missing.csv", "."):
        with pytest.raises(InputError, match=r"campaign\.list"):
            read_list(tmp_path / name, quantized)


def test_headings_and_indices_may_be_written_otherwise(quantized, tmp_path):
    (tmp_path / "list.csv").write_text("bit;layer\n".replace(";", ",").replace("\n", "") + (
        ",tensor_index,note\n31, head.weight ,\"[2,3]\",x\n\n0,head,\"2, 1\",\n"
    ))  # fmt: skip
    found = read_list(tmp_path / "list.csv", quantized)
    assert found.layer.tolist() == [2, 2] and found.element.tolist() == [11, 9]
    assert found.bit.tolist() == [31, 0] and found.counts is None


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_read_in_seconds(quantized, tmp_path):
    rows = [("block.conv", (n % 4, n % 2, n % 3, 0), n % 32) for n in range(100_000)]
    (tmp_path / "list.csv").write_text(written(rows))
    assert len(read_list(tmp_path / "list.csv", quantized)) == 100_000


def test_a_list_and_sites_do_not_go_together(run, tmp_path):
    (tmp_path / "list.csv").write_text(GOOD)
    with pytest.raises(InputError, match="leave one of them out"):
        run(tmp_path / "list.csv", campaign__sites=["head/weights/0/0"])
    with pytest.raises(InputError, match=r"faults\.kind: a list has bits"):
        run(tmp_path / "list.csv", faults__kind="burst")
