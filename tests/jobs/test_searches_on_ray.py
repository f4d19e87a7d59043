"""Searches whose populations Ray workers evaluate: the result of one process."""

import os
from pathlib import Path

import pytest

from afpjax.evaluate.fleet import Fleet
from afpjax.jobs.shared.result import plain

from ..clusters import begin_cluster

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")


@pytest.fixture
def workers(module, monkeypatch):
    """Settings of two workers on a cluster of this machine's own, which can import the model."""
    folder = str(Path(module.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    begin_cluster()  # with processes that know the folder
    yield {"run__cluster": "auto", "run__workers": 2}
    ray.shutdown()


@pytest.fixture
def sent(monkeypatch):
    """How many rows went to workers."""
    counts: list[int] = []
    run = Fleet.run

    def counting(self, draws, rows):
        counts.append(len(rows))
        return run(self, draws, rows)

    monkeypatch.setattr(Fleet, "run", counting)
    return counts


@pytest.mark.in_ci("distribute-changes1")
@pytest.mark.parametrize(
    ("job", "changes"),
    [
        ("partition", {}),
        (
            "distribute",
            {
                "distribute__devices": [2],
                "distribute__methods": ["robustdice", "lop"],
                "distribute__search": -1,
                "distribute__compare": False,
                "distribute__curve": [],
            },
        ),
    ],
)
def test_two_workers_find_what_one_process_finds(
    outcome_of, result_of, workers, sent, job, changes
):
    alone = result_of(job, **changes)
    together = plain(outcome_of(job, **changes, **workers).result)
    assert sum(sent) > 50
    for result in (alone, together):
        result.pop("throughput", None)
    assert together == alone
