"""The small network that faults are tested on, and what an engine runs."""

import pytest

from afpjax.evaluate.execution import Execution

from ..faults.conftest import images as images
from ..faults.conftest import labels as labels
from ..faults.conftest import network_of as network_of
from ..faults.conftest import quantized as quantized


@pytest.fixture
def ran(monkeypatch):
    """The plans and batches that ran to their end, as (execution, plan, images)."""
    seen = []

    def outcomes(self, plan, kernels, images, run=Execution.outcomes):
        made = run(self, plan, kernels, images)
        seen.append((self, plan, images))
        return made

    monkeypatch.setattr(Execution, "outcomes", outcomes)
    return seen
