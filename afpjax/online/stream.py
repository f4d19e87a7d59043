"""What a running system meets: canaries that fail or not, and the accuracy that nobody there sees.

Shape legend: K draws, B images, C canaries, J probes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel, thresholds
from afpjax.inputs.errors import InputError
from afpjax.online.current import GRID, Curve, curve
from afpjax.online.environment import State

Mapping = tuple[int, ...]

# Numbers of the first draws of each kind: what a search has seen is not what the stream meets.
_STREAM, _PROBES, _CURVES = 2**16, 2**17, 2**18
_RUN, _PROBE = 0xCA9A, 0x9B0B  # random streams


@dataclass(frozen=True)
class Stream:
    """Canaries through `evaluator`, which says whether each image is answered as it should be.

    Only images that are so without faults can fail, so these are the canaries. A step meets one of
    `draws` draws of weight faults, chosen by the seed and the step; the true accuracy is that of
    `held`, other images, over `trials` draws. Raises `InputError` where no image can fail.
    """

    evaluator: Evaluator
    held: Evaluator
    faults: FaultModel
    draws: int
    trials: int
    known: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pool.size:
            raise InputError(
                "online: no image is classified right even without faults, so there are no "
                "canaries; train the network, or give online.labels = false"
            )

    @cached_property
    def pool(self) -> Int[np.ndarray, " B"]:
        """Images that are answered as they should be without faults."""
        return np.flatnonzero(self.evaluator.clean(self.faults))

    @cached_property
    def clean(self) -> float:
        """Fault-free accuracy on the held-out images."""
        return float(self.held.clean(self.faults).mean())

    def failing(self, mapping: Mapping, state: State, canaries: int, seed: int, step: int) -> float:
        """Share of one step's canaries that fail; all do where a device is gone."""
        if not answers(mapping, state):
            return 1.0
        rng = np.random.default_rng([seed, step, _RUN])
        draw = _STREAM + int(rng.integers(self.draws))
        chosen = rng.choice(self.pool, canaries, replace=canaries > len(self.pool))
        return 1.0 - float(self._right(self.evaluator, mapping, state, [draw])[0, chosen].mean())

    def expected(self, mapping: Mapping, state: State) -> float:
        """The mean of `failing`: over all canaries, and all draws that the stream meets."""
        if not answers(mapping, state):
            return 1.0
        draws = [_STREAM + number for number in range(self.draws)]
        return 1.0 - float(self._right(self.evaluator, mapping, state, draws)[:, self.pool].mean())

    def probed(
        self, device: int, state: State, canaries: int, probes: int, seed: int, step: int
    ) -> Int[np.ndarray, " J"]:
        """How many canaries fail in each probe of a device: the whole network on it."""
        rng = np.random.default_rng([seed, step, _PROBE, device])
        mapping = (device,) * len(self.evaluator.quantized.layers)
        draws = _PROBES + rng.integers(self.draws, size=probes)
        right = self._right(self.evaluator, mapping, state, draws.tolist())
        size = min(canaries, len(self.pool))
        chosen = np.stack([rng.choice(self.pool, size, replace=False) for _ in draws])
        return (~np.take_along_axis(right, chosen, axis=1)).sum(axis=1)

    def accuracy(self, mapping: Mapping, state: State) -> float:
        """The true accuracy; 0 where a device is gone, as there is no answer."""
        if not answers(mapping, state):
            return 0.0
        trials = list(range(self.trials))
        return float(self._right(self.held, mapping, state, trials).mean())

    def curve(self, weight: float, activation: float, rates: Sequence[float] = ()) -> Curve:
        """How canaries fail with the whole network at each rate, the grid's and `rates`.

        `weight` and `activation` are their rates as shares of the larger one.
        """
        grid = sorted({*GRID, *rates})
        draws = [_CURVES + number for number in range(self.draws // 2)]
        mapping, one = (0,) * len(self.evaluator.quantized.layers), (1.0,)
        right = [
            self._right(
                self.evaluator,
                mapping,
                State((rate * weight,), (rate * activation,), one, one, (True,)),
                draws,
            )
            for rate in grid
        ]
        return curve(grid, ~np.stack(right)[..., self.pool])

    def _right(
        self, evaluator: Evaluator, mapping: Mapping, state: State, draws: Sequence[int]
    ) -> Bool[np.ndarray, "K B"]:
        rates = tuple((state.weight_rate[d], state.activation_rate[d]) for d in mapping)
        names = [(evaluator.name, rates, draw) for draw in draws]
        missing = sorted({draw for draw, name in zip(draws, names, strict=True)
                          if name not in self.known})  # fmt: skip
        if missing:
            faults = at(self.faults, state)
            limits = thresholds(faults, evaluator.quantized, np.array([mapping], np.int32))
            found = evaluator.evaluate(faults, limits, missing)[0]
            self.known.update(
                ((evaluator.name, rates, draw), row)
                for draw, row in zip(missing, found, strict=True)
            )
        return np.stack([self.known[name] for name in names])


def at(faults: FaultModel, state: State) -> FaultModel:
    """The fault model at other rates, one per device."""
    return replace(faults, weight_rate=state.weight_rate, activation_rate=state.activation_rate)


def answers(mapping: Mapping, state: State) -> bool:
    """Whether every layer's device is there."""
    return all(state.present[device] for device in mapping)


def shares(weight_rate: float, activation_rate: float) -> tuple[float, float]:
    """Two rates as shares of the larger one; both whole where there are none."""
    largest = max(weight_rate, activation_rate)
    return (weight_rate / largest, activation_rate / largest) if largest else (1.0, 1.0)
