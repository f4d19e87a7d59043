"""Files of users: opened in one place, where they are regular and within bounds."""

import ast
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from afpjax.inputs.array_files import read_npz
from afpjax.inputs.errors import InputError, quoted
from afpjax.inputs.files import CSV, TOML, Kind, parsed, read_bytes, read_json, read_text, read_toml

from ..test_imports import LIBRARY, MODELS

#: Calls that open a file, by the last part of their name, or the whole where that says too little.
OPENERS = {
    *("open", "read_text", "read_bytes", "fromfile", "memmap", "loadtxt", "genfromtxt"),
    *("sqlite3.connect", "mmap", "np.load", "onnx.load", "torch.load", "pickle.load"),
    *("pickle.loads", "safe_open"),
    *("json.load", "tomllib.load", "ZipFile", "load_external_data_for_tensor", "import_module"),
}
#: Who may call them, with why.
ALLOWED = {
    "afpjax.inputs.files": {"open"},
    "afpjax.inputs.array_files": {"ZipFile", "open"},  # on what `opened` gives; a zip's member
    "afpjax.data.image_files": {"Image.open"},  # on what `files.opened` gives
    "afpjax.models.weight_files": {"safe_open", "torch.load", "open", "import_module"},
    "afpjax.network.compiler": {"Path('/proc/cpuinfo').read_text"},  # the system's, not a user's
    "afpjax.command.store": {"sqlite3.connect"},
    "afpjax.command.terminal": {"open", "os.open"},  # the null device
    "afpjax.report.style": {"read_text"},  # the style sheet that comes with afpjax
    "afpjax.search.program": {"os.open"},  # the null device
}


def named(call: ast.Call) -> str:
    return ast.unparse(call.func)


def test_files_of_users_are_opened_in_one_place():
    """What is left to others opens no file of its own, or one that this package writes."""
    own = {"read_text", "read_bytes"}  # the functions of `files`, under their own names
    own |= {"import_module", "importlib.import_module", "self.open", "part.open"}
    opening = {}
    for name, path in (LIBRARY | MODELS).items():
        if name.startswith("afpjax.network.onnx"):
            continue  # ONNX files have bounds of their own, see tests/network/onnx
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {named(node) for node in ast.walk(tree) if isinstance(node, ast.Call)} - own
        allowed = ALLOWED.get(name, set())
        opening[name] = {
            call
            for call in calls
            if {call, call.rpartition(".")[2]} & OPENERS
            and not {call, call.rpartition(".")[2]} & allowed
        }
    assert len(opening) > 100
    assert not {name: calls for name, calls in opening.items() if calls}


def refusal(path, read=read_toml):
    begun = time.monotonic()
    with pytest.raises(InputError) as caught:
        read(path, "a.setting")
    assert time.monotonic() - begun < 5 and "\n" not in str(caught.value)
    assert str(caught.value).startswith("a.setting: ")
    return str(caught.value)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    held = socket.socket(socket.AF_UNIX)
    held.bind(str(tmp_path / "socket"))
    assert refusal(tmp_path / "pipe").endswith("pipe is a named pipe, not a file")
    assert refusal(tmp_path / "socket").endswith("socket is a socket, not a file")
    held.close()
    assert refusal(tmp_path).endswith("is a folder, not a file")
    for device in ("/dev/zero", "/dev/full", "/dev/tty"):
        assert refusal(Path(device)).endswith("is a device, not a file")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert refusal(tmp_path / "link").endswith("is a device, not a file")


def test_what_is_not_there_or_has_an_impossible_name_is_refused(tmp_path):
    assert refusal(tmp_path / "none").endswith("none does not exist")
    assert "cannot be read" in refusal(Path("a\0b"))
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in refusal(tmp_path / "loop")


def test_what_is_larger_than_its_kind_is_not_read(tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 2**40)  # sparse: a terabyte of nothing
    assert "a TOML file may have 1 MiB" in refusal(path)
    assert "a JSON file may have 32 MiB" in refusal(path, read_json)
    assert ".npz file of plain arrays may have 16,384 MiB" in refusal(path, read_npz)


def test_files_that_do_not_say_their_size_are_bounded_too(tmp_path):
    """Those of /proc have none, and may not end."""
    with pytest.raises(InputError, match="it has more than 3 bytes"):
        read_bytes(Path("/proc/self/status"), "a.setting", Kind("word", 3))


def test_pointers_are_told_from_files(tmp_path):
    (tmp_path / "a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a git-LFS pointer; fetch it with `git lfs pull`" in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    "error", [RecursionError(), MemoryError(), OverflowError("x\ny")], ids=repr
)
def test_whatever_a_parser_raises_is_said_in_one_line(tmp_path, error):
    (tmp_path / "a").write_bytes(b"content")

    def parse(content: bytes) -> None:
        raise error

    text = refusal(tmp_path / "a", lambda path, setting: parsed(path, setting, CSV, parse))
    assert "a is no readable CSV file (" in text
    error = KeyboardInterrupt()  # is no bad file
    with pytest.raises(KeyboardInterrupt):
        parsed(tmp_path / "a", "a.setting", CSV, parse)


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "9" * 400, "[" * 9000, "'x"])
def test_numbers_and_nesting_beyond_bounds_are_no_toml(tmp_path, value):
    (tmp_path / "a").write_text(f"x = {value}\n")
    assert len(refusal(tmp_path / "a")) < 300 + len(str(tmp_path))


def test_text_has_to_be_text(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    assert "is not a text file in UTF-8" in refusal(tmp_path / "a")
    assert "is no readable TOML file" in refusal(
        tmp_path / "a", lambda path, setting: read_text(path, setting, TOML)
    )


def test_a_megabyte_that_expands_a_thousandfold_is_refused_before_it_does(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros(2**28, np.uint8))
    assert path.stat().st_size < 2**19
    assert "it would expand to 256 MiB" in refusal(path, read_npz)


def test_compressed_arrays_that_people_have_are_read(tmp_path):
    """Black images shrink a thousandfold too; up to 64 MiB that is nobody's harm."""
    arrays = {
        "a": np.zeros((1000, 32, 32, 3), np.uint8),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.array(3),
        "d": np.zeros((0, 4), np.float32),
        "e": np.array(["x", "yz"]),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz", "a.setting")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_errors_quote_is_short_and_printable():
    assert len(quoted("x" * 9999)) == 60 and len(quoted(10**5000)) < 60
    assert str(InputError("a\x1b[2J\nb \t c")) == r"a\x1b[2J b c"
    assert len(str(InputError("x" * 5000))) <= 600 and len(str(InputError("x " * 5000))) <= 2000
