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
