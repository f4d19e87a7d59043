"""A stream of images under faults: canaries that fail or not, and the true accuracy, which the
running system cannot see.

Shape legend: K draws, B images, C canaries, J probes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel, thresholds
from afpjax.inputs.errors import InputError
from afpjax.online.environment import MappingKey, PlatformState, nominal_state
from afpjax.online.rate_estimation import RATE_GRID, FailureCurve, failure_curve

# Numbers of the first draws of each kind: what a search has seen is not what the stream meets.
_STREAM_DRAWS, _PROBE_DRAWS, _CURVE_DRAWS = 2**16, 2**17, 2**18
_STREAM_SEED, _PROBE_SEED = 0xCA9A, 0x9B0B  # words that tell random streams apart


@dataclass(frozen=True)
class Stream:
    """Canaries through `evaluator`, which says whether each image is answered as it should be.

    Only images that are so without faults can fail, so these are the canaries. A step meets one of
    `draws` draws of weight faults, chosen by the seed and the step; the true accuracy is that of
    `held_out`, other images, over `trials` draws. Raises `InputError` where no image can fail.
    """

    evaluator: Evaluator
    held_out: Evaluator
    faults: FaultModel
    draws: int
    trials: int
    known: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict)  # rows worked out

    def __post_init__(self) -> None:
        if not self.pool.size:
            raise InputError(
                "online: no image is classified right even without faults, so there are no "
                "canaries; train the network, or give online.labels = false"
            )

    @cached_property
    def pool(self) -> Int[np.ndarray, " C"]:
        """Images that are answered as they should be without faults."""
        return np.flatnonzero(self.evaluator.clean(self.faults))

    @cached_property
    def clean_accuracy(self) -> float:
        """Fault-free accuracy on the held-out images."""
        return float(self.held_out.clean(self.faults).mean())

    def failing_share(
        self, mapping: MappingKey, state: PlatformState, canaries: int, seed: int, step: int
    ) -> float:
        """Share of one step's canaries that fail; all do where a device is gone."""
        if not state.runs(mapping):
            return 1.0
        rng = np.random.default_rng([seed, step, _STREAM_SEED])
        draw = _STREAM_DRAWS + int(rng.integers(self.draws))
        chosen = rng.choice(self.pool, canaries, replace=canaries > len(self.pool))
        return 1.0 - float(self._met(mapping, state, draw)[chosen].mean())

    def expected_failing_share(self, mapping: MappingKey, state: PlatformState) -> float:
        """The mean of `failing_share`: over all canaries, and all draws that the stream meets."""
        if not state.runs(mapping):
            return 1.0
        right = self._right(self.evaluator, mapping, state, self._every)
        return 1.0 - float(right[:, self.pool].mean())

    def probe(
        self, device: int, state: PlatformState, canaries: int, probes: int, seed: int, step: int
    ) -> Int[np.ndarray, " J"]:
        """How many canaries fail in each probe of a device: the whole network on it."""
        rng = np.random.default_rng([seed, step, _PROBE_SEED, device])
        draws = _PROBE_DRAWS + rng.integers(self.draws, size=probes)
        right = self._right(self.evaluator, self._alone(device), state, draws.tolist())
        size = min(canaries, len(self.pool))
        chosen = np.stack([rng.choice(self.pool, size, replace=False) for _ in draws])
        return (~np.take_along_axis(right, chosen, axis=1)).sum(axis=1)

    def accuracy(self, mapping: MappingKey, state: PlatformState) -> float:
        """The true accuracy; 0 where a device is gone, as there is no answer."""
        if not state.runs(mapping):
            return 0.0
        return float(self._right(self.held_out, mapping, state, range(self.trials)).mean())

    def failure_curve(
        self, weight: float, activation: float, rates: Sequence[float] = ()
    ) -> FailureCurve:
        """How canaries fail with the whole network at each rate, the grid's and `rates`.

        `weight` and `activation` are their rates as shares of the larger one.
        """
        grid = sorted({*RATE_GRID, *rates})
        draws = [_CURVE_DRAWS + number for number in range(self.draws // 2)]
        right = [
            self._right(
                self.evaluator,
                self._alone(0),
                nominal_state((rate * weight,), (rate * activation,)),
                draws,
            )
            for rate in grid
        ]
        return failure_curve(grid, ~np.stack(right)[..., self.pool])

    @property
    def _every(self) -> Sequence[int]:
        """Numbers of all draws that steps meet."""
        return range(_STREAM_DRAWS, _STREAM_DRAWS + self.draws)

    def _met(self, mapping: MappingKey, state: PlatformState, draw: int) -> Bool[np.ndarray, " B"]:
        """Which images are right in a step. A mapping that meets one draw will meet most of them:
        all are run together, which takes less than one after the other."""
        rates = tuple((state.weight_rate[d], state.activation_rate[d]) for d in mapping)
        name = self.evaluator.name, rates, draw
        if name not in self.known:
            self._right(self.evaluator, mapping, state, self._every)
        return self.known[name]

    def _alone(self, device: int) -> MappingKey:
        return (device,) * len(self.evaluator.quantized.layers)

    def _right(
        self,
        evaluator: Evaluator,
        mapping: MappingKey,
        state: PlatformState,
        draws: Sequence[int],
    ) -> Bool[np.ndarray, "K B"]:
        """Which images are right under each draw; equal questions are worked out once."""
        rates = tuple((state.weight_rate[d], state.activation_rate[d]) for d in mapping)
        names = {draw: (evaluator.name, rates, draw) for draw in draws}
        missing = sorted(draw for draw, name in names.items() if name not in self.known)
        if missing:
            faults = state.faults(self.faults)
            limits = thresholds(faults, evaluator.quantized, np.array([mapping], np.int32))
            rows = evaluator.evaluate(faults, limits, missing)[0]
            self.known.update((names[draw], row) for draw, row in zip(missing, rows, strict=True))
        return np.stack([self.known[names[draw]] for draw in draws])


def rate_proportions(weight_rate: float, activation_rate: float) -> tuple[float, float]:
    """Two rates as shares of the larger one; both whole where there are none."""
    largest = max(weight_rate, activation_rate)
    return (weight_rate / largest, activation_rate / largest) if largest else (1.0, 1.0)
