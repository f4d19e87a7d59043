"""Job `campaign` through the command: what it refuses in one line, plans, full disks, going on."""

import errno
import json
import re
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afpjax.command import finish, store
from afpjax.command.store import RowStore
from afpjax.config.jobs import job_names
from afpjax.evaluate import engine
from afpjax.report.render import Page
from afpjax.run import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, module) -> Path:
    """An empty folder to work in; reports have tests of their own, and so has the clean speed."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(finish, "page", lambda view, job, settings: Page("<html>", {}))
    rate = engine.Engine.clean_rate
    monkeypatch.setattr(engine.Engine, "clean_rate", lambda self, draws: rate(self, draws, 0.01))
    return folder


@pytest.fixture
def good(file, tmp_path) -> list[str]:
    """A small campaign; a case changes one thing in it, by a later option.

    What only some of the designs use is in a file.
    """
    some = tmp_path / "good.toml"
    some.write_text("faults.bits = [4, 5]\ncampaign = {margin = 0.15, bits = [9, 15]}\n")
    return [
        *("campaign", "--out", "run", "--model.name", "afpjax_tiny_model:tiny"),
        *("--model.classes", "4", "--model.image_size", "8", "--data.name", "npz"),
        *("--data.path", str(file), "--data.mean", "0.5", "--data.std", "0.25"),
        *("--format.frac", "5", "--search.images", "16", "--config", str(some)),
    ]


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(capsys, words):
    """The line that is said, without its beginning."""
    capsys.readouterr()
    assert main(words) == 2
    out = capsys.readouterr()
    assert out.err.startswith("afpjax: error: ") and out.err.count("\n") == 1 and out.out == ""
    return out.err.removeprefix("afpjax: error: ").strip()


#: A run whose network is a function goes on where that is named again.
GO_ON = ["--resume", "--out", "run", "--model.name", "afpjax_tiny_model:tiny"]
#: One of the settings, one of the plan, one of the job and one of the machines that it asks for.
CASES = {
    "--campaign.margin 0.6": r"--campaign\.margin: 0\.6 is outside \[1e-05, 0\.5\]",
    "--campaign.mapping 0 1": r"--campaign\.mapping: job campaign uses it only where campaign\.tar",
    "--campaign.count 30": "campaign: there are 24 flip faults in weights of layer `head`, too few",
    "--cluster 127.0.0.1:1": r"run\.cluster: cannot reach 127\.0\.0\.1:1: Connection refused",
}


@pytest.mark.parametrize("words", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, good, words):
    for more in ([], ["--dry-run"])[: 1 if "cluster" in words else 2]:
        assert re.match(CASES[words], refused(capsys, [*good, *words.split(), *more]))
        assert everything(here) == []


@pytest.mark.parametrize("job", job_names())
def test_every_job_has_a_plan_and_writes_nothing_for_it(here, capsys, file, job):
    """--dry-run was for one job, and trained the network for it."""
    words = [job, "--dry-run", "--model.name", "afpjax_tiny_model:tiny"]
    words += ["--model.classes", "4", "--model.image_size", "8"]
    words += [] if job == "profile" else ["--data.name", "npz", "--data.path", str(file)]
    assert main(words) == 0
    out = capsys.readouterr()
    assert re.search(r"^all +[\d,.]+ +[\d,.]+$", out.out, re.M)
    assert re.search(r"^time .*\n^memory +[\d.]+ GB$", out.out, re.M)
    assert out.err == "" and everything(here) == [] and not (here.parent / "cache").exists()


ZOO = "--model.name resnet18 --model.width 0.02 --model.image_size 16"
PLANS = [
    *job_names(),
    "campaign --campaign.design neyman",
    "campaign --campaign.design exhaustive",
    "campaign --campaign.design bernoulli --campaign.rates 1e-3",
    "campaign --campaign.design bernoulli --campaign.rates 1e-9 --faults.shared read",
    "campaign --campaign.design listed --campaign.sites fc/weights/0/3",
    "campaign --campaign.targets weights activations link",
    "distribute --distribute.flips true",
    "distribute --distribute.search 20",
    "online --online.trace radiation-burst",
    "importance --importance.exact_passes 0",
    "export --export.kind placement",
    "serve --export.kind placement",
]


@pytest.mark.in_ci(
    "partition",
    "campaign --campaign.design bernoulli --campaign.rates 1e-3",
    "distribute --distribute.search 20",
)
@pytest.mark.parametrize("words", PLANS)
def test_no_plan_trains_a_network_of_the_zoo(here, capsys, monkeypatch, words):
    """A Bernoulli campaign's took 20 s, for the network that it had trained."""
    trained: list[Any] = []
    monkeypatch.setattr("afpjax.models.train.trained", lambda *given, **_: trained.append(given))
    assert main([*words.split(), *ZOO.split(), "--dry-run"]) == 0
    assert re.search(r"^time ", capsys.readouterr().out, re.M)
    assert not trained and everything(here) == []


def result(folder):
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("seconds", "throughput")}


@pytest.fixture
def disk(monkeypatch) -> SimpleNamespace:
    """A disk with room for so many pages of a store; 0 for as many as there are."""
    found, connect = SimpleNamespace(pages=0), sqlite3.connect

    def limited(*given: Any, **options: Any):
        made = connect(*given, **options)
        if found.pages:
            made.execute(f"PRAGMA max_page_count = {found.pages}")
        return made

    monkeypatch.setattr(store.sqlite3, "connect", limited)
    return found


def test_a_full_disk_keeps_what_was_worked_out(here, capsys, good, disk):
    assert main([*good, "--out", "whole"]) == 0
    disk.pages = 4
    line = refused(capsys, good)
    partial = here / ".run.partial"
    assert line == (
        f"{partial / 'store.sqlite'}: cannot be written: database or disk is full; what was "
        "worked out is kept, go on with: python -m afpjax.run --resume --out run --model.name "
        "afpjax_tiny_model:tiny"
    )
    names = sorted(path.name for path in partial.iterdir())
    assert names == ["config.toml", "store.sqlite"] and not (here / "run").exists()
    with RowStore(partial / "store.sqlite") as rows:  # and with as little room as before
        kept = dict(rows)
    assert 20 < len(kept) < 200
    assert refused(capsys, GO_ON) == line  # still no room
    with RowStore(partial / "store.sqlite") as rows:
        assert kept.keys() <= dict(rows).keys()
    disk.pages = 0
    # Another place is no other setting; that nobody is there comes out later, and undoes nothing.
    line = refused(capsys, [*GO_ON, "--cluster", "127.0.0.1:1", "--run.workers", "2"])
    assert line.startswith("run.cluster: cannot reach 127.0.0.1:1")
    assert main([*GO_ON, "--run.workers", "3", "--run.memory_gb", "0.5"]) == 0
    assert result(here / "run") == result(here / "whole")
    assert not partial.exists()


def test_a_disk_that_is_full_when_the_answer_is_written_loses_nothing(here, capsys, good):
    write = Path.write_bytes

    def full(path, content):
        if path.name == "result.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        line = refused(capsys, good)
    assert re.search("No space left on device; what was worked out is kept, go on with: .*", line)
    assert not (here / "run").exists() and (here / ".run.partial" / "store.sqlite").is_file()
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        run = engine.Engine.run
        patch.setattr(engine.Engine, "run", lambda *a: asked.append(len(a[2])) or run(*a))
        assert main(GO_ON) == 0
    assert sum(asked) < 20  # the fault-free logits and a few probes: no trial runs again
    assert result(here / "run")["design"]["trials"] > 100
