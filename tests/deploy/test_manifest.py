"""manifest.json: written, read again, and refused in one line where something is not right."""

import json
import subprocess
import sys

import numpy as np
import pytest

from afpjax import __version__
from afpjax.deploy.local_runner import LocalRunner
from afpjax.deploy.manifest import NAME, LayerPieces, TensorInfo, joined, read_manifest
from afpjax.inputs.errors import InputError

from .exports import drawn, mapped, quantized_of


@pytest.fixture(scope="module")
def exported():
    params = {"a": {"w": drawn(4, 6)}, "b": {"w": drawn(6, 3)}}
    quantized = quantized_of(
        lambda p, x: np.float32(1) * (x @ p["a"]["w"]) @ p["b"]["w"], params, drawn(2, 4)
    )
    return mapped(quantized, devices=("a b", "A/B", "c"))


@pytest.fixture
def folder(exported, tmp_path):
    for name, content in exported.files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_what_is_written_is_read(exported, folder):
    assert read_manifest(folder) == exported.manifest
    images = drawn(3, 4)
    from_folder = LocalRunner(read_manifest(folder), folder)(images)
    in_memory = LocalRunner(exported.manifest, exported.files)(images)
    np.testing.assert_array_equal(from_folder, in_memory)
    # Files have names that every system takes and tells apart.
    assert [each.file for each in exported.manifest.devices] == ["a-b.onnx", "A-B-2.onnx"]
    # AutoDiCE's form: {"<device>_<resource>": [node names]}, layers among them.
    found = json.loads((folder / "mapping.json").read_text())
    assert list(found) == ["a b_cpu0", "A/B_cpu0"]
    assert "a" in found["a b_cpu0"] and "b" in found["A/B_cpu0"]


def changed(folder, **changes):
    record = json.loads((folder / NAME).read_text()) | changes
    (folder / NAME).write_text(json.dumps(record))


def test_a_folder_of_another_version(folder):
    major, minor, *_ = __version__.split(".")
    changed(folder, afpjax=f"{major}.{minor}.99")
    assert read_manifest(folder).batch == 1
    changed(folder, afpjax=f"{major}.{int(minor) + 1}.0")
    with pytest.raises(InputError, match=rf"was exported by afpjax .*, this is {__version__}"):
        read_manifest(folder)
    changed(folder, afpjax=None)
    with pytest.raises(InputError, match="does not say which afpjax wrote it"):
        read_manifest(folder)


def test_files_that_are_missing_or_others(folder):
    content = bytearray((folder / "a-b.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "a-b.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a-b\.onnx is not the file that was exported"):
        read_manifest(folder)
    (folder / "a-b.onnx").unlink()
    with pytest.raises(InputError, match=r"a-b\.onnx is missing; export again"):
        read_manifest(folder)
    record = json.loads((folder / NAME).read_text())
    record["devices"][0]["file"] = f"../{folder.name}/a-b.onnx"
    changed(folder, devices=record["devices"])
    with pytest.raises(InputError, match="a file lies outside its folder"):
        read_manifest(folder)
    (folder / NAME).unlink()
    with pytest.raises(InputError, match=r"^serve\.export: .* has no manifest\.json; name the run"):
        read_manifest(folder)
    with pytest.raises(InputError, match=r"^other: "):
        read_manifest(folder, "other")


@pytest.mark.parametrize("text", ["{", "[]", '{"afpjax": "VERSION"}'])
def test_a_manifest_that_is_damaged(folder, text):
    (folder / NAME).write_text(text.replace("VERSION", __version__))
    with pytest.raises(InputError) as error:
        read_manifest(folder)
    assert "export again" in str(error.value) and "\n" not in str(error.value)


def test_devices_need_no_jax():
    """Their processes are small, and start quickly."""
    program = "import sys, afpjax.deploy.service.worker; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_pieces_are_put_together_by_who_answers():
    """[1, 4, 2]: neuron 0 twice, 3 lost; a copy that does not answer is not looked at."""
    neurons, substitute = ((0, 2), (0, 1)), (9.0, 8.0, 7.0, 6.0)
    pieces = LayerPieces(
        layer="l", axis=1, made=("l@a", "l@b"), neurons=neurons, substitute=substitute
    )
    made = {0: np.full((1, 2, 2), 5.0, np.float32), 1: np.full((1, 2, 2), np.nan, np.float32)}
    made[1][:, 1] = 4
    info = TensorInfo(shape=(1, 4, 2), dtype="float32")
    whole = joined(pieces, info, np.array([0, 1, 0, -1]), made)
    np.testing.assert_array_equal(whole[0, :, 0], [5, 4, 5, 6])
    assert whole.dtype == np.float32 and whole.shape == (1, 4, 2)


def test_a_mapping_has_no_placement(exported):
    with pytest.raises(InputError, match="a mapping has no placement"):
        exported.manifest.answering(())
