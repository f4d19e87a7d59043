"""Strictness for every test, compiled programs that they share, and optional real data."""

import os
import shutil
import tempfile
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
