"""The package as it is installed: from wherever Python starts, with zoo and experiment files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Prints where the package lies, having found the zoo, a shipped experiment file and the version.
LOOK = (
    "import afpjax, pathlib; from importlib import import_module; "
    "assert callable(afpjax.models.load) and afpjax.__version__[0].isdigit(); "
    "folder = pathlib.Path(next(iter(import_module('afpjax.configs').__path__))); "
    "assert (folder / 'digits.toml').is_file(); "
    "assert afpjax.models.__name__ == 'afpjax.models'; print(afpjax.__file__)"
)
pytestmark = pytest.mark.slow  # 60 s: each case builds the package


def run(*words: object, folder: Path) -> str:
    done = subprocess.run(
        [*map(str, words)], cwd=folder, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Without the folders that the tests themselves add."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The files of the repository in a folder named `afpjax`, as `git clone` leaves them."""
    folder = tmp_path_factory.mktemp("holds the clone") / "afpjax"
    left_out = shutil.ignore_patterns(
        ".git", "build", "dist", "*.egg-info", "__pycache__", ".venv*"
    )
    shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)
    return folder


@pytest.fixture(scope="module", params=["wheel", "wheel of the sdist", "editable"])
def installed(request, clone, tmp_path_factory) -> tuple[str, Path, Path]:
    """An environment with the package in it: how, its Python, and its site-packages."""
    tmp_path = tmp_path_factory.mktemp("installed")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    packages = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    dependencies = [folder for folder in sys.path if folder.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    source: list[object] = [clone]
    if request.param == "wheel of the sdist":
        run(sys.executable, "-m", "build", "--sdist", "-o", tmp_path, clone, folder=tmp_path)
        source = [*tmp_path.glob("*.tar.gz")]
    elif request.param == "editable":
        source = ["-e", clone]
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet")
    run(*pip, "--ignore-installed", *source, folder=tmp_path)
    return request.param, python, packages


def test_it_imports_from_everywhere(installed, clone, tmp_path):
    """The root, the folder that holds the clone (named as the package is) and an empty one."""
    how, python, packages = installed
    (tmp_path / "empty").mkdir()
    home = (clone if how == "editable" else packages) / "afpjax" / "__init__.py"
    for folder, expected in (
        (clone, clone / "afpjax" / "__init__.py"),  # what stands there goes first
        (clone.parent, home),
        (tmp_path / "empty", home),
    ):
        assert run(python, "-c", LOOK, folder=folder) == str(expected), (how, folder)
        run(python, "-m", "afpjax.run", "campaign", "--help", folder=folder)


def test_a_wheel_has_one_folder_and_every_file_of_it(installed, clone):
    how, _, packages = installed
    tops = {path.name for path in packages.iterdir()} - {"dependencies.pth", "__pycache__"}
    if how == "editable":
        assert not [name for name in tops if name.endswith(".py")]  # a path, no finder
        return
    assert {name for name in tops if not name.endswith(".dist-info")} == {"afpjax"}
    sources = {
        path.relative_to(clone if folder != "afpjax" else clone / "afpjax")
        for folder in ("afpjax", "models", "configs")
        for path in (clone / folder).rglob("*")
        if path.suffix in (".py", ".toml", ".typed", ".html", ".css", ".j2")
    }
    assert {
        path.relative_to(packages / "afpjax")
        for path in (packages / "afpjax").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    } == sources
