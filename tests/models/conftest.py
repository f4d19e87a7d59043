"""What the tests of training share."""

# pyright: reportMissingImports=false
import pytest

from afpjax.models import zoo

from . import tiny


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a zoo that has the tiny network."""
    monkeypatch.setenv("AFPJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(zoo.NETWORKS, "tiny", tiny.Tiny)
    return tmp_path / "cache"


@pytest.fixture
def dataset():
    return tiny.dataset()
