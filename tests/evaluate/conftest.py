"""The small network that faults are tested on, and what an engine runs."""

import pytest

from afpjax.evaluate.execution import Execution

from ..faults.conftest import images as images
from ..faults.conftest import labels as labels
from ..faults.conftest import network_of as network_of
from ..faults.conftest import quantized as quantized


@pytest.fixture
def ran(monkeypatch):
    """What ran to its end, as (execution, prepared plan, block of images)."""
    seen = []

    def outcomes(self, prepared, kernels, block, run=Execution.outcomes):
        made = run(self, prepared, kernels, block)
        seen.append((self, prepared, block))
        return made

    monkeypatch.setattr(Execution, "outcomes", outcomes)
    return seen
