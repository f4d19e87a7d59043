"""A network as a flat list of equations over one image: what `trace` makes and `execute` runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Int32

from afpjax.inputs.notes import covered
from afpjax.network import small_conv
from afpjax.network.layers import Coverage, Layer, LayerGraph
from afpjax.network.units import bind, in_full


class Value(NamedTuple):
    """The number of a value that an equation reads or writes (single assignment)."""

    number: int


Operand = Value | core.Literal


@dataclass(frozen=True, eq=False)
class Equation:
    """One equation that depends on the image and is no layer, with its variables numbered."""

    eqn: core.JaxprEqn
    inputs: tuple[Operand, ...]
    outputs: tuple[Value, ...]

    @property
    def primitive(self) -> core.Primitive:
        return self.eqn.primitive

    @property
    def params(self) -> dict[str, Any]:
        return self.eqn.params

    @property
    def dtype(self) -> Any:
        """The dtype of the first output."""
        return getattr(self.eqn.outvars[0].aval, "dtype", None)

    def bind(self, *operands: Any) -> list[Any]:
        """Run the equation on its operands, literals included; custom derivatives are kept.

        Products have the highest precision, whatever they were traced with (no TF32).
        """
        arrays = [
            operand
            for var, operand in zip(self.eqn.invars, operands, strict=True)
            if not isinstance(var, core.Literal)
        ]
        return core.jaxpr_as_fun(self._alone)(*arrays)

    @cached_property
    def _alone(self) -> core.ClosedJaxpr:
        """A jaxpr of this one equation: jax's own evaluator knows how each version of it hands
        nested functions and derivative rules to `Primitive.bind`."""
        variables = [v for v in self.eqn.invars if not isinstance(v, core.Literal)]
        info = core.DebugInfo("afpjax", self.primitive.name, None, None)
        exact = in_full(self.eqn)
        alone = core.Jaxpr((), variables, exact.outvars, [exact], exact.effects, info)
        return core.ClosedJaxpr(alone, ())


@dataclass(frozen=True, eq=False)
class StoredKernel:
    """The array that a kernel is laid out from: a parameter as the traced function was given it.

    Where more than moving numbers about comes before the layer (weights standardised in the
    network, say), the array is what comes out of that.
    """

    name: str  # of the parameter, dotted; "" where it is none
    operand: Operand
    shape: tuple[int, ...]
    moves: tuple[Equation, ...]  # on the way to the kernel, in order

    @cached_property
    def places(self) -> Int32[np.ndarray, "..."]:
        """Which element (row-major) of the array each number of the kernel is."""
        places: Any = np.arange(prod(self.shape), dtype=np.int32).reshape(self.shape)
        for move in self.moves:
            (places,) = move.bind(places)
        return np.asarray(places)

    def in_kernel(self, element: int) -> list[int]:
        """The kernel's elements that are this one of the array: none, one or, broadcast, more."""
        numbers, order = self._in_order
        first, last = np.searchsorted(numbers, (element, element + 1))
        return order[first:last].tolist()

    @cached_property
    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        flat = self.places.ravel()
        order = np.argsort(flat, kind="stable")
        return flat[order], order


@dataclass(frozen=True, eq=False)
class LayerCall:
    """Where a layer stands in the program: a convolution or matrix product with a fixed kernel.

    `kernel_axes[i]` and `output_axes[i]` are one channel axis, in the kernel and in the output.
    """

    layer: Layer
    primitive: core.Primitive
    params: dict[str, Any]
    input: Value
    output: Value
    kernel: Operand  # where the traced kernel came from; the folded one is in `Parameters`
    kernel_operand: int  # which operand of the primitive the kernel is
    kernel_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    dtype: Any  # of the traced output, which the rest of the program was traced for
    stored: StoredKernel  # where the kernel's numbers stand in the array that it was made of

    @property
    def inputs(self) -> tuple[Operand, ...]:
        return (self.input,)

    @property
    def outputs(self) -> tuple[Value, ...]:
        return (self.output,)

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the channel axes; their product is the number of neurons."""
        return tuple(self.layer.kernel_shape[axis] for axis in self.kernel_axes)

    def linear(self, image: Array, kernel: Array) -> Array:
        """Convolve or multiply in the operands' own dtype, never in a narrower one (no TF32).

        bfloat16 operands are summed in float32, and that is what comes out; int8 ones in int32.
        """
        if self.layer.kind == "conv" and small_conv.fits(self.params, self.layer):
            return small_conv.convolve(self.params, self.layer, image, kernel)
        operands = (image, kernel) if self.kernel_operand == 1 else (kernel, image)
        return bind(self.primitive, self.params, *operands)

    def per_output(self, channels: Array) -> Array:
        """Lay an array over the kernel's channel axes out so that it broadcasts over the output."""
        return spread(channels, self.output_axes, len(self.layer.output_shape))

    def per_kernel(self, channels: Array) -> Array:
        """Lay an array over the kernel's channel axes out so that it broadcasts over the kernel."""
        return spread(channels, self.kernel_axes, len(self.layer.kernel_shape))


Step = Equation | LayerCall
AnyStep = TypeVar("AnyStep", Equation, Step)


class LayerParameters(NamedTuple):
    """A layer's arrays after folding; the bias has the kernel's channel axes, or is None."""

    kernel: Array
    bias: Array | None


class Parameters(NamedTuple):
    """Every array that a program needs beside the image: an argument, never a constant."""

    layers: dict[str, LayerParameters]
    constants: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Equations and layer calls in execution order; hashed by identity, so a static argument."""

    steps: tuple[Step, ...]
    constants: tuple[Value, ...]  # numbers of `Parameters.constants`
    image: Value
    output: Operand
    image_shape: tuple[int, ...]  # of one image, without a batch axis
    image_dtype: Any
    graph: LayerGraph
    coverage: Coverage  # how much of the network its layers are

    @cached_property
    def classes(self) -> int:
        """How many logits come out."""
        last = next(step for step in reversed(self.steps) if self.output in step.outputs)
        if isinstance(last, LayerCall):
            return prod(last.layer.output_shape)
        return prod(last.eqn.outvars[last.outputs.index(self.output)].aval.shape)  # type: ignore

    @property
    def calls(self) -> tuple[LayerCall, ...]:
        return tuple(step for step in self.steps if isinstance(step, LayerCall))

    def summary(self) -> str:
        """A table for people: the layers in the order they run, totals, and what is no layer.

        MACs are multiply-accumulates of one image; a kernel that several layers use counts once in
        the coverage, and for each of them in the table.
        """
        layers = self.graph.layers
        head = ("layer", "kind", "kernel", "output", "neurons", "MACs", "weights", "biases")
        total = ("total", f"{len(layers)} layers", "", "", *_figures(layers))
        rows = [head, *map(_row, layers), total]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            words = [text.ljust(width) for text, width in zip(row[:4], widths[:4], strict=True)]
            words += [text.rjust(width) for text, width in zip(row[4:], widths[4:], strict=True)]
            lines.append("  ".join(words).rstrip())
        image = " x ".join(map(str, self.image_shape))
        first = f"{image} ({self.image_dtype}) -> {self.classes} logits"
        return "\n".join([first, "", *lines, "", covered(self.coverage.record())])


def _row(layer: Layer) -> tuple[str, ...]:
    shapes = (" x ".join(map(str, shape)) for shape in (layer.kernel_shape, layer.output_shape[1:]))
    return (layer.name, layer.kind, *shapes, *_figures([layer]))


def _figures(layers: Sequence[Layer]) -> tuple[str, ...]:
    keys = ("neurons", "macs", "weights", "biases")
    return tuple(f"{sum(getattr(layer, key) for layer in layers):,}" for key in keys)


def reads(step: Step) -> Iterator[Value]:
    """The values, literals left out, that a step reads."""
    return (operand for operand in step.inputs if isinstance(operand, Value))


def live(steps: Iterable[AnyStep], output: Operand) -> list[AnyStep]:
    """Leave out the steps that nothing reads."""
    needed: set[Any] = {output} if isinstance(output, Value) else set()
    kept: list[AnyStep] = []
    for step in reversed(list(steps)):
        if needed.intersection(step.outputs):
            kept.append(step)
            needed.update(reads(step))
    return kept[::-1]


def spread(channels: Any, axes: tuple[int, ...], ndim: int, xp: Any = jnp) -> Any:
    """An array over channel axes, laid out along these axes of an array of `ndim` axes."""
    shape = [1] * ndim
    for size, axis in zip(channels.shape, axes, strict=True):
        shape[axis] = size
    return xp.transpose(channels, sorted(range(len(axes)), key=lambda i: axes[i])).reshape(shape)
