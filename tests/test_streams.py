"""Standard output and error that are closed or full, and a current folder that is gone."""

import subprocess
import sys

import pytest

VERSION = "--version"
BAD = "profile --model.name nothing"


def told(tmp_path, words: str, redirection: str) -> tuple[int, str]:
    """Status and standard error of the command, run by a shell."""
    command = f'"{sys.executable}" -m afpjax.run {words} --out run {redirection}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert [path.name for path in tmp_path.iterdir()] == []
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "redirection", "status", "said"),
    [
        (VERSION, ">/dev/full", 2, "afpjax: error: standard output cannot be written (No space"),
        (VERSION, ">&-", 0, ""),
        (BAD, "2>/dev/full", 2, ""),
        (BAD, "2>&-", 2, ""),
        (BAD, ">&- 2>&-", 2, ""),
    ],
)
def test_streams_that_take_nothing_leave_the_status(tmp_path, words, redirection, status, said):
    found = told(tmp_path, words, redirection)
    assert found[0] == status and found[1].startswith(said)
    assert found[1].count("\n") == bool(said)


def test_a_current_folder_that_is_gone_is_refused(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir ../gone; "{sys.executable}" -m afpjax.run profile'
    done = subprocess.run(["bash", "-c", command], cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("afpjax: error: the current folder is no more")
    assert done.stderr.count("\n") == 1
