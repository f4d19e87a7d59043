"""How often job `online` would alarm while its environment stays as it is."""

import numpy as np
from scipy import stats

from afpjax.jobs.online.result import FalseAlarms
from afpjax.jobs.shared.result import Estimate
from afpjax.online.controller import OnlineController
from afpjax.online.environment import MappingKey, PlatformState

BATCHES = 10_000
_HALVINGS = 8  # of the rates between which the limit lies


def false_alarms(controller: OnlineController, first: MappingKey, seed: int) -> list[FalseAlarms]:
    """Alarms in streams of `BATCHES` steps under the first mapping, at constant rates.

    As the system was built; and with all devices' rates raised until just as many canaries fail as
    are tolerated, or a few less. Only where that is so: an alarm above the limit is no false one.
    """
    nominal = controller.nominal
    if controller.stream.expected_failing_share(first, nominal) > controller.rule.limit:
        return []
    environments = {
        "as built": nominal,
        "just below theta": _just_below(controller, nominal, first),
    }
    return [_alarms(controller, name, state, first, seed) for name, state in environments.items()]


def _just_below(
    controller: OnlineController, built: PlatformState, first: MappingKey
) -> PlatformState:
    """The highest rates, no device's below its own, under which the limit still holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tolerated = (
            controller.stream.expected_failing_share(first, _raised(built, middle))
            <= controller.rule.limit
        )
        low, high = (middle, high) if tolerated else (low, middle)
    return _raised(built, low)


def _raised(built: PlatformState, rate: float) -> PlatformState:
    return built._replace(
        weight_rate=tuple(max(own, rate) for own in built.weight_rate),
        activation_rate=tuple(max(own, rate) for own in built.activation_rate),
    )


def _alarms(
    controller: OnlineController, name: str, state: PlatformState, first: MappingKey, seed: int
) -> FalseAlarms:
    stream, hours = controller.stream, BATCHES * controller.step_ms / 3600e3
    shares = np.array(
        [
            stream.failing_share(first, state, controller.canaries, seed, step)
            for step in range(BATCHES)
        ]
    )
    alarms = controller.rule.count_alarms(shares)
    # The exact interval of a Poisson count.
    low = float(stats.chi2.ppf(0.025, 2 * alarms)) / 2 if alarms else 0.0
    high = float(stats.chi2.ppf(0.975, 2 * alarms + 2)) / 2
    return FalseAlarms(
        batches=BATCHES,
        failing=stream.expected_failing_share(first, state),
        alarms=alarms,
        alarms_per_hour=Estimate(alarms / hours, low / hours, high / hours),
        environment=name,
    )
