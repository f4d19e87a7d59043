"""What every job starts from: network, data, platform, faults, each made when asked for."""

from afpjax.experiment.experiment import (
    SCENARIOS,
    EvaluatorParts,
    Experiment,
    prepare,
)
from afpjax.experiment.given import Given, Labelled, settings_of_network

__all__ = [
    "SCENARIOS",
    "EvaluatorParts",
    "Experiment",
    "Given",
    "Labelled",
    "prepare",
    "settings_of_network",
]
