"""Fold per-channel affine equations (bias, inference-time batch norm) into their layer.

What is absorbed, and along which axes, is decided once, on concrete values. The arithmetic of the
folded arrays is written over an array namespace: NumPy in float64 where a network is traced,
`jax.numpy` where they must be a differentiable function of the original parameters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from afpjax.network.digest import plain
from afpjax.network.program import (
    Equation,
    LayerCall,
    LayerParameters,
    Operand,
    Program,
    Step,
    Value,
    reads,
    spread,
)


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
        small = array[_first_of_others(array.ndim, self.axes)]
        small = small.reshape([array.shape[axis] for axis in order])
        return xp.transpose(small, [order.index(axis) for axis in self.axes])


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """A layer's kernel as it was traced, and the affine equations absorbed after it, in order."""

    call: LayerCall
    kernel: Constant
    chain: tuple[Affine, ...]

    @property
    def adds(self) -> bool:
        return any(affine.adds for affine in self.chain)

    def arrays(self, values: Mapping[Value, Any], xp: Any, dtype: Any) -> LayerParameters:
        """The folded arrays (float32) of the namespace `xp`, computed in `dtype`.

        With scale s and shift t of the whole chain per channel, the kernel is s·W and the bias t;
        it is None where nothing is added.
        """
        call, scale, shift = self.call, None, None
        for affine in self.chain:
            factor, term = affine.scale_and_shift(values, xp, dtype)
            if factor is not None:
                scale = factor if scale is None else scale * factor
                shift = None if shift is None else shift * factor
            if term is not None:
                shift = term if shift is None else shift + term
        kernel = xp.broadcast_to(self.kernel.array(values, xp), call.layer.kernel_shape)
        if scale is not None:  # a large kernel that nothing scales is not worth a detour
            scale = xp.broadcast_to(xp.asarray(scale, dtype), call.channels)
            kernel = kernel.astype(dtype) * spread(scale, call.kernel_axes, kernel.ndim, xp)
        bias = None if shift is None else xp.broadcast_to(shift, call.channels)
        return LayerParameters(
            kernel.astype(np.float32), None if bias is None else bias.astype(np.float32)
        )


def fold(
    steps: Sequence[Step], values: Mapping[Value, Any], output: Operand, *, norms: bool = True
) -> tuple[list[Step], dict[str, FoldedLayer], Operand]:
    """Replace `layer, then y·s + t` by one layer, for as long as only that equation reads y.

    Without `norms`, a layer takes in no more than its own bias, one addition, and its kernel stays
    as it was traced: batch norm remains in the program, after the layer.
    `values` are the arrays that do not depend on the image. A transpose or a change of
    floating-point dtype in between stays in the program, after the layer. Returns the steps, how to
    make the layers' arrays (by name), and the output, which may have been an absorbed equation's.
    """
    readers: Counter[Operand] = Counter(value for step in steps for value in reads(step))
    if isinstance(output, Value):
        readers[output] += 1
    only_reader = {value: step for step in steps for value in reads(step) if readers[value] == 1}
    constants = _Constants(steps, values)
    folded: dict[str, FoldedLayer] = {}
    absorbed: dict[Value, Value] = {}  # an absorbed equation's output -> what stands for it now
    kept: list[Step] = []

    def resolved(operand: Operand) -> Operand:
        while isinstance(operand, Value) and operand in absorbed:
            operand = absorbed[operand]
        return operand

    for step in steps:
        if step.outputs[0] in absorbed:
            continue
        if isinstance(step, LayerCall):
            layer, replaced = _absorb(step, only_reader, constants, norms)
            absorbed.update(replaced)
            folded[step.layer.name] = layer
            biases = prod(step.channels) if layer.adds else 0
            step = replace(step, layer=replace(step.layer, biases=biases))
        inputs = tuple(map(resolved, step.inputs))
        if inputs != step.inputs:
            changed: dict[str, Any] = {"input": inputs[0]}
            step = replace(step, **changed if isinstance(step, LayerCall) else {"inputs": inputs})
        kept.append(step)
    return kept, folded, resolved(output)


class _Constants:
    """The operands that do not depend on the image, broadcasts looked through."""

    def __init__(self, steps: Sequence[Step], values: Mapping[Value, Any]) -> None:
        self.values = values
        self.broadcasts: dict[Value, Constant] = {}
        self.broadcasts = {
            step.outputs[0]: small.broadcast(
                step.params["shape"], tuple(map(int, step.params["broadcast_dimensions"]))
            )
            for step in steps
            if isinstance(step, Equation)
            and step.primitive.name == "broadcast_in_dim"
            and (small := self.find(step.inputs[0])) is not None
        }

    def find(self, operand: Operand) -> Constant | None:
        """The operand as a constant, or None if it depends on the image."""
        if isinstance(operand, core.Literal):
            return Constant(operand, np.shape(operand.val))
        if operand in self.values:
            return Constant(operand, np.shape(self.values[operand]))
        return self.broadcasts.get(operand)


def _absorb(
    call: LayerCall, only_reader: Mapping[Value, Step], constants: _Constants, norms: bool
) -> tuple[FoldedLayer, dict[Value, Value]]:
    """What to absorb into a layer, and what stands for the absorbed equations' outputs."""
    chain: list[Affine] = []
    absorbed: dict[Value, Value] = {}
    value, axes = call.output, call.output_axes
    while isinstance(step := only_reader.get(value), Equation):
        if step.primitive.name == "transpose":
            axes = tuple(step.params["permutation"].index(axis) for axis in axes)
        elif step.primitive.name == "convert_element_type":
            if not jnp.issubdtype(step.dtype, jnp.floating):
                break
        elif (affine := _affine(step, value, axes, constants)) is not None:
            if not (norms or (affine.is_bias and not chain)):
                break
            chain.append(affine)
            absorbed[step.outputs[0]] = value
        else:
            break
        value = step.outputs[0]
    kernel = constants.find(call.kernel)
    assert kernel is not None, "a layer's kernel does not depend on the image"
    return FoldedLayer(call, kernel, tuple(chain)), absorbed


def _affine(
    step: Equation, value: Value, axes: tuple[int, ...], constants: _Constants
) -> Affine | None:
    """`step` as an affine equation of `value` per channel, or None if it is none."""
    name = step.primitive.name
    if name == "neg":
        return Affine(name, True, None, axes)
    if name not in ("add", "add_any", "sub", "mul", "div") or len(step.inputs) != 2:
        return None
    first = step.inputs[0] == value
    constant = constants.find(step.inputs[1 if first else 0])
    if constant is None:
        return None
    array = constant.array(constants.values, np)
    of_channels = array[_first_of_others(array.ndim, axes)]
    if not np.array_equal(np.broadcast_to(of_channels, array.shape), array):
        return None  # it varies along other axes than the channels'
    if name == "div" and not (first and (array != 0).all()):
        return None
    return Affine(name, first, constant, axes)


def _first_of_others(ndim: int, axes: tuple[int, ...]) -> tuple[slice, ...]:
    """The index that keeps `axes` whole, and of every other axis the first place."""
    return tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(ndim))


def with_shared(
    program: Program,
    folded: Mapping[str, FoldedLayer],
    values: Mapping[Value, Any],
    equations: Iterable[Equation],
    arrays: Mapping[Value, Any],
) -> Program:
    """The program whose layers know which of them read one stored kernel (`Layer.shares`).

    So do a recurrent network's, a siamese branch's, tied layers'. The rule: two layers share a
    kernel where it is the same expression of the same arrays, laid out along the same axes, and the
    folded kernels are equal number by number. Batch norms that differ from call to call fold into
    kernels that differ, which have to be stored one by one; so do equal numbers in arrays of their
    own. Biases are not shared: they are folded for each call.

    `values` are what layers are folded from, `equations` all of the traced function, `arrays` what
    that was given or closes over.
    """
    expressions = _Expressions(equations, arrays)
    owners: dict[Any, list[str]] = {}  # by expression, the layers that store a kernel of it
    shares: dict[str, str] = {}
    for layer in program.graph.layers:
        own = folded[layer.name]
        axes = own.call.kernel_axes, own.kernel.shape, layer.kernel_shape, layer.groups
        candidates = owners.setdefault((expressions.number(own.kernel.operand), axes), [])
        owner = next((name for name in candidates if _equal(folded[name], own, values)), None)
        if owner is None:
            candidates.append(layer.name)
        else:
            shares[layer.name] = owner
    if not shares:
        return program
    steps = tuple(
        replace(step, layer=replace(step.layer, shares=shares.get(step.layer.name, "")))
        if isinstance(step, LayerCall)
        else step
        for step in program.steps
    )
    layers = tuple(step.layer for step in steps if isinstance(step, LayerCall))
    return replace(program, steps=steps, graph=replace(program.graph, layers=layers))


def _equal(one: FoldedLayer, other: FoldedLayer, values: Mapping[Value, Any]) -> bool:
    left, right = (layer.arrays(values, np, np.float64).kernel for layer in (one, other))
    return bool(np.array_equal(left, right))


class _Expressions:
    """Numbers for the expressions that values are: equal for equal ones of the same arrays."""

    def __init__(self, equations: Iterable[Equation], arrays: Mapping[Value, Any]) -> None:
        self._numbers: dict[Any, int] = {}
        # One array that is handed over under two names is still one array.
        self._of = {value: self._numbered(("array", id(array))) for value, array in arrays.items()}
        for step in equations:
            if all(isinstance(o, core.Literal) or o in self._of for o in step.inputs):
                inputs = tuple(map(self.number, step.inputs))
                made = step.primitive.name, str(plain(step.params)), inputs
                for place, value in enumerate(step.outputs):
                    self._of[value] = self._numbered((made, place))

    def number(self, operand: Operand) -> int:
        if isinstance(operand, Value):
            return self._of.get(operand, -1 - operand.number)
        return self._numbered((str(operand.aval), np.asarray(operand.val).tobytes()))

    def _numbered(self, expression: Any) -> int:
        return self._numbers.setdefault(expression, len(self._numbers))
