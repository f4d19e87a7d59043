"""What a plan holds while it runs: the values that nodes made, and struck kernels."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from afpjax.evaluate.plan import Kernel


class Kernels:
    """The struck kernels of one chunk: made by whoever needs them first, gone after the last use.

    `uses` says how often each is taken.
    """

    def __init__(self, make: Callable[[Kernel], Array], uses: Mapping[Kernel, int]) -> None:
        self._make, self._made, self._lock = make, dict[Kernel, Array](), Lock()
        self._left = Counter(uses)

    def take(self, kernel: Kernel, times: int = 1) -> Array:
        with self._lock:
            made = self._made.pop(kernel, None)
            made = self._make(kernel) if made is None else made
            self._left[kernel] -= times
            if self._left[kernel] > 0:
                self._made[kernel] = made
            return made


class Value(NamedTuple):
    """What a node made: its own arrays, or its place among those of the nodes that ran with it."""

    arrays: tuple[Array, ...]
    slot: int | None = None


class Packing(NamedTuple):
    """How nodes that run in one call lie behind one another: so many `slots` along an axis."""

    slots: int
    axis: int

    def gathered(self, sources: Sequence[Value], output: int) -> Array:
        """What a call reads: the value of one node, or of several one behind the other."""
        first = sources[0]
        if len(sources) == 1:
            return self._alone(first, output)
        if all(
            source.arrays is first.arrays and source.slot == place
            for place, source in enumerate(sources)
        ):
            return first.arrays[output]
        parts = [self._alone(source, output) for source in sources]
        parts += parts[-1:] * (self.slots - len(parts))
        return _joined(tuple(parts), self.axis)

    def _alone(self, source: Value, output: int) -> Array:
        array = source.arrays[output]
        if source.slot is None:
            return array
        size = array.shape[self.axis] // self.slots
        return _cut(array, np.int32(source.slot * size), size, self.axis)


@partial(jax.jit, static_argnums=(2, 3))
def _cut(array: Array, start: Any, size: int, axis: int) -> Array:
    return lax.dynamic_slice_in_dim(array, start, size, axis)


@partial(jax.jit, static_argnums=1)
def _joined(parts: tuple[Array, ...], axis: int) -> Array:
    return jnp.concatenate(parts, axis)
