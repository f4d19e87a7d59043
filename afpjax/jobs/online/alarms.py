"""How often job `online` would alarm while its environment stays as it is."""

import numpy as np
from scipy import stats

from afpjax.jobs.shared.records import Record
from afpjax.online.environment import State
from afpjax.online.operation import Operation
from afpjax.online.stream import Mapping
from afpjax.online.watch import count_alarms

BATCHES = 10_000
_HALVINGS = 8  # of the rates between which the limit lies


def false_alarms(operation: Operation, built: State, first: Mapping, seed: int) -> list[Record]:
    """Alarms in streams of `BATCHES` steps under the first mapping, at constant rates.

    As the system was built; and with all devices' rates raised until just as many canaries fail as
    are tolerated, or a few less. Only where that is so: an alarm above the limit is no false one.
    """
    found, limit = [], operation.rule.limit
    if operation.stream.expected(first, built) <= limit:
        found.append(_alarms(operation, built, first, seed) | {"environment": "as built"})
        below = _just_below(operation, built, first)
        found.append(_alarms(operation, below, first, seed) | {"environment": "just below theta"})
    return found


def _just_below(operation: Operation, built: State, first: Mapping) -> State:
    """The highest rates, no device's below its own, under which the limit still holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tolerated = operation.stream.expected(first, _raised(built, middle)) <= operation.rule.limit
        low, high = (middle, high) if tolerated else (low, middle)
    return _raised(built, low)


def _raised(built: State, rate: float) -> State:
    return built._replace(
        weight_rate=tuple(max(own, rate) for own in built.weight_rate),
        activation_rate=tuple(max(own, rate) for own in built.activation_rate),
    )


def _alarms(operation: Operation, state: State, first: Mapping, seed: int) -> Record:
    stream, hours = operation.stream, BATCHES * operation.step_ms / 3600e3
    shares = np.array(
        [stream.failing(first, state, operation.canaries, seed, step) for step in range(BATCHES)]
    )
    alarms = count_alarms(operation.rule, shares)
    low = (
        float(stats.chi2.ppf(0.025, 2 * alarms)) / 2 if alarms else 0.0
    )  # exact for a Poisson count
    high = float(stats.chi2.ppf(0.975, 2 * alarms + 2)) / 2
    return {
        "batches": BATCHES,
        "failing": stream.expected(first, state),
        "alarms": alarms,
        "alarms_per_hour": alarms / hours,
        "alarms_per_hour_interval": [low / hours, high / hours],
    }
