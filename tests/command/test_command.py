"""The command line: what it may say, its help, and errors for what it cannot mean."""

import random
import re

import pytest

from afpjax import __version__
from afpjax.command import command
from afpjax.command.command import read
from afpjax.config.config import all_settings, load, sections, use_of
from afpjax.config.jobs import job_names, job_settings
from afpjax.inputs.errors import InputError


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        ("", {}),
        ("profile", {"run.job": "profile"}),
        ("profile --run.job profile", {"run.job": "profile"}),
        ("--seed 3 profile", {"run.seed": 3, "run.job": "profile"}),
        ("--out a --seed 3", {"run.out": "a", "run.seed": 3}),
        ("--search.population=32", {"search.population": 32}),
        ("--search.latency-cap-ms 2", {"search.latency_cap_ms": 2}),
        ("--search.latency_cap_ms=2.5", {"search.latency_cap_ms": 2.5}),
        ("--faults.bits 0 1 2", {"faults.bits": [0, 1, 2]}),
        ("--faults.bits 0,1,2", {"faults.bits": [0, 1, 2]}),
        ("--faults.weight_rate -1e-3 -0.5", {"faults.weight_rate": [-0.001, -0.5]}),
        ("--faults.weight_rate=", {"faults.weight_rate": []}),
        ("--model.image_size 32 profile", {"model.image_size": [32], "run.job": "profile"}),
        ("--model.image_size 49 10", {"model.image_size": [49, 10]}),
        ("--search.renew_draws false", {"search.renew_draws": False}),
        ("--faults.layers conv_1,conv-2", {"faults.layers": ["conv_1", "conv-2"]}),
        ("--model.name a_b-c.onnx", {"model.name": "a_b-c.onnx"}),
        ("--seed 1 --seed 2", {"run.seed": 2}),
    ],
)
def test_reads_options(words, overrides):
    assert read(words.split()) == (None, overrides, False, False)


def test_reads_file_and_resume(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("")
    assert read(["--config", str(path), "profile", "--resume"]) == (
        path,
        {"run.job": "profile"},
        True,
        False,
    )
    assert read(["campaign", "--dry-run"]) == (None, {"run.job": "campaign"}, False, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--search.populaton 3",
            "--search.populaton: there is no such option; did you mean `--search.population`?",
        ),
        (
            "--images 3",
            "--images: there is no such option; did you mean --data.images, --search.images, "
            "--campaign.images, --importance.images or --export.images?",
        ),
        ("--resme", "--resme: there is no such option; did you mean `--resume`?"),
        ("-q", "-q: there is no such option; python -m afpjax.run --help lists them"),
        ("--no-resume", "--no-resume: there is no such option"),
        ("partiton", "`partiton` is no job, and no option takes it; did you mean `partition`?"),
        ("--search.population 3 4", "`4` is no job, and no option takes it; the jobs are"),
        ("profile partition", "one job at a time; `profile` is not the only one"),
        ("--search.population", "--search.population: needs a value"),
        ("--faults.bits --resume", "--faults.bits: needs a value"),
        ("--config", "--config: needs a file, or the name of one shipped with afpjax"),
        ("--config nowhere.toml", "--config nowhere.toml: there is no such file"),
    ],
)
def test_refuses_what_means_nothing(words, message):
    with pytest.raises(InputError) as caught:
        read(words.split())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--search.population many", '--search.population: needs a whole number, got "many"'),
        ("--seed=", '--run.seed: needs a whole number, got ""'),
        ("--faults.weight_rate 0.1,2", "--faults.weight_rate: 2.0 is outside [0, 1]"),
        ("--model.image_size profile", '--model.image_size: needs a whole number, got "profile"'),
        ("--model.image_size=", "--model.image_size: needs one number, or two, rows and columns; "),
    ],
)
def test_values_are_refused_as_in_a_file(words, message):
    with pytest.raises(InputError) as caught:
        load(None, read(words.split()).overrides)
    assert str(caught.value).startswith(message)


def help_text(capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        read([*words, "--help"])
    assert caught.value.code in (0, None)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_help_tells_every_setting_by_section_and_every_job(capsys, monkeypatch):
    words = help_text(capsys, monkeypatch)
    for name, setting in all_settings().items():
        assert f"--{name} " in words
        assert " ".join(setting.help.split()) in words
        assert all(choice in words for choice in setting.choices)
    assert "mappings per generation, 4 to 100000 (default: 32)" in words
    assert "bits that may flip, lowest is 0, 0 to 31 (default: 0 1 2 3)" in words
    assert "(default: runs/JOB-N, next free N)" in words
    assert "--out FOLDER" in words and "--seed N" in words
    starts = [words.index(f"{section} options") for section in sections()]
    assert starts == sorted(starts)
    for name, job in job_settings().items():
        assert f"{name}: {job.line}" in words


@pytest.mark.parametrize("job", ["profile", "serve"])
def test_the_help_of_a_job_tells_its_settings_alone(capsys, monkeypatch, job):
    words = help_text(capsys, monkeypatch, job)
    told = {name for name in all_settings() if f"--{name} " in words}
    assert told == {name for name in all_settings() if use_of(name, job) is not None}


def test_help_tells_only_the_jobs_that_there_are(capsys):
    with pytest.raises(SystemExit):
        read(["--help"], ["profile"])
    text = capsys.readouterr().out
    assert "profile: " in text and "serve: " not in text


def test_shipped_experiments_are_told(capsys, monkeypatch):
    monkeypatch.setattr(command, "shipped", lambda: ["paper", "small"])
    assert "or one shipped with afpjax: paper, small" in help_text(capsys, monkeypatch)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        read(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"afpjax {__version__}\n"


def test_any_words_are_read_or_refused_in_one_line():
    """Nothing but `InputError` comes out, whatever stands on the line."""
    draw = random.Random(0)
    parts = [*(f"--{name}" for name in all_settings()), *job_names(), "--resume", "--config"]
    parts += [
        "--out",
        "",
        "-",
        "--",
        "---",
        "-1",
        "1e999",
        "nan",
        ",",
        "=",
        "--=",
        "a=b",
        "[",
        "%s",
    ]
    parts += ["{}", "é", "\udcff", "\0", "--search.popul", "--seed=", "--resume=1", "1,2", "true"]
    for _ in range(40):
        words = draw.choices(parts, k=draw.randrange(6))
        try:
            load(None, read(words).overrides)
        except InputError as error:
            assert "\n" not in str(error)
