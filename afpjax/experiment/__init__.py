"""What every job starts from: network, data, platform, faults, each made when asked for."""

from afpjax.experiment.experiment import (
    SCENARIOS,
    EvaluatorParts,
    Experiment,
    prepare,
)

__all__ = ["SCENARIOS", "EvaluatorParts", "Experiment", "prepare"]
