"""Where runs lie: nothing half-written, nothing overwritten."""

import os
from pathlib import Path

import pytest

from afpjax.command.run_folder import begin, discard, find, publish, started_with
from afpjax.config.config import Config, first_difference, load
from afpjax.inputs.errors import InputError

FILES = {"result.json": b"{}", "report.html": b"<p>"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(out="", **run):
    return load(None, {"run.out": out, **{f"run.{key}": value for key, value in run.items()}})


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_appears_whole(here):
    folder = begin(config("a/b"))
    assert everything(here) == ["a", "a/.b.partial", "a/.b.partial/config.toml"]
    folder.store_file.write_bytes(b"rows")
    publish(folder, FILES)
    assert everything(here) == [
        "a",
        "a/b",
        "a/b/config.toml",
        "a/b/report.html",
        "a/b/result.json",
    ]
    assert folder.shown == os.path.join("a", "b")


def test_the_kept_experiment_runs_again_elsewhere(here):
    publish(begin(config("a", seed=7)), FILES)
    again = load(here / "a" / "config.toml")
    assert first_difference(again, config(seed=7)) == ""
    assert again.run.out == ""


def test_runs_are_numbered_and_a_number_under_way_is_not_free():
    first, second = begin(config()), begin(config())
    publish(second, FILES)
    other, third = begin(config(job="profile")), begin(config())
    names = [each.shown for each in (first, second, other, third)]
    assert names == [f"runs/{name}" for name in ("partition-1", "partition-2", "profile-1")] + [
        "runs/partition-3"
    ]


def test_an_empty_folder_is_filled(here):
    (here / "a").mkdir()
    publish(begin(config("a")), FILES)
    assert (here / "a" / "result.json").exists()


def test_a_discarded_run_leaves_nothing_that_it_made(here):
    (here / "x").mkdir()
    folder = begin(config("x/y/z/a"))
    folder.store_file.write_bytes(b"rows")
    discard(folder)
    assert everything(here) == ["x"]


def test_a_found_run_is_not_discarded(here):
    begin(config("a"))
    discard(find("a"))
    assert everything(here) == [".a.partial", ".a.partial/config.toml"]


def test_a_publish_that_was_killed_half_way_is_done_anew(here):
    folder = begin(config("a"))
    (folder.partial / "page").mkdir()
    (folder.partial / "page" / "old.csv").write_text("half")
    publish(folder, FILES)
    assert everything(here / "a") == ["config.toml", "report.html", "result.json"]


def test_what_is_there_is_never_replaced(here):
    (here / "file").write_text("mine")
    (here / "full").mkdir()
    (here / "full" / "file").write_text("mine")
    (here / "dangling").symlink_to(here / "nowhere" / "x")
    begin(config("unfinished"))
    before = everything(here)
    for name, reason in {
        "file": "is there already",
        "full": "is there already",
        ".": "is there already",
        "/": "is there already",
        "unfinished": "an unfinished run lies there; go on with --resume, or delete",
        "file/x": "cannot be written: Not a directory",
        "file/x/y": "cannot be written: Not a directory",
        "new/" + "x" * 300: "cannot be written: File name too long",
    }.items():
        with pytest.raises(InputError) as caught:
            begin(config(name))
        assert str(caught.value).startswith(f"--out {name}: {reason}")
        assert everything(here) == before


def test_the_current_folder_is_not_taken_away(here, monkeypatch):
    (here / "a").mkdir()
    monkeypatch.chdir(here / "a")
    for name in (".", "../a"):
        with pytest.raises(InputError, match="cannot be replaced; name a new folder inside"):
            begin(config(name))


def test_a_link_to_an_empty_folder_is_followed(here):
    (here / "real").mkdir()
    (here / "link").symlink_to(here / "real")
    publish(begin(config("link")), FILES)
    assert (here / "real" / "result.json").exists()
    assert (here / "link").is_symlink()


def test_the_last_unfinished_run_of_the_job_is_found(here):
    runs = [begin(config()), begin(config()), begin(config(job="profile")), begin(config())]
    publish(runs[3], FILES)
    for age, folder in zip((5, 90, 1), runs, strict=False):
        for path in folder.partial.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    (here / "runs" / ".partition-9.partial").mkdir()  # killed before it had begun
    assert find("", "partition").out == runs[0].out
    assert find("", "profile").out == find("").out == runs[2].out
    with pytest.raises(InputError, match="runs holds no unfinished online run"):
        find("", "online")


def test_a_run_killed_after_it_was_put_in_its_place_is_finished(here):
    folder = begin(config())
    folder.out.mkdir()
    (folder.out / "result.json").write_text("{}")
    with pytest.raises(InputError, match="runs holds no unfinished run"):
        find("")
    with pytest.raises(InputError, match="partition-1 is finished"):
        find("runs/partition-1")
    assert begin(config()).shown == "runs/partition-2"


def test_nothing_to_go_on_with_is_one_line():
    for out in ("a", "a/b", "x" * 300):
        with pytest.raises(InputError, match="holds no unfinished run"):
            find(out)
    with pytest.raises(InputError, match="runs holds no unfinished run; name one with --out"):
        find("")


def test_only_the_version_that_began_a_run_goes_on_with_it():
    folder = begin(config("a", seed=5))
    assert started_with(folder) == config(seed=5)
    text = folder.config_file.read_text()
    folder.config_file.write_text(text.replace("afpjax 0.", "afpjax 99.", 1))
    with pytest.raises(InputError, match=r"a was begun by afpjax 99\.\S+, this is"):
        started_with(folder)


def test_an_experiment_edited_by_hand_is_checked():
    folder = begin(Config())
    folder.config_file.write_text("[run]\nsede = 3\n")
    with pytest.raises(InputError, match="did you mean `seed`"):
        started_with(find(folder.shown))
