"""Jobs through the command before they work: what is refused in one line, and plans."""

import re
from pathlib import Path
from typing import Any

import pytest

from afpjax.config.jobs import job_names
from afpjax.run import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, module) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.fixture
def words(file) -> list[str]:
    """The network of three layers and its images."""
    return [
        *("--model.name", "afpjax_tiny_model:tiny", "--model.classes", "4"),
        *("--model.image_size", "8", "--data.name", "npz", "--data.path", str(file)),
    ]


#: One of the settings, one of a use, one of the job and one of the machines that it asks for.
CASES = {
    "--campaign.margin 0.6": r"--campaign\.margin: 0\.6 is outside \[1e-05, 0\.5\]",
    "--campaign.mapping 0 1": r"--campaign\.mapping: job campaign uses it only where campaign\.tar",
    "--campaign.count 30": "campaign: there are 24 flip faults in weights of layer `head`, too few",
    "--cluster 127.0.0.1:1": r"run\.cluster: cannot reach 127\.0\.0\.1:1: Connection refused",
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, words, case):
    """Of a plan as of the run, which alone asks for machines."""
    given = ["campaign", "--out", "run", *words, "--search.images", "16", *case.split()]
    for more in ([], ["--dry-run"])[: 1 if "cluster" in case else 2]:
        assert main([*given, *more]) == 2
        out = capsys.readouterr()
        assert re.match(f"afpjax: error: {CASES[case]}", out.err)
        assert out.err.count("\n") == 1 and out.out == ""
        assert list(here.iterdir()) == []


@pytest.mark.parametrize("job", job_names())
def test_every_job_has_a_plan_and_writes_nothing_for_it(here, capsys, words, job):
    """--dry-run was for one job, and trained the network for it."""
    assert main([job, "--dry-run", *(words[:6] if job == "profile" else words)]) == 0
    out = capsys.readouterr()
    assert re.search(r"^all +[\d,.]+ +[\d,.]+$", out.out, re.M)
    assert re.search(r"^time .*\n^memory +[\d.]+ GB$", out.out, re.M)
    assert out.err == "" and list(here.iterdir()) == []
    assert not (here.parent / "cache").exists()


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
    assert not trained and list(here.iterdir()) == []
