"""A network spread over devices, run as devices would: each its own filters, then a gather.

A device's sub-network has the filters of its own neurons, cut out, and runs them on the inputs that
were gathered from all; nothing is computed whole and hidden afterwards. A spare has the sums of the
workers' filters, and what one lost worker would have given is what the sums leave over. Layers are
NumPy's here, and the steps between them the program's own.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from afpjax.network.fixed_point import QFormat
from afpjax.network.program import Equation, LayerCall, LayerParameters, Value
from afpjax.network.quantized import Quantized
from afpjax.neurons.placement import Placement


class Arithmetic(NamedTuple):
    """What a layer reads, keeps, and makes of its sums."""

    reads: Callable[[np.ndarray], np.ndarray]
    kernel: Callable[[np.ndarray], np.ndarray]
    bias: Callable[[np.ndarray], np.ndarray]
    gives: Callable[[np.ndarray], np.ndarray]


#: float32 as it is.
VALUES = Arithmetic(*[lambda x: x] * 4)


def integers(fmt: QFormat) -> Arithmetic:
    """Codes of one step for everything, in float64, which holds every sum of theirs."""
    one, most = 2.0**fmt.frac, 2 ** (fmt.bits - 1)

    def codes(x: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(x.astype(np.float64) * one), -most, most - 1)

    return Arithmetic(
        codes,
        codes,
        lambda bias: np.rint(bias.astype(np.float64) * one**2),
        lambda sums: (sums / one**2).astype(np.float32),
    )


class Held(NamedTuple):
    """What one device keeps of a layer: filters in the order of its neurons, and their biases.

    Filters [neurons, channels, ...] that read the same input channels are one kernel.
    """

    reads: tuple[slice, ...]  # by kernel
    kernels: tuple[np.ndarray, ...]
    bias: np.ndarray

    @property
    def weights(self) -> int:
        """How many are kept; a sum has none for the channels that it does not read."""
        return sum(int(np.count_nonzero(kernel)) for kernel in self.kernels)

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """What the device sends, [B, ..., neurons], of gathered inputs [B, ..., channels, window].

        A dense layer has no window.
        """
        made = []
        for channels, kernel in zip(self.reads, self.kernels, strict=True):
            window = [slice(None)] * (kernel.ndim - 2)
            read = inputs[..., channels, *window]
            read = read.reshape(*read.shape[: 1 - kernel.ndim], -1)
            # Faster than a product of matrices, whose threads wait for each other on busy cores.
            made.append(np.einsum("...k,nk->...n", read, kernel.reshape(len(kernel), -1)))
        return np.concatenate(made, axis=-1) + self.bias


class Split(NamedTuple):
    """A layer's filters [C, channels, window] and biases [C], to be shared out."""

    groups: int
    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, call: LayerCall, parameters: LayerParameters, arithmetic: Arithmetic) -> "Split":
        kernel, bias = np.asarray(parameters.kernel), parameters.bias
        if call.layer.kind == "conv":
            kernel = kernel.transpose(call.params["dimension_numbers"].rhs_spec)
        else:
            (axis,) = call.kernel_axes
            kernel = np.moveaxis(kernel, axis, 0)
        bias = np.zeros(len(kernel), np.float32) if bias is None else np.asarray(bias)
        return cls(call.layer.groups, arithmetic.kernel(kernel), arithmetic.bias(bias))

    def held(self, neurons: Sequence[np.ndarray], spare: int | None) -> list[Held]:
        """What every device keeps; the spare sums, unless it has neurons of its own."""
        kept = [self.part(own) for own in neurons]
        if spare is not None and not len(neurons[spare]):
            kept[spare] = self.sums(own for d, own in enumerate(neurons) if d != spare)
        return kept

    def part(self, neurons: np.ndarray) -> Held:
        """The filters of some neurons; those of different groups read different channels."""
        group = self._group(neurons)
        groups = np.unique(group)
        return Held(
            tuple(self._reads(each) for each in groups),
            tuple(self.kernel[neurons[group == each]] for each in groups),
            self.bias[neurons],
        )

    def sums(self, workers: Iterable[np.ndarray]) -> Held:
        """Sums of the workers' i-th filters; a worker that has no i-th adds nothing.

        Filters of different groups have a sum that reads the channels of all of them.
        """
        place = {neuron: i for neurons in workers for i, neuron in enumerate(neurons.tolist())}
        count, channels = 1 + max(place.values()), self.kernel.shape[1] * self.groups
        kernel = np.zeros((count, channels, *self.kernel.shape[2:]), self.kernel.dtype)
        bias = np.zeros(count, self.bias.dtype)
        for neuron, i in place.items():
            kernel[i, self._reads(self._group(neuron))] += self.kernel[neuron]
            bias[i] += self.bias[neuron]
        return Held((slice(None),), (kernel,), bias)

    def _group(self, neuron: Any) -> Any:
        return neuron // (len(self.kernel) // self.groups)

    def _reads(self, group: int) -> slice:
        channels = self.kernel.shape[1]
        return slice(group * channels, (group + 1) * channels)


def run(
    network: Quantized,
    placement: Placement,
    failed: Collection[int],
    images: Array,
    arithmetic: Arithmetic,
) -> np.ndarray:
    """Logits [B, classes] of what is left of a network when devices have failed."""
    program, parameters = network.program, network.parameters
    known: dict[Any, Any] = dict(zip(program.constants, parameters.constants, strict=True))
    known[program.image] = images
    for step in program.steps:
        if isinstance(step, LayerCall):
            layer = Split.of(step, parameters.layers[step.layer.name], arithmetic)
            inputs = _unfolded(step, arithmetic.reads(np.asarray(known[step.input])))
            outputs = _gathered(layer, neurons_of(placement, step), placement.spare, failed, inputs)
            known[step.output] = arithmetic.gives(_folded(step, outputs))
        else:
            made = _between(step, known, program.constants)
            known.update(zip(step.outputs, made, strict=True))
    return np.asarray(known[program.output])


def neurons_of(placement: Placement, call: LayerCall) -> list[np.ndarray]:
    """By device, the neurons of a layer that it computes."""
    return [np.flatnonzero(row) for row in placement.holds[placement.layers.index(call.layer.name)]]


def _gathered(
    layer: Split,
    neurons: Sequence[np.ndarray],
    spare: int | None,
    failed: Collection[int],
    inputs: np.ndarray,
) -> np.ndarray:
    """Outputs [B, ..., C] of all that live, each from the first that sends it; else zero."""
    sent = {
        device: held.outputs(inputs)
        for device, held in enumerate(layer.held(neurons, spare))
        if device not in failed and len(held.bias)
    }
    if spare in sent and not len(neurons[spare]):
        sums = sent.pop(spare)
        for lost in failed if len(failed) == 1 else ():
            sent[lost] = _left_over(sums, len(neurons[lost]), sent.values())
    ahead = inputs.shape[: inputs.ndim - layer.kernel.ndim + 1]
    outputs = np.zeros((*ahead, len(layer.bias)), inputs.dtype)
    for device in sorted(sent, reverse=True):
        outputs[..., neurons[device]] = sent[device]
    return outputs


def _left_over(sums: np.ndarray, count: int, known: Iterable[np.ndarray]) -> np.ndarray:
    """The first of the sums, less what is known of their terms."""
    rest = sums[..., :count].copy()
    for outputs in known:
        terms = outputs[..., :count]
        rest[..., : terms.shape[-1]] -= terms
    return rest


def _unfolded(call: LayerCall, values: np.ndarray) -> np.ndarray:
    """What each output reads: [B, places, channels, window], or [B, ..., channels] of dense."""
    if call.layer.kind == "dense":
        contracted, _ = call.params["dimension_numbers"]
        (axis,) = contracted[1 - call.kernel_operand]
        return np.moveaxis(values, 1 + axis, -1)
    how = call.params
    assert {*how["lhs_dilation"], *how["rhs_dilation"], how["batch_group_count"]} == {1}
    order = how["dimension_numbers"].lhs_spec
    values = values.transpose(0, *(1 + axis for axis in order))[:, 0]
    values = np.pad(values, ((0, 0), (0, 0), *how["padding"]))
    spatial = range(2, values.ndim)
    windows = np.lib.stride_tricks.sliding_window_view(values, call.layer.window, tuple(spatial))
    strides = (slice(None, None, stride) for stride in how["window_strides"])
    return np.ascontiguousarray(np.moveaxis(windows[:, :, *strides], 1, len(spatial) + 1))


def _folded(call: LayerCall, outputs: np.ndarray) -> np.ndarray:
    """Outputs laid out as the program has them, from [B, ..., C]."""
    if call.layer.kind == "dense":
        (axis,) = call.output_axes
        return np.moveaxis(outputs, -1, 1 + axis)
    order = call.params["dimension_numbers"].out_spec
    canonical = np.moveaxis(outputs, -1, 1)[:, None]
    return np.moveaxis(canonical, range(1, canonical.ndim), [1 + axis for axis in order])


def _between(step: Equation, known: dict[Any, Any], constant: Collection[Value]) -> list[Array]:
    """A step that is no layer, image by image."""
    operands = [known[each] if isinstance(each, Value) else each.val for each in step.inputs]
    alike = [not isinstance(each, Value) or each in constant for each in step.inputs]
    return jax.vmap(step.bind, in_axes=[None if each else 0 for each in alike])(*operands)
