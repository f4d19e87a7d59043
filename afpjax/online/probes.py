"""What a system believes of its devices' fault rates, and how it asks them.

A probe is the whole network on one device, loaded anew, and canaries through it (`current`).
Weights and activations of a device are taken to keep the proportion that they were built for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from afpjax.faults.model import FaultModel
from afpjax.online.costs_now import System, scaled
from afpjax.online.current import Estimate, estimate
from afpjax.online.environment import State, built_for
from afpjax.online.operation import Operation, Price
from afpjax.online.stream import Mapping, shares
from afpjax.search.objectives import costs


class Answer(NamedTuple):
    """Estimates (None for a device that is gone), the belief that follows, and what it took."""

    estimated: tuple[Estimate | None, ...]
    belief: State
    price: Price


def probed(operation: Operation, belief: State, state: State, seed: int, step: int) -> Answer:
    """Each present device's rate, from canaries on it alone; a known one stays if they allow it."""
    stream, found = operation.stream, list[Estimate | None]()
    weight, activation = list(belief.weight_rate), list(belief.activation_rate)
    price = Price()
    size = min(operation.canaries, len(stream.pool))
    for device, here in enumerate(state.present):
        if not here:
            found.append(None)
            continue
        failed = stream.probed(device, state, size, operation.probes, seed, step)
        known = [
            max(weight[device], activation[device]),
            max(_own(operation.system.faults, device)),
        ]
        made = estimate(operation.curves[device], failed, size, known)
        weight[device], activation[device] = _rates(operation.system, device, made.rate)
        found.append(made)
        price += _price(operation, state, device, size)
    return Answer(tuple(found), with_rates(belief, weight, activation), price)


def worst_allowed(
    operation: Operation, belief: State, mapping: Mapping, estimated: Sequence[Estimate | None]
) -> State:
    """The belief with the highest rate that probes allow of every device in use."""
    weight, activation = list(belief.weight_rate), list(belief.activation_rate)
    for device in {*mapping}:
        if (made := estimated[device]) is not None:
            rates = _rates(operation.system, device, made.interval[1])
            weight[device], activation[device] = rates
    return with_rates(belief, weight, activation)


def built_as(faults: FaultModel, devices: int) -> State:
    """The environment that a system was built for, which it believes in before it has asked."""
    weight, activation = zip(*(_own(faults, device) for device in range(devices)), strict=True)
    return built_for(weight, activation)


def with_rates(state: State, weight: Sequence[float], activation: Sequence[float]) -> State:
    """The state at other rates."""
    return state._replace(
        weight_rate=tuple(map(float, weight)), activation_rate=tuple(map(float, activation))
    )


def _price(operation: Operation, state: State, device: int, size: int) -> Price:
    """The whole network is loaded, and its probes are run."""
    layers = operation.system.layers
    cost = costs(scaled(operation.system.tables, state), np.full((1, layers), device, np.int32))
    times = size * operation.probes / operation.per_inference
    passes = Price(float(cost.latency_ms[0]) * times, float(cost.energy_mj[0]) * times)
    return operation.moving(range(layers)) + passes


def _rates(system: System, device: int, largest: float) -> tuple[float, float]:
    """A device's rates, of weights and activations, the larger of which is this."""
    weight, activation = shares(*_own(system.faults, device))
    return largest * weight, largest * activation


def _own(faults: FaultModel, device: int) -> tuple[float, float]:
    """The rates that a device was built for."""
    weight, activation = (
        float(rates[min(device, len(rates) - 1)])
        for rates in map(np.atleast_1d, (faults.weight_rate, faults.activation_rate))
    )
    return weight, activation
