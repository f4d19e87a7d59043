"""The front door: short, its lines run, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_it_is_one_page():
    assert len(TEXT.split()) <= 900


def test_its_library_lines_run(tmp_path):
    """As a user's would, in a process of their own."""
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    right = [float(word) for word in re.findall(r"\d\.\d+", done.stdout)]
    assert len(right) >= 3 and right[0] > right[2]  # mappings as they are printed: safest first


def test_its_commands_name_options_and_files_that_there_are():
    listed = (ROOT / "tests" / "features.json").read_text(encoding="utf-8")
    words = re.findall(r"--([a-z_]+\.[a-z_]+)", TEXT)
    assert words and all(f'"{word}"' in listed for word in words)
    for line in " ".join(blocks("sh")).splitlines():
        for name in re.findall(r"--config ([\w-]+)", line):
            assert (ROOT / "configs" / f"{name}.toml").is_file()


def test_its_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and all((ROOT / link).exists() for link in links)


def test_ci_finds_its_line():
    """`.ci/run` installs and tests with the first line that names pytest."""
    line = next(line for line in TEXT.splitlines() if "python -m pytest" in line)
    assert re.fullmatch(r'pip install -e "\.\[test\]" && python -m pytest .*', line)
