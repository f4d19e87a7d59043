"""Strictness for every test, and the one way to the optional real data."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real networks and images, or a skip that says how to get it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("AFPJAX_TEST_DATA", default))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real data at {folder}: set AFPJAX_TEST_DATA to the folder that holds it")
    return folder
