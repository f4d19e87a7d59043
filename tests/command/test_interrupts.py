"""Ctrl-C, SIGTERM and SIGHUP wherever they strike: status 130, one line, nothing lost."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from afpjax.command import finish
from afpjax.jobs.shared.outcome import Outcome
from afpjax.report.render import Page
from afpjax.report.view import View
from afpjax.run import main

MODEL = {"name": "m", "layers": [{"name": "a", "kind": "dense", "macs": 6, "weights": 2}]}
GO_ON = "afpjax: interrupted; go on with: python -m afpjax.run --resume --out x\n"
BEFORE = "afpjax: interrupted before anything was begun\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finish, "page", lambda view, job, settings: Page("<html>", {}))
    return tmp_path


def strike(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def done(config, work):
    costs = [{"layer": "a", "device": "d", "bytes": 1}]
    return Outcome({"model": MODEL, "costs": costs}, View("Done"))


def wait():
    """What a job goes on with when the interrupt has vanished."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        time.sleep(0.01)
    raise AssertionError("nothing interrupted the run")


def in_a_collection():
    gc.callbacks.append(lambda phase, info: strike() if phase == "start" else None)
    try:
        gc.collect()
    finally:
        gc.callbacks.pop()
    wait()


class Dying:
    def __del__(self):
        strike()


def in_a_del():
    Dying()
    wait()


def in_code_that_catches_all():
    with suppress(BaseException):
        strike()
    wait()


def at_the_last_moment():
    with suppress(BaseException):
        strike()


def as_another_error():
    try:
        strike()
    except KeyboardInterrupt as error:
        raise RuntimeError("XlaRuntimeError: callback failed") from error


@pytest.mark.parametrize(
    "vanish",
    [in_a_collection, in_a_del, in_code_that_catches_all, at_the_last_moment, as_another_error],
)
def test_an_interrupt_that_is_swallowed_ends_the_run_all_the_same(here, capsys, vanish):
    def job(config, work):
        vanish()
        return done(config, work)

    assert main(["profile", "--out", "x"], {"profile": job}) == 130
    assert capsys.readouterr().err == GO_ON
    assert not (here / "x").exists()
    assert main(["--resume", "--out", "x"], {"profile": done}) == 0


def test_cleaning_up_after_an_interrupt_is_not_interrupted(capsys):
    cleaned = []

    def job(config, work):
        try:
            strike()
        finally:
            time.sleep(0.5)
            cleaned.append(True)
        return done(config, work)

    assert main(["profile", "--out", "x"], {"profile": job}) == 130
    assert cleaned and capsys.readouterr().err == GO_ON


@pytest.fixture
def hang_up_counts():
    """Also where the tests themselves run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("hang_up_counts")
def test_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in (number, signal.SIGURG)], sys.unraisablehook

    def job(config, work):
        strike(number)
        return done(config, work)

    assert main(["profile", "--out", "x"], {"profile": job}) == 130
    after = [signal.getsignal(each) for each in (number, signal.SIGURG)], sys.unraisablehook
    assert after == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def job(config, work):
            strike(signal.SIGHUP)
            return done(config, work)

        assert main(["profile", "--out", "x"], {"profile": job}) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_while_files_are_written_leaves_a_run_to_go_on_with(here, monkeypatch, capsys):
    write = Path.write_bytes

    def struck(path, content):
        strike()
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", struck)
    assert main(["profile", "--out", "x"], {"profile": done}) == 130
    assert capsys.readouterr().err == GO_ON
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["--resume", "--out", "x"], {"profile": done}) == 0
    assert not (here / ".x.partial").exists()


def test_an_interrupt_while_the_run_is_put_in_its_place_leaves_it_whole(here, monkeypatch, capsys):
    remove = shutil.rmtree

    def struck(folder, *, ignore_errors):
        strike()
        remove(folder, ignore_errors=ignore_errors)

    rename = Path.rename

    def renamed(path, target):
        monkeypatch.setattr(shutil, "rmtree", struck)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    assert main(["profile", "--out", "x"], {"profile": done}) == 130
    said = "afpjax: interrupted when the run was done; it lies whole in x\n"
    assert capsys.readouterr().err == said
    assert json.loads((here / "x" / "result.json").read_text())["costs"]
    assert not (here / ".x.partial").exists()


STUCK = """
import sys, time
from afpjax.run import main

def job(config, work):
    work.memory[b"a"] = b"b"
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(60)

sys.exit(main(["profile", "--out", "x"], jobs={"profile": job}))
"""


@pytest.mark.parametrize(("second", "least", "most"), [(False, 2.5, 5.0), (True, 0.0, 2.5)])
def test_a_run_that_does_not_end_is_ended(here, second, least, most):
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        if second:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert least < time.monotonic() - begun < most
    assert (process.returncode, said) == (130, GO_ON)
    assert main(["--resume", "--out", "x"], {"profile": done}) == 0


IMPORTING = """
import os, runpy, signal, sys

class Striking:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Striking())
runpy.run_module(sys.argv[2], run_name="__main__")
"""

AFTERWARDS = """
import os, signal
from afpjax.command import interrupts
interrupts.start()
from afpjax.run import main
try:
    main(["--version"])
except SystemExit:
    os.kill(os.getpid(), signal.SIGHUP)
"""


# What Python takes apart last; signals have their default meaning by then.
LAST = """
import os, signal, sys
from afpjax.command import interrupts
interrupts.start()
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
sys.last = Last()
from afpjax.run import main
try:
    main(["--version"])
except SystemExit:
    interrupts.end(0)
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([IMPORTING, "afpjax.config.config", "afpjax"], 130, BEFORE),
        ([IMPORTING, "tyro", "afpjax.run"], 130, BEFORE),
        ([AFTERWARDS], 130, "afpjax: interrupted when all was done\n"),
        ([LAST], 0, ""),
    ],
)
@pytest.mark.usefixtures("hang_up_counts")
def test_signals_before_and_after_the_run(words, status, said):
    ended = subprocess.run([sys.executable, "-c", *words], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (status, said)
