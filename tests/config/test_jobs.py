"""What is found in folders: a job, a way to distribute neurons, an environment."""

import shutil
import subprocess
import sys
from pathlib import Path

import afpjax

SETTINGS = """
from typing import Annotated
from pydantic.dataclasses import dataclass
from afpjax.config.jobs import JobSettings
from afpjax.config.settings import STRICT, Range, setting

@dataclass(frozen=True, config=STRICT)
class Mine:
    count: Annotated[int, Range(1, 9)] = setting(3, "how many")

JOB = JobSettings(line="something of one's own", order=99, section=Mine, uses={"run": ()})
"""
RUN = """
def plan(config, work):
    return f"{config.mine.count} of them"
"""


def test_what_lies_in_its_folder_is_offered_and_nothing_else_is_touched(tmp_path):
    package = tmp_path / "afpjax"
    unwanted = shutil.ignore_patterns("models", "configs", "__pycache__")
    shutil.copytree(Path(afpjax.__file__).parent, package, ignore=unwanted)
    (package / "jobs" / "mine").mkdir()
    (package / "jobs" / "mine" / "settings.py").write_text(SETTINGS)
    (package / "jobs" / "mine" / "run.py").write_text(RUN)
    (package / "neurons" / "methods" / "mymethod.py").write_text("")
    (package / "online" / "traces" / "mytrace.toml").write_text("")

    def said(*words: str) -> tuple[str, str]:
        command = [sys.executable, "-m", "afpjax.run", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return " ".join(done.stdout.split()), done.stderr

    assert said("mine", "--mine.count", "5", "--dry_run") == ("5 of them", "")
    assert "--mine.count: 10 is outside [1, 9]" in said("mine", "--mine.count", "10")[1]
    assert "--faults.bits: job mine does not use it" in said("mine", "--faults.bits", "1")[1]
    words, _ = said("--help")
    assert "mine: something of one's own" in words
    assert "mymethod" in words and "mytrace" in words
