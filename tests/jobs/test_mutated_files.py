"""Files that are damaged in thousands of ways: read, or refused in one line, within bounds.

Every reader gets the same small valid file, changed at random from a fixed seed: bytes flipped,
cut, doubled; numbers made huge, types swapped, values nested; zip members with other headers. What
comes out is a value or an `InputError` of one short line, nothing is printed, and memory stays
below 2 GB.
"""

# pyright: reportMissingImports=false
import io
import json
import random
import re
import time
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from afpjax.command.run_folder import RunFolder, started_with
from afpjax.command.store import RowStore
from afpjax.config import config
from afpjax.config.work import SILENT, Work
from afpjax.data.image_arrays import cifar10, npz
from afpjax.data.image_files import decoded, folders
from afpjax.data.images import Frame
from afpjax.deploy.manifest import NAME, read_manifest
from afpjax.deploy.service.plan import ServedExport
from afpjax.experiment import Experiment, prepare
from afpjax.hardware import cost_tables, load_board, load_link, load_platform
from afpjax.hardware.importers import read_layer_table
from afpjax.inputs.errors import InputError
from afpjax.jobs.export.choice import choice
from afpjax.jobs.shared import scoring
from afpjax.models import weight_files
from afpjax.network.onnx import load_onnx
from afpjax.online import environment
from afpjax.online.environment import read_trace

from ..deploy.exports import drawn, mapped, quantized_of
from ..network.onnx.onnx_files import classifier

COUNT = 120  # mutations of each reader's file
ONNX_COUNT = 60  # of an ONNX file: each may be traced
MOST_BYTES = 2 * 2**30
SECONDS = 10.0
HARDWARE = Path(config.__file__).parents[1] / "hardware"
TRACES = Path(config.__file__).parents[1] / "online" / "traces"

NUMBERS = (
    *("9" * 400, "9" * 5000, "-" + "9" * 30, "0x" + "f" * 6000, "1e308", "1e-320", "-1", "0"),
    *("nan", "inf", '"text"', "[]", "{}", "true", "[" * 4000, "3.5", f"{2**64}", "null"),
)
VALUES = (
    *(None, True, -1, 0, 2**70, 10**400, 1e308, 5e-324, "", "x" * 100_000, [], {}, [[[]]], 1.5),
    *("evil:make", "../../x", [1, "a"], {"a": {}}, "\x1b[2J\n\n", "a\x00b"),
)


class Reader(NamedTuple):
    """A small valid file, how it is read, and how, beside its bytes, it is changed."""

    content: bytes
    read: Callable[[Path], Any]
    change: Callable[[bytes, random.Random], bytes] | None = None
    name: str = "file"
    count: int = COUNT


def of_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bits flipped, a piece cut out, doubled, zeroed or exchanged for another."""
    data = bytearray(content)
    start, length = draw.randrange(len(data)), draw.choice((1, 4, 40, 400))
    match draw.randrange(6):
        case 0 | 1:
            for _ in range(draw.choice((1, 1, 3, 30))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 2:
            del data[start:]
        case 3:
            del data[start : start + length]
        case 4:
            data[start:start] = data[start : start + length] * draw.choice((1, 50))
        case _:
            data[start : start + length] = draw.choice((b"\0", b"\xff")) * length
    return bytes(data)


def of_text(content: bytes, draw: random.Random) -> bytes:
    """A number or word made another kind of value, a line doubled, taken out or made long."""
    text = content.decode()
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    match draw.randrange(6):
        case 0 | 1 | 2:
            found = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"\n]*\"|\btrue\b|\bfalse\b", text))
            match_ = draw.choice(found)
            return (text[: match_.start()] + draw.choice(NUMBERS) + text[match_.end() :]).encode()
        case 3:
            lines.insert(place, draw.choice(lines))
        case 4:
            del lines[place]
        case _:
            lines[place] = lines[place].rstrip("\n") + "x" * 200_000 + "\n"
    return "".join(lines).encode()


def of_json(content: bytes, draw: random.Random) -> bytes:
    """A value anywhere made another, a key taken out, or everything nested deeply."""
    record = json.loads(content)
    if draw.randrange(30) == 0:
        return b"[" * 100_000 + content
    home, key = record, draw.choice(list(record))
    while isinstance(home[key], dict | list) and home[key] and draw.randrange(5):
        home = home[key]
        key = draw.choice(list(home) if isinstance(home, dict) else list(range(len(home))))
    if draw.randrange(5) == 0:
        del home[key]
    else:
        home[key] = draw.choice(VALUES)
    text = json.dumps(record)
    return re.sub(r"\b2\b", lambda found: draw.choice(("2", "2", "9" * 5000)), text).encode()


HEADERS = (
    "'descr': '|V2147483647', 'fortran_order': False, 'shape': (1,)",
    "'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)",
    "'descr': '|u1', 'fortran_order': False, 'shape': (0, 1000000000000, 1000000000000)",
    "'descr': '|u1', 'fortran_order': True, 'shape': (" + "-" * 5000 + "1,)",
    "'descr': '|O', 'fortran_order': False, 'shape': (2,)",
    "'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)",
    "'descr': '<f4', 'fortran_order': False, 'shape': ()",
    "'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 90 + ")",
    "'descr': '<f4', 'shape': (2,)",
    "__import__('evil')",
)


def of_zip(content: bytes, draw: random.Random) -> bytes:
    """A member with another header, no header, a hundred megabytes, or another method and flags."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            members[name] = archive.read(name)
    name = draw.choice(list(members))
    method = zipfile.ZIP_STORED
    match draw.randrange(6):
        case 0 | 1:
            header = f"{{{draw.choice(HEADERS)}, }}".encode()
            body = draw.choice((b"", b"\0" * 8, members[name][128:]))
            members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body
        case 2:
            members[name] = draw.choice((b"", b"no array", members[name][:70]))
        case 3:
            members[name], method = bytes(100 * 2**20), zipfile.ZIP_DEFLATED
        case 4:
            method = draw.choice((zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED))
        case _:
            members[draw.choice(("labels", "x", "images.npy"))] = members.pop(name)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method, compresslevel=1) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    data = bytearray(made.getvalue())
    if draw.randrange(3) == 0:  # flags and methods, in both of a zip file's directories
        for begins, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            place = data.find(begins) + offset
            data[place : place + 4] = bytes(
                (draw.choice((1, 8, 64)), 0, draw.choice((6, 8, 97)), 0)
            )
    return bytes(data)


def saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    held = io.BytesIO()
    save(held)
    return held.getvalue()


def picture(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 30, 3)).astype(np.uint8)
    return saved(lambda held: Image.fromarray(noise).save(held, kind))


def arrays(**named: Any) -> bytes:
    return saved(lambda held: np.savez(held, **named))


TABLE = b"No.;Layer;Latency [ms];Energy [mJ]\n1;conv1;2.5;0.45\n2;fc;9.3;1.5\n"
EVENTS = b"step,device,weight_rate,present\n5,0,0.5,\n7,1,0.25,false\n9,simba,,true\n"


def of_trace(path: Path) -> None:
    trace, rates = read_trace(str(path)), (0.1,) * 3
    names = ("eyeriss", "simba", "simba-ecc")
    trace.check_devices(names)
    if trace.steps < 10_000:
        roles = {str(role): 0 for role in environment.ROLES}
        trace.states(names, environment.nominal_state(rates, rates), roles, 1)


def of_store(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"), RowStore(path) as rows:
        for key in list(rows):
            rows.get(key)
        rows[b"new"] = b"row"
        assert rows[b"new"] == b"row"


def of_labels(path: Path) -> None:
    folders(path.parent)


def with_files(path: Path) -> None:
    """As `serve` goes on from an export."""
    manifest = read_manifest(path.parent)
    exported = ServedExport.of_folder(manifest, path.parent, manifest.names)
    exported.plan(0, ())
    exported.used_bytes()
    if manifest.kind == "placement":
        manifest.answering([0])


def earlier_runs(experiment: Experiment) -> tuple[bytes, bytes]:
    """What is read of result.json of jobs partition and importance."""
    layers = experiment.graph.layers
    partition = {
        "job": "partition",
        "model": {
            "layers": [{"name": e.name, "neurons": e.neurons, "macs": e.macs} for e in layers]
        },
        "devices": list(experiment.platform.names),
        "selected": {"mapping": [0] * len(layers)},
    }
    importance = {
        "job": "importance",
        "model": {"name": experiment.config.model.name},
        "images": {"count": 4},
        "divergence": {"method": "exact"},
        "target": "loss",
        "layers": [
            {"name": e.name, **{score: [0.5] * e.neurons for score in ("l1", "taylor", "jsd")}}
            for e in layers
        ],
    }
    return json.dumps(partition).encode(), json.dumps(importance).encode()


def of_runs(given: Callable[..., Experiment]) -> dict[str, Reader]:
    """Readers of experiments, devices and earlier runs; `given` prepares an experiment."""
    experiment = given(run__job="importance")
    partition, importance = earlier_runs(experiment)
    toml = config.to_toml(config.Config()).encode()

    @cache  # the file is read later, and anew
    def of(job: str, setting: str, folder: Path) -> Experiment:
        return given(run__job=job, **{setting: str(folder)})

    def exported(path: Path) -> None:
        choice(of("export", "export__source", path.parent))

    def scores(path: Path) -> None:
        scoring.scored(of("distribute", "distribute__importance", path.parent))

    def device(path: Path) -> None:
        cost_tables(experiment.graph, load_platform([str(path)], "ucie"))

    def resumed(path: Path) -> None:
        started_with(RunFolder(path.parent.parent / "r"))

    def link(path: Path) -> None:
        load_link(str(path))

    devices, links, boards = (HARDWARE / name for name in ("devices", "links", "boards"))
    return {
        "experiment": Reader(toml, config.load, of_text, "x.toml"),
        "resumed": Reader(toml, resumed, of_text, ".r.partial/config.toml"),
        "device": Reader((devices / "eyeriss.toml").read_bytes(), device, of_text, "d.toml"),
        "link": Reader((links / "wifi-n.toml").read_bytes(), link, of_text, "l.toml"),
        "board": Reader(next(boards.glob("*.toml")).read_bytes(), load_board, of_text, "b.toml"),
        "trace.toml": Reader((TRACES / "ageing.toml").read_bytes(), of_trace, of_text, "t.toml"),
        "trace.csv": Reader(EVENTS, of_trace, of_text, "t.csv"),
        "table": Reader(TABLE, read_layer_table, of_text),
        "result": Reader(partition, exported, of_json, "result.json"),
        "scores": Reader(importance, scores, of_json, "result.json"),
    }


def of_images() -> dict[str, Reader]:
    """Readers of data sets and pictures."""
    data = arrays(images=np.zeros((6, 8, 8, 1), np.uint8), labels=np.arange(6))
    cifar = np.random.default_rng(1).integers(0, 10, 3073 * 3).astype(np.uint8).tobytes()
    listed = b"a.png\tn1\t0\t0\n" + b"b.png\tn2\t0\t0\n"
    frame = Frame(8, 8, 3, Image.Resampling.BILINEAR)

    def pixels(path: Path) -> None:
        decoded(path, path.parent, frame)

    return {
        "data": Reader(data, lambda path: npz(path, "data.path", classes=6, channels=1), of_zip),
        "cifar10": Reader(
            cifar, lambda path: cifar10(path.parent, classes=10, channels=3), None, "test_batch.bin"
        ),
        **{
            kind: Reader(picture(kind), pixels)
            for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
        },
        "labels": Reader(listed, of_labels, of_text, "val_annotations.txt"),
    }


def of_networks(folder: Path) -> dict[str, Reader]:
    """Readers of weights, networks, exports and what a run remembers."""
    params = {"a": {"w": drawn(4, 6)}, "b": {"w": drawn(6, 3)}}
    export = mapped(quantized_of(lambda p, x: x @ p["a"]["w"] @ p["b"]["w"], params, drawn(2, 4)))
    with RowStore(folder / "store.sqlite") as rows:
        rows.update({bytes((n,)) * 32: bytes(300) for n in range(60)})
    weights = arrays(**{"fc.weight": drawn(4, 6), "fc.bias": drawn(4)})
    tensors, onnx = folder / "w.safetensors", classifier().SerializeToString()
    weight_files.save(tensors, {"fc": {"kernel": drawn(6, 4), "bias": drawn(4)}})

    def whole_export(path: Path) -> None:
        for name, content in export.files.items():
            (path.parent / name).write_bytes(content)

    return {
        "weights.npz": Reader(weights, weight_files.read, of_zip, "w.npz"),
        "safetensors": Reader(tensors.read_bytes(), weight_files.read, None, "w.safetensors"),
        "manifest": Reader(export.files[NAME], with_files, of_json, NAME, 4 * COUNT),
        "store": Reader((folder / "store.sqlite").read_bytes(), of_store, None, "s.sqlite"),
        "onnx": Reader(onnx, load_onnx, None, "n.onnx", ONNX_COUNT),
        "": Reader(b"", whole_export),
    }


@pytest.fixture(scope="module")
def readers(config_of, tmp_path_factory) -> dict[str, Reader]:
    def given(**changes: Any) -> Experiment:
        return prepare(config_of(**changes), Work({}, SILENT))

    return {**of_runs(given), **of_images(), **of_networks(tmp_path_factory.mktemp("given"))}


READERS = (
    *("experiment", "resumed", "device", "link", "board", "trace.toml", "trace.csv", "table"),
    *("data", "weights.npz", "safetensors", "cifar10", "PNG", "JPEG", "GIF", "BMP"),
    *("TIFF", "WEBP", "labels", "manifest", "result", "scores", "store", "onnx"),
)


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused_in_one_line(readers, tmp_path, capfd, name):
    reader, draw = readers[name], random.Random(name)
    path = tmp_path / reader.name
    path.parent.mkdir(exist_ok=True)
    if name == "manifest":
        readers[""].read(path)
    path.write_bytes(reader.content)
    reader.read(path)  # the file itself is a good one
    refused, before = 0, _memory_from_here()
    for number in range(reader.count):
        path.unlink(missing_ok=True)
        change = reader.change if reader.change and number % 3 else of_bytes
        path.write_bytes(change(reader.content, draw))
        begun = time.monotonic()
        try:
            reader.read(path)
        except InputError as error:
            refused += 1
            text = str(error)
            assert "\n" not in text and text.isprintable() and len(text) <= 2000, text
        assert time.monotonic() - begun < SECONDS
    # A damaged store is begun anew.
    assert refused > reader.count // 20 or name == "store"
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    assert _bytes_of("VmHWM") - before < MOST_BYTES


def _memory_from_here() -> int:
    """Bytes that the process has now; its highest figure counts from now on, other tests' gone."""
    Path("/proc/self/clear_refs").write_text("5")
    return _bytes_of("VmRSS")


def _bytes_of(figure: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{figure}:"))


def test_there_are_two_thousand_mutations(readers):
    assert set(readers) == {*READERS, ""}
    assert sum(reader.count for name, reader in readers.items() if name) >= 2_000
