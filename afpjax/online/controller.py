"""How a running system is watched and asked: what it may spend, what it believes, when it moves.

A probe is the whole network on one device, loaded anew, and canaries through it
(`rate_estimation`). Weights and activations of a device are taken to keep the proportion of rates
that they were built for. Shape legend: D devices, L layers, T steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from afpjax.online.change_detection import AlarmRule
from afpjax.online.environment import MappingKey, PlatformState, nominal_state
from afpjax.online.exposure import Exposure
from afpjax.online.rate_estimation import FailureCurve, RateEstimate, estimate_rate
from afpjax.online.repartition import Decision
from afpjax.online.runtime_costs import OnlineSearch, energy_delay
from afpjax.online.stream import Stream, rate_proportions
from afpjax.search.objectives import costs, violation

#: A reason to act: the mapping in use costs more than it may.
ABOVE_LIMITS = "above limits"


class Price(NamedTuple):
    """What something costs once, beside the images of the stream."""

    ms: float = 0.0
    mj: float = 0.0

    def __add__(self, other: "Price") -> "Price":  # pyright: ignore
        return Price(self.ms + other.ms, self.mj + other.mj)


class ProbeResult(NamedTuple):
    """Estimates (None for a device that is gone), the belief that follows, and what it took."""

    estimates: tuple[RateEstimate | None, ...]
    belief: PlatformState
    price: Price


@dataclass(frozen=True)
class OnlineController:
    """How the system is run. `moving(layers)` prices the weights of some layers on the link."""

    search: OnlineSearch
    stream: Stream
    curves: tuple[FailureCurve, ...]  # of each device
    rule: AlarmRule
    theta: float  # accuracy that may be lost
    gain: float  # of accuracy, that a switch must be expected to bring
    dwell: int  # steps between decisions, at least
    review: int  # steps until the first mapping is considered again; 0: never
    canaries: int  # in a batch
    probes: int  # of a device, when it is asked
    batch: int  # images in a step
    per_inference: int  # images that the devices take at once; costs are of so many
    step_ms: float
    oracle: bool  # rates are read from the environment instead of estimated
    moving: Callable[[Sequence[int]], Price]
    exposure: Exposure  # of each layer, as it was learnt

    @property
    def nominal(self) -> PlatformState:
        """The environment that the system is built for; it believes in it before it has asked."""
        faults, devices = self.search.faults, len(self.curves)
        return nominal_state(faults.weight_rate, faults.activation_rate, devices)

    def probe(
        self, belief: PlatformState, state: PlatformState, seed: int, step: int
    ) -> ProbeResult:
        """Each present device's rate, from canaries on it alone; a known one stays if they allow
        it."""
        weight, activation = list(belief.weight_rate), list(belief.activation_rate)
        estimates, price = list[RateEstimate | None](), Price()
        size = min(self.canaries, len(self.stream.pool))
        for device, present in enumerate(state.present):
            if not present:
                estimates.append(None)
                continue
            failed = self.stream.probe(device, state, size, self.probes, seed, step)
            known = [max(weight[device], activation[device]), max(self._nominal_rates(device))]
            estimate = estimate_rate(self.curves[device], failed, size, known)
            weight[device], activation[device] = self._rates(device, estimate.rate)
            estimates.append(estimate)
            price += self._probe_price(state, device, size)
        return ProbeResult(tuple(estimates), belief.with_rates(weight, activation), price)

    def worst_allowed(
        self,
        belief: PlatformState,
        mapping: MappingKey,
        estimates: Sequence[RateEstimate | None],
    ) -> PlatformState:
        """The belief with the highest rate that probes allow of every device in use."""
        weight, activation = list(belief.weight_rate), list(belief.activation_rate)
        for device in {*mapping}:
            if (estimate := estimates[device]) is not None:
                weight[device], activation[device] = self._rates(device, estimate.interval[1])
        return belief.with_rates(weight, activation)

    def above_limits(
        self, state: PlatformState, belief: PlatformState, mapping: MappingKey
    ) -> bool:
        """Whether a mapping costs more than it may, for latencies or energies that are new.

        Those of `belief` were looked at when something was decided last: what could be done about
        them has been done.
        """
        if (state.latency, state.energy) == (belief.latency, belief.energy):
            return False
        cost = costs(self.search.tables_now(state), np.array([mapping], np.int32))
        return bool(violation(cost, self.search.limits(state))[0] > 0)

    def switch(
        self,
        belief: PlatformState,
        current: MappingKey,
        decision: Decision,
        reason: str,
        first: MappingKey,
    ) -> tuple[MappingKey | None, float]:
        """The mapping to go over to, None to stay; and its expected drop.

        A switch is for an expected gain, away from a lost device, or back within the limits. A look
        that neither an alarm nor the limits ask for may also go back to the first mapping, which is
        cheaper, where that is expected to stay well below theta.
        """
        (drop_first,) = decision.drops
        lost = not belief.runs(current)
        enough = max(self.theta - self.gain, self.theta / 2)
        may_return = reason not in ("accuracy", ABOVE_LIMITS) and not lost
        if may_return and belief.runs(first) and drop_first <= enough:
            product_first, product_now = energy_delay(
                self.search.tables_now(belief), np.array([first, current], np.int32), memory=False
            )
            if current != first and product_first < product_now:
                return first, drop_first
            if decision.drop_now <= enough:
                return None, decision.drop_now
        better = decision.drop <= decision.drop_now - self.gain
        affordable = reason == ABOVE_LIMITS and decision.drop <= max(enough, decision.drop_now)
        if lost or better or affordable:
            return (None if decision.mapping == current else decision.mapping), decision.drop
        return None, decision.drop_now

    def _nominal_rates(self, device: int) -> tuple[float, float]:
        return self.nominal.weight_rate[device], self.nominal.activation_rate[device]

    def _rates(self, device: int, largest: float) -> tuple[float, float]:
        """A device's rates, of weights and activations, the larger of which is this."""
        weight, activation = rate_proportions(*self._nominal_rates(device))
        return largest * weight, largest * activation

    def _probe_price(self, state: PlatformState, device: int, size: int) -> Price:
        """The whole network is loaded, and its probes are run."""
        layers = self.search.layers
        cost = costs(self.search.tables_now(state), np.full((1, layers), device, np.int32))
        times = size * self.probes / self.per_inference
        passes = Price(float(cost.latency_ms[0]) * times, float(cost.energy_mj[0]) * times)
        return self.moving(range(layers)) + passes
