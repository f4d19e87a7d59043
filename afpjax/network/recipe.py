"""How a layer's folded kernel and bias are made from a network's constants: the arithmetic.

What is absorbed, and along which axes, `fold.py` decides once, on concrete values. The arithmetic
is written over an array namespace: NumPy in float64 where a network is traced, `jax.numpy` where
the folded arrays must be a differentiable function of the original ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from afpjax.network.program import LayerCall, LayerParameters, Operand, Value


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand that does not depend on the image; `shape` has 1 where it is broadcast."""

    operand: Operand
    shape: tuple[int, ...]

    def array(self, values: Mapping[Value, Any], xp: Any) -> Any:
        """Its array in the namespace `xp`, in the dtype it has there."""
        operand = self.operand
        array = values[operand] if isinstance(operand, Value) else operand.val
        return xp.asarray(array).reshape(self.shape)

    def broadcast(self, shape: tuple[int, ...], axes: tuple[int, ...]) -> "Constant":
        """This constant after a `broadcast_in_dim`, which only lays it out."""
        wide = [1] * len(shape)
        for size, axis in zip(self.shape, axes, strict=True):
            wide[axis] = size
        return Constant(self.operand, tuple(wide))


@dataclass(frozen=True, eq=False)
class Affine:
    """An absorbed equation: `name` applied to y and a constant that varies over channels only."""

    name: str
    first: bool  # y is the first operand
    constant: Constant | None  # None: the equation has one operand
    axes: tuple[int, ...]  # y's channel axes, in the order of the kernel's

    @property
    def adds(self) -> bool:
        return self.name not in ("neg", "mul", "div")

    @property
    def is_bias(self) -> bool:
        return self.name in ("add", "add_any")

    def scale_and_shift(self, values: Mapping[Value, Any], xp: Any, dtype: Any) -> tuple[Any, Any]:
        """The equation as y·scale + shift; None for a scale of 1 and a shift of 0."""
        if self.constant is None:
            return -1.0, None
        operand = self._over_channels(self.constant.array(values, xp), xp).astype(dtype)
        if self.name == "sub":
            return (None, -operand) if self.first else (-1.0, operand)
        if self.adds:
            return None, operand
        return (operand if self.name == "mul" else 1 / operand), None

    def _over_channels(self, array: Any, xp: Any) -> Any:
        if array.ndim == 0:
            return array
        order = sorted(self.axes)
        small = array[first_of_others(array.ndim, self.axes)]
        small = small.reshape([array.shape[axis] for axis in order])
        return xp.transpose(small, [order.index(axis) for axis in self.axes])


@dataclass(frozen=True, eq=False)
class Recipe:
    """A layer's kernel as it was traced, and the affine equations absorbed after it, in order."""

    call: LayerCall
    kernel: Constant
    chain: tuple[Affine, ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the kernel's channel axes."""
        return tuple(self.call.layer.kernel_shape[axis] for axis in self.call.kernel_axes)

    @property
    def adds(self) -> bool:
        return any(affine.adds for affine in self.chain)

    def arrays(self, values: Mapping[Value, Any], xp: Any, dtype: Any) -> LayerParameters:
        """The folded arrays (float32) of the namespace `xp`, computed in `dtype`.

        With scale s and shift t of the whole chain per channel, the kernel is s·W and the bias t;
        it is None where nothing is added.
        """
        scale, shift = None, None
        for affine in self.chain:
            factor, term = affine.scale_and_shift(values, xp, dtype)
            if factor is not None:
                scale = factor if scale is None else scale * factor
                shift = None if shift is None else shift * factor
            if term is not None:
                shift = term if shift is None else shift + term
        kernel = xp.broadcast_to(self.kernel.array(values, xp), self.call.layer.kernel_shape)
        if scale is not None:  # a large kernel that nothing scales is not worth a detour
            scale = xp.broadcast_to(xp.asarray(scale, dtype), self.channels)
            kernel = kernel.astype(dtype) * self._over_kernel(scale, xp)
        bias = None if shift is None else xp.broadcast_to(shift, self.channels)
        return LayerParameters(
            kernel.astype(np.float32), None if bias is None else bias.astype(np.float32)
        )

    def _over_kernel(self, scale: Any, xp: Any) -> Any:
        spread = [1] * len(self.call.layer.kernel_shape)
        for size, axis in zip(self.channels, self.call.kernel_axes, strict=True):
            spread[axis] = size
        return xp.transpose(scale, np.argsort(self.call.kernel_axes)).reshape(spread)


def first_of_others(ndim: int, axes: tuple[int, ...]) -> tuple[slice, ...]:
    """The index that keeps `axes` whole, and of every other axis the first place."""
    return tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(ndim))
