"""The command as a whole: exit statuses, the run folder, interruption and going on."""

import csv
import errno
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax import __version__
from afpjax.command import finish, store
from afpjax.command.store import RowStore
from afpjax.config.config import load
from afpjax.inputs.errors import InputError
from afpjax.jobs.shared.outcome import Outcome, plain, result_text, tables
from afpjax.jobs.shared.result import CoverageResult, ModelResult, NoteResult
from afpjax.jobs.shared.view import coverage
from afpjax.report.render import Page
from afpjax.report.view import View
from afpjax.run import main

MODEL = {"name": "m", "layers": [{"name": "a", "kind": "dense", "macs": 6, "weights": 2}]}

PAGE = "<html>é</html>"

# Twenty rows, each worked out with some delay and remembered; what is worked out is said on
# standard output.
SLOW = """
import hashlib, sys, time
from afpjax.jobs.shared.outcome import Outcome
from afpjax.report.view import View
from afpjax.run import main

def slow(config, work):
    rows = []
    for number in range(20):
        key = b"%d/%d" % (config.run.seed, number)
        if key not in work.memory:
            time.sleep(0.05)
            work.memory[key] = hashlib.sha256(key).digest()
            print(number, flush=True)
        rows.append({"layer": "a", "device": "d", "bytes": work.memory[key][0]})
    model = {"name": "m", "layers": [{"name": "a", "kind": "dense", "macs": 6, "weights": 2}]}
    return Outcome({"model": model, "costs": rows}, View("Done"))

sys.exit(main(jobs={"profile": slow}))
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("COLUMNS", "100")
    # The report has tests of its own; the runs in processes of their own below do render it.
    monkeypatch.setattr(finish, "page", lambda view, job, settings: Page(PAGE, {"x.svg": b"<svg>"}))
    return tmp_path


def costs(config, work):
    rows = [{"layer": "a", "device": f"d{i}", "bytes": config.run.seed + i} for i in range(3)]
    return Outcome({"model": MODEL, "costs": rows}, View("Done", summary=["Summary: [0.1, 0.2]"]))


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def result(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_a_run_fills_its_folder(here, capsys):
    assert main(["profile", "--seed", "4"], {"profile": costs}) == 0
    folder = here / "runs" / "profile-1"
    assert everything(here) == [
        "runs",
        "runs/profile-1",
        *(
            f"runs/profile-1/{name}"
            for name in ("config.toml", "costs.csv", "model-layers.csv", "report.html")
        ),
        "runs/profile-1/result.json",
        "runs/profile-1/x.svg",
    ]
    found = result(folder)
    assert 0 < found.pop("seconds") < 60
    assert list(found) == ["job", "version", "seed", "model", "costs"]
    assert (found["job"], found["seed"], found["version"]) == ("profile", 4, __version__)
    assert found["model"] == MODEL
    assert list(csv.DictReader((folder / "costs.csv").read_text().splitlines()))[2] == {
        "layer": "a",
        "device": "d2",
        "bytes": "6",
    }
    assert load(folder / "config.toml").run.seed == 4
    assert (folder / "report.html").read_text(encoding="utf-8") == PAGE
    assert (folder / "x.svg").read_bytes() == b"<svg>"
    out = capsys.readouterr()
    assert out.out == "Summary: [0.1, 0.2]\nDone: runs/profile-1/report.html\n"
    assert out.err == ""


def test_a_job_may_have_files_of_its_own(here):
    def job(config, work):
        return costs(config, work)._replace(files={"part.onnx": b"\0part"})

    assert main(["profile", "--out", "a"], {"profile": job}) == 0
    assert (here / "a" / "part.onnx").read_bytes() == b"\0part"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "result.json", "costs.csv", "x.svg"])
def test_a_job_s_own_files_lie_beside_the_command_s_and_replace_none(here, name):
    def job(config, work):
        return costs(config, work)._replace(files={name: b"mine"})

    with pytest.raises(ValueError, match="cannot write a file"):
        main(["profile", "--out", "a"], {"profile": job})
    assert not (here / "a").exists() and not (here / "x").exists()


def test_equal_runs_differ_in_seconds_alone(here):
    assert main(["profile", "--out", "a"], {"profile": costs}) == 0
    assert main(["--config", "a/config.toml", "--out", "b"], {"profile": costs}) == 0
    assert everything(here / "a") == everything(here / "b")
    for name in set(everything(here / "a")) - {"result.json"}:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
    lines = [(here / name / "result.json").read_text().splitlines() for name in "ab"]
    assert [line for line in lines[0] if "seconds" not in line] == [
        line for line in lines[1] if "seconds" not in line
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--sarch.population 3", "--sarch.population: there is no such option; did you mean"),
        ("--config bad.toml", "bad.toml: unknown key `sede` in [run]; did you mean `seed`?"),
        ("online", "run.job: this version of afpjax cannot do `online` yet; it can do profile"),
        ("profile --out full", "--out full: is there already; name a folder that is new or empty"),
        ("profile --resume --out full", "--resume: full is finished"),
    ],
)
def test_bad_input_is_one_line_and_does_nothing(here, capsys, words, message):
    def never(config, work):
        raise AssertionError("no work before the command is understood and the place is there")

    (here / "bad.toml").write_text("[run]\nsede = 1\n")
    (here / "full").mkdir()
    (here / "full" / "mine").write_text("")
    before = everything(here)
    assert main(words.split(), {"profile": never}) == 2
    out = capsys.readouterr()
    assert out.err.startswith(f"afpjax: error: {message}")
    assert out.err.count("\n") == 1 and out.out == ""
    assert everything(here) == before


def test_bad_input_found_by_the_job_leaves_nothing(here, capsys):
    def job(config, work):
        work.memory[b"a"] = b"b"
        raise InputError("model.weights: NaN in\nlayer 3; train it again")

    assert main(["profile", "--out", "x/y"], {"profile": job}) == 2
    assert capsys.readouterr().err == (
        "afpjax: error: model.weights: NaN in layer 3; train it again\n"
    )
    assert everything(here) == []


def test_a_failing_job_keeps_its_traceback_and_what_it_had_worked_out(here, capsys):
    """And so does bad input that comes out while a run is gone on with."""
    errors = [RuntimeError("a defect"), InputError("data.path: is gone")]

    def job(config, work):
        assert (b"a" in work.memory) == (len(errors) < 2)
        work.memory[b"a"] = b"b"
        if errors:
            raise errors.pop(0)
        return costs(config, work)

    with pytest.raises(RuntimeError, match="a defect"):
        main(["profile", "--out", "x y"], {"profile": job})
    again = ["--resume", "--out", "x y"]
    assert "--resume --out 'x y'" in capsys.readouterr().err
    assert main(again, {"profile": job}) == 2
    assert (here / ".x y.partial" / "store.sqlite").exists() and not (here / "x y").exists()
    assert main(again, {"profile": job}) == 0
    assert main(["profile", "--out", "z"], {"profile": costs}) == 0
    found, expected = result(here / "x y"), result(here / "z")
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


def test_going_on_with_other_settings_is_refused(here, capsys):
    def job(config, work):
        raise RuntimeError("a defect")

    (here / "own.toml").write_text("[run]\njob = 'profile'\nseed = 3\n[search]\nimages = 5\n")
    with pytest.raises(RuntimeError):
        main(["--config", "own.toml"], {"profile": job})
    capsys.readouterr()
    for words, difference in {
        "--seed 4": "run.seed: 3 -> 4",
        "--config own.toml --search.images 6": "search.images: 5 -> 6",
    }.items():
        assert main(["--resume", *words.split()], {"profile": job}) == 2
        error = capsys.readouterr().err
        assert f"runs/profile-1 was begun with other settings, {difference};" in error
    (here / "again.toml").write_text((here / "own.toml").read_text())
    same = "profile --resume --config again.toml --seed 3 --search.images 5"
    assert main(same.split(), {"profile": costs}) == 0
    assert everything(here / "runs") != []
    assert result(here / "runs" / "profile-1")["seed"] == 3


def test_a_run_that_another_version_began_is_refused_and_kept(here, capsys):
    def job(config, work):
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError):
        main(["profile", "--out", "x"], {"profile": job})
    file = here / ".x.partial" / "config.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"afpjax \S+\. ", "afpjax 0.0.1. ", text, count=1), encoding="utf-8")
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    capsys.readouterr()
    assert main(["--resume", "--out", "x"], {"profile": costs}) == 2
    line = capsys.readouterr().err
    assert "--resume: x was begun by afpjax 0.0.1, this is " in line and line.count("\n") == 1
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_missing_number_is_a_defect_and_never_written(here, capsys):
    def job(config, work):
        return Outcome({"model": MODEL, "costs": [{"latency_ms": np.float32("nan")}]}, View("Done"))

    with pytest.raises(ValueError, match=r"result\.costs\[0\]\.latency_ms is nan"):
        main(["profile", "--out", "x"], {"profile": job})
    assert not (here / "x").exists()


def test_a_warning_of_a_job_is_one_line(capsys):
    def job(config, work):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("layerwise says little", stacklevel=1)
        return costs(config, work)

    assert main(["profile"], {"profile": job}) == 0
    assert capsys.readouterr().err == "afpjax: warning: layerwise says little\n"


def slow_run(here, *words, kill=None):
    """The slow job in a process of its own: status, rows worked out, standard error."""
    (here / "slow.py").write_text(SLOW)
    command = [sys.executable, "slow.py", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        said = []
        for line in process.stdout:
            said.append(line)
            if kill and len(said) == 5:
                process.send_signal(kill)
        error = process.stderr.read()
    return process.returncode, [int(line) for line in said if line[0].isdigit()], error


def test_interrupted_killed_and_undisturbed_runs_end_with_the_same_result(here):
    """Ctrl-C, then SIGKILL, then to the end; against one that nothing disturbed."""
    status, first, error = slow_run(here, "profile", "--out", "a", kill=signal.SIGINT)
    assert status == 130
    assert error == "afpjax: interrupted; go on with: python -m afpjax.run --resume --out a\n"
    assert everything(here) == [
        ".a.partial",
        ".a.partial/config.toml",
        ".a.partial/store.sqlite",
        "slow.py",
    ]
    status, second, _ = slow_run(here, "--resume", "--out", "a", kill=signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (here / "a").exists()
    status, third, error = slow_run(here, "--resume", "--out", "a")
    assert (status, error) == (0, "")
    # No row twice, but for one whose process was killed between the store and the word.
    assert sorted(set(first + second + third)) == list(range(20))
    assert len(first + second + third) == 20
    assert not (here / ".a.partial").exists()

    assert slow_run(here, "profile", "--out", "b")[0] == 0
    assert "<html" in (here / "b" / "report.html").read_text(encoding="utf-8")
    assert {**result(here / "a"), "seconds": 0} == {**result(here / "b"), "seconds": 0}
    assert (here / "a/config.toml").read_bytes() == (here / "b/config.toml").read_bytes()


def remembering(config, work):
    """Two hundred rows; which of them had to be worked out stands in the result."""
    fresh = []
    for number in range(200):
        key = b"%d" % number
        if key not in work.memory:
            work.memory[key] = bytes(900)
            fresh.append({"layer": "a", "device": f"d{number}", "bytes": 1})
    return Outcome({"model": MODEL, "costs": fresh}, View("Done"))


def kept_rows(partial):
    with RowStore(partial / "store.sqlite") as rows:
        return set(rows)


def test_a_full_disk_keeps_what_was_worked_out(here, capsys, monkeypatch):
    """A store has room for so many pages; then there is no more, and later there is again.

    A run whose network is a function goes on where that is named again.
    """
    connect, partial = sqlite3.connect, here / ".x.partial"

    def limited(*given, **options):
        made = connect(*given, **options)
        made.execute("PRAGMA max_page_count = 40")
        return made

    own = ["--out", "x", "--model.name", "own:net"]
    again = ["--resume", *own]
    with monkeypatch.context() as patch:
        patch.setattr(store.sqlite3, "connect", limited)
        assert main(["profile", *own], {"profile": remembering}) == 2
        line = capsys.readouterr().err
        assert line == (
            f"afpjax: error: {partial / 'store.sqlite'}: cannot be written: database or disk is "
            "full; what was worked out is kept, go on with: python -m afpjax.run --resume --out x "
            "--model.name own:net\n"
        )
        kept = kept_rows(partial)
        assert 20 < len(kept) < 200 and everything(partial) == ["config.toml", "store.sqlite"]
        assert main(again, {"profile": remembering}) == 2  # still no room
        assert capsys.readouterr().err == line and kept <= kept_rows(partial)
    kept = kept_rows(partial) & {b"%d" % number for number in range(200)}
    # Another place is no other setting.
    assert (
        main([*again, "--run.workers", "3", "--run.memory_gb", "0.5"], {"profile": remembering})
        == 0
    )
    assert len(result(here / "x")["costs"]) == 200 - len(kept) and not partial.exists()


def test_a_disk_that_is_full_when_the_answer_is_written_loses_nothing(here, capsys, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert main(["profile", "--out", "x"], {"profile": remembering}) == 2
    line = capsys.readouterr().err
    assert re.search("No space left on device; what was worked out is kept, go on with: .*", line)
    assert not (here / "x").exists() and len(kept_rows(here / ".x.partial")) >= 200
    assert main(["--resume", "--out", "x"], {"profile": remembering}) == 0
    assert result(here / "x")["costs"] == []  # nothing runs again


def test_a_run_under_way_is_not_gone_on_with_by_another(here, capsys):
    def job(config, work):
        assert main(["--resume"], {"profile": costs}) == 2
        return costs(config, work)

    assert main(["profile", "--out", "runs/mine"], {"profile": job}) == 0
    assert "another process is at work there" in capsys.readouterr().err


def test_help_of_the_real_command_is_quick_to_start_and_quiet(here):
    """It lists the jobs that there are, and loads nothing that takes long."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['afpjax', '--help']\n"
        "try: runpy.run_module('afpjax', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'jax', 'numpy', 'matplotlib', 'flax', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "partition: which layer runs where" in done.stdout
    assert everything(here) == []


def cache_settings(here, monkeypatch, cache):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.25")
    monkeypatch.setenv("AFPJAX_CACHE", str(cache))
    assert main(["profile"], {"profile": costs}) == 0
    found = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # and with it what there was before
    return found


def test_compiled_programs_are_kept_in_the_cache_folder(here, monkeypatch):
    assert cache_settings(here, monkeypatch, here / "c") == str(here / "c" / "compiled")
    assert (here / "c" / "compiled").is_dir()
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.25"


def test_a_cache_folder_that_cannot_be_written_is_no_error(here, monkeypatch):
    (here / "file").write_text("")
    assert cache_settings(here, monkeypatch, here / "file" / "c") is None


def test_results_are_plain_json():
    value = {
        "a": np.float32(0.9),
        "b": np.arange(3),
        "c": (np.bool_(True), np.int64(2), "é"),
        "d": jnp.array([0.1, 0.25], jnp.float32),
        "e": jnp.bfloat16(0.1),
        "f": np.float64(0.1) * 3,
    }
    assert plain(value) == {
        "a": 0.9,
        "b": [0, 1, 2],
        "c": [True, 2, "é"],
        "d": [0.1, 0.25],
        "e": 0.10009765625,
        "f": 0.30000000000000004,
    }
    assert json.loads(result_text(plain(value))) == plain(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": [1.0, float("inf")]}, r"result\.x\[1\] is inf"),
        ({"x": np.array([np.nan], np.float32)}, r"result\.x\[0\] is nan"),
        ({"x": None}, r"result\.x: a NoneType has no place"),
        ({"x": {1, 2}}, r"result\.x: a set has no place"),
        ({1: 2}, r"result: 1 is no name for a key"),
        ({"x": np.complex64(1)}, r"result\.x: a complex has no place"),
    ],
)
def test_what_json_does_not_have_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        plain(value)


def test_result_text_keeps_records_on_a_line():
    text = result_text({"a": [{"x": i, "y": [0, i]} for i in range(9)], "b": list(range(99))})
    assert '\n    {"x": 0, "y": [0, 0]},\n' in text
    assert len(text.splitlines()) == 14


def test_tables_have_a_column_for_every_key_and_two_for_an_interval():
    records = [
        {"mapping": [0, 1], "accuracy_interval": [0.5, 1.0]},
        {"mapping": [1, 1], "note": 'a, "b"', "kept": True, "deep": [[1], [2]]},
    ]
    found = tables({"front": records, "search": {"rows": records[:1]}, "empty": [], "n": [1, 2]})
    assert list(found) == ["front", "search-rows"]
    assert found["front"] == (
        "mapping,accuracy_low,accuracy_high,note,kept,deep\n"
        "0 1,0.5,1.0,,,\n"
        '1 1,,,"a, ""b""",true,"[[1], [2]]"\n'
    )


def test_a_job_may_not_write_what_the_command_writes(here):
    def job(config, work):
        return Outcome({"seed": 3}, View("Done"))

    with pytest.raises(ValueError, match="seed"):
        main(["profile", "--out", "x"], {"profile": job})
    assert not (here / "x").exists()


def test_what_has_to_be_known_first_is_printed_first_and_what_is_left_out_last(capsys):
    note = NoteResult("chance", "Only chance.", {"accuracy": 0.1})
    outside = {"products of two activations": 10}
    model = ModelResult("m", [], CoverageResult(0.9, 1.0, outside, {}))
    view = View("Done", summary=["Summary"], warnings=[note.text], remarks=coverage(model))

    def job(config, work):
        return Outcome({"model": MODEL, "notes": [note]}, view)

    assert main(["profile", "--out", "run"], {"profile": job}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Note: Only chance. Summary Layers have 90.0 % of the multiply")
    assert "products of two activations (10 MACs)" in said
    told = [{"kind": "chance", "text": "Only chance.", "accuracy": 0.1}]
    assert result(Path("run"))["notes"] == told
