"""Strictness for every test, compiled programs that they share, and optional real data."""

import os
import shutil
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Half of the tests' time goes into compiling, and many files compile the same programs. Workers,
# and processes that tests begin, take the folder over with the environment.
_CACHE, _OWN = "JAX_COMPILATION_CACHE_DIR", "AFPJAX_TEST_COMPILED"
if _CACHE not in os.environ:
    os.environ[_OWN] = os.environ[_CACHE] = tempfile.mkdtemp(prefix="afpjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what `in_ci` leaves out; an id that no case has is an error, not a gap in CI."""
    cases: dict[str, set[str]] = {}
    for item in items:
        marker = item.get_closest_marker("in_ci")
        if marker is None:
            continue
        test, case = item.nodeid.split("[", 1)
        cases.setdefault(test, set(marker.args)).discard(case.removesuffix("]"))
        if case.removesuffix("]") not in marker.args:
            item.add_marker(pytest.mark.slow)
    missing = {f"{test}[{case}]" for test, left in cases.items() for case in left}
    if missing and not any("::" in word for word in config.args):  # single cases may be asked for
        raise pytest.UsageError(f"in_ci names cases that are not there: {sorted(missing)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The controller, which outlives its workers, clears up."""
    if not hasattr(config, "workerinput") and _OWN in os.environ:
        shutil.rmtree(os.environ.pop(_OWN), ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real networks and images, or a skip that says how to get it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("AFPJAX_TEST_DATA", default))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real data at {folder}: set AFPJAX_TEST_DATA to the folder that holds it")
    return folder


class Reader(HTMLParser):
    """The page's text, headings, tags and tables (rows of cells' texts), breaks as spaces."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.headline = ""
        self.text = ""
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag in ("h1", "h2", "style", "td", "th", "p", "summary"):
            self._open = tag
        if tag == "h2":
            self.headings.append("")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "br":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")
        if self._open != "style":
            self.text += data
        if self._open == "h1":
            self.headline += data
        if self._open == "h2":
            self.headings[-1] += data
        if self._open in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, *head: str) -> list[list[str]]:
        """Rows of the one table whose heading begins with these cells."""
        found = [rows for rows in self.tables if rows[0][: len(head)] == list(head)]
        assert len(found) == 1, (head, [rows[0] for rows in self.tables])
        return found[0][1:]


@pytest.fixture
def shown() -> Callable[..., Reader]:
    """A view's page, read."""
    from afpjax.report.render import page

    return lambda view, job="job", settings=None: Reader(page(view, job, settings or {}).html)
