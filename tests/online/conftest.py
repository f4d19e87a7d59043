"""The five layers on three devices that searches are tested on, and forward runs of them."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.online.runtime_costs import OnlineSearch
from afpjax.search.explore import Budget
from tests.search.conftest import (
    every_mapping,
    faults,
    images,
    labels,
    platform,
    quantized,
    tables,
)

__all__ = ["every_mapping", "faults", "images", "labels", "platform", "quantized", "tables"]


@pytest.fixture(scope="session")
def evaluator(quantized, images, labels) -> Evaluator:
    return Evaluator(quantized, images, labels, 7)


@pytest.fixture(scope="session")
def held(quantized, images, labels) -> Evaluator:
    """Other draws on the same images."""
    return Evaluator(quantized, images, labels, 3, name="held")


@pytest.fixture(scope="session")
def search_of(tables, evaluator) -> Callable[..., OnlineSearch]:
    """A search of three generations of eight mappings, by two draws, of what is given."""

    def of(**settings):
        usual = {"budget": Budget(8, 3), "trials": 2, "key": jax.random.key(2)}
        return OnlineSearch(tables=tables, evaluator=evaluator, **{**usual, **settings})

    return of


@pytest.fixture(scope="session")
def directly(quantized, images, labels) -> Callable[..., np.ndarray]:
    """Right or wrong, [K, B], of a mapping's forward runs: without an evaluator."""

    def right(faults, mapping, trials, key=7):
        of = {"mapping": np.array(mapping), "faults": faults, "key": key}
        logits = [np.asarray(quantized(images, **of, trial=trial)) for trial in trials]
        return np.stack(logits).argmax(-1) == labels

    return right
