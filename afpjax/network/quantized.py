"""A quantised network: calibration, and the hook that runs a layer on integer codes.

A layer's fixed-point arithmetic is that of integers, held in float32 (and multiplied there, or as
bfloat16 or int8 where the machine has units for it: `units.py`). Every product and partial sum of
codes below 2^24 is exact, whatever the order of summation; so where Σ|x·w| + |bias| of an output,
in codes, is at most 2^24, the accumulator is the integer one, bit for bit. Where it is more, the
accumulator is off by at most (fan_in + 2) · 2^-24 · (Σ|x·w| + |bias|), to first order: an inner
product's bound γ_n with n = fan_in (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
equation 3.5), and one rounding each for the bias's own code and for its addition.

With power-of-two steps an accumulator's value is exact as well (codes times a power of two), and
between layers so are ReLU, max pooling and concatenation, sums (residuals) as long as the result
has at most 24 bits on the finer of the two grids, and averages over a power of two of values. With
`step="maximum"` a value is its code times a rounded step, and every product, sum and average
between layers rounds in float32: codes can then differ by one from exact arithmetic where a value
lies halfway.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network import compiler
from afpjax.network.fixed_point import QFormat, encode, round_through
from afpjax.network.interpreter import Hook, Network, affine, execute
from afpjax.network.layers import Layer, LayerGraph
from afpjax.network.program import LayerCall, LayerParameters, Parameters, Program
from afpjax.network.units import multiply, of_layer

CALIBRATION_BATCH = 64


class Steps(NamedTuple):
    """The value of one code unit in a layer's operands, 1 for float formats."""

    weights: Float[Array, "..."]  # over the kernel's channel axes
    inputs: Float[Array, ""]


#: Codes -> the codes that a fault leaves of them (the values, in float formats).
OnCodes = Callable[[Array], Array]
#: (a layer's input codes, its kernel's, their sums) -> the sums that a fault leaves.
OnSums = Callable[[Array, Array, Array], Array]


class LayerFaults(NamedTuple):
    """What faults do to a layer's read copies; None where they do nothing."""

    weights: OnCodes | None = None
    inputs: OnCodes | None = None
    sums: OnSums | None = None  # of fixed point, before the bias


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quantized:
    """A network in a number format; a pytree whose leaves are its parameters and steps."""

    program: Program = field(metadata={"static": True})
    format: QFormat = field(metadata={"static": True})
    parameters: Parameters
    steps: dict[str, Steps]
    encoded: bool = field(default=False, metadata={"static": True})  # kernels are codes already
    units: str = field(default_factory=compiler.units, metadata={"static": True})  # fixed point's

    @property
    def graph(self) -> LayerGraph:
        return self.program.graph

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.program.graph.layers

    def summary(self) -> str:
        """The network's summary, and the number format of its weights and layers' inputs."""
        return f"{self.program.summary()}\nNumbers: {self.format}."

    def __call__(
        self,
        images: Num[Any, "B ..."],
        *,
        mapping: Any = None,
        faults: Any = None,
        key: Any = 0,
        trial: Any = 0,
    ) -> Float[Array, "B classes"]:
        """Logits [B, classes]: fault-free, or under `faults` (an `afpjax.FaultModel`).

        `mapping` is the device of every layer ([L] int, default all 0), `key` a `jax.random.key`
        or an integer seed, `trial` the number of the fault draw. It can be jitted, vmapped over
        images, mappings and trials, and differentiated with respect to the images and, as a
        pytree, with respect to the network itself.
        """
        images = checks.shaped("images", images, self.program.image_shape)
        if mapping is not None:
            checks.mappings("mapping", mapping, len(self.layers))
        if faults is None:
            return run_clean(self, images)
        if not hasattr(faults, "inject"):
            raise InputError(f"faults: needs an afpjax.FaultModel, got {checks.shown(faults)}")
        return faults.inject(self, images, mapping=mapping, key=key, trial=trial)


@jax.jit
def run_clean(quantized: Quantized, images: Num[Any, "B ..."]) -> Float[Array, "B classes"]:
    """Fault-free logits of a quantised network."""
    hook = layer_on_codes(quantized, lambda call: LayerFaults())
    return jax.vmap(lambda image: execute(quantized.program, quantized.parameters, image, hook))(
        images
    )


def layer_on_codes(quantized: Quantized, faults: Callable[[LayerCall], LayerFaults]) -> Hook:
    """The hook that encodes a layer's operands, makes these copies faulty, and multiplies codes.

    output = (x_code · w_code + round(bias / grid)) · grid, with grid = step_w · step_x: the bias is
    added on the accumulator's grid, as integer hardware does.
    """
    fmt = quantized.format

    def hook(call: LayerCall, image: Array, parameters: LayerParameters) -> Array:
        step, faulty = quantized.steps[call.layer.name], faults(call)
        kernel = parameters.kernel
        if not quantized.encoded:
            kernel = encode(fmt, kernel, call.per_kernel(step.weights))
        codes = encode(fmt, image.astype(jnp.float32), step.inputs)
        if faulty.weights is not None:
            kernel = faulty.weights(kernel)
        if faulty.inputs is not None:
            codes = faulty.inputs(codes)
        parameters = parameters._replace(kernel=kernel)
        layer = affine if fmt.kind != "fixed" else partial(_accumulate, quantized, faulty.sums)
        return layer(call, codes, parameters)

    return hook


def encoded(quantized: Quantized) -> Quantized:
    """The same network with its kernels encoded once, for many runs; it has no gradients."""
    return quantized if quantized.encoded else _encoded(quantized)


@jax.jit
def _encoded(quantized: Quantized) -> Quantized:
    layers = dict(quantized.parameters.layers)
    for call in quantized.program.calls:
        name = call.layer.name
        step = call.per_kernel(quantized.steps[name].weights)
        codes = encode(quantized.format, layers[name].kernel, step)
        layers[name] = layers[name]._replace(kernel=codes)
    parameters = quantized.parameters._replace(layers=layers)
    return replace(quantized, parameters=parameters, encoded=True)


def _accumulate(
    quantized: Quantized,
    faulty: OnSums | None,
    call: LayerCall,
    codes: Array,
    parameters: LayerParameters,
) -> Array:
    step, bits = quantized.steps[call.layer.name], quantized.format.bits
    grid = call.per_output(step.weights) * step.inputs
    units = of_layer(quantized.units, call.layer, bits)
    total = multiply(call.linear, codes, parameters.kernel, bits=bits, units=units)
    if faulty is not None:
        total = faulty(codes, parameters.kernel, total)
    if parameters.bias is not None:
        total = total + round_through(call.per_output(parameters.bias) * (1 / grid))
    return total * grid


def quantize(
    network: Network, fmt: QFormat, calibration: Num[Any, "B ..."] | None = None
) -> Quantized:
    """Give every layer of a network its steps in a number format.

    `calibration` is a batch of images; formats with a scale per tensor or channel need it, since a
    layer's input step follows from the largest magnitude that the float network shows it. Raises
    `InputError` where it is missing, empty or of another shape than the network's images.
    """
    checks.instance("network", network, Network, "a network from afpjax.trace or load_onnx")
    checks.instance("fmt", fmt, QFormat, "an afpjax.QFormat")
    largest = {layer.name: np.zeros((), np.float32) for layer in network.layers}
    if fmt.needs_calibration:
        largest = _largest_inputs(network, _checked(network, calibration))
    steps = {}
    for call in network.program.calls:
        name = call.layer.name
        weights = _largest_weights(call, np.asarray(network.parameters.layers[name].kernel), fmt)
        steps[name] = Steps(
            jnp.asarray(fmt.step_for(weights)), jnp.asarray(fmt.step_for(largest[name]))
        )
    return Quantized(network.program, fmt, network.parameters, steps)


def binary_point(network: Network, bits: int, calibration: Num[Any, "B ..."]) -> int:
    """The most fraction bits of a number of `bits` with which nothing overflows.

    That is no weight, and no value that a layer of the float network reads of `calibration`, a
    batch of images. Less than 0 where these values need more than all bits; at most bits - 1.
    """
    kernels = [parameters.kernel for parameters in network.parameters.layers.values()]
    largest = [
        *_largest_inputs(network, _checked(network, calibration)).values(),
        *(np.abs(np.asarray(kernel)).max() for kernel in kernels),
    ]
    # The power of two that a scale per tensor would take if everything were one tensor.
    step = QFormat(bits, scale="tensor").step_for(np.max(np.asarray(largest)))
    return min(round(-float(np.log2(step))), bits - 1)


def calibrated_formats(
    network: Network, fmt: QFormat, calibration: Num[Any, "B ..."]
) -> tuple[QFormat, ...]:
    """Other fixed-point formats of the width of `fmt`, with steps that calibration images give.

    The binary point of `binary_point` for everything (where it is 0 or more), a scale per tensor
    and a scale per channel. None for float formats.
    """
    if fmt.kind != "fixed":
        return ()
    point = binary_point(network, fmt.bits, calibration)
    every = [replace(fmt, scale="global", frac=point)] if point >= 0 else []
    every += [replace(fmt, scale=scale) for scale in ("tensor", "channel")]
    return tuple(other for other in every if other != fmt)


def _largest_weights(call: LayerCall, kernel: np.ndarray, fmt: QFormat) -> np.ndarray:
    """Largest magnitude over the kernel's channel axes, everywhere the same unless per channel."""
    channels = tuple(kernel.shape[axis] for axis in call.kernel_axes)
    if fmt.scale != "channel":
        return np.broadcast_to(np.abs(kernel).max(), channels)
    in_order = np.moveaxis(np.abs(kernel), call.kernel_axes, range(len(channels)))
    return in_order.reshape(*channels, -1).max(axis=-1)


def _checked(network: Network, calibration: Any) -> Array:
    if calibration is None:
        raise InputError(
            "calibration: a format with a scale per tensor or channel needs calibration images"
        )
    return jnp.asarray(checks.batch("calibration", calibration, network.program.image_shape))


def _largest_inputs(network: Network, images: Array) -> dict[str, np.ndarray]:
    """The largest magnitude that each layer reads over the calibration images."""
    batches = [
        _batch_largest(network, images[start : start + CALIBRATION_BATCH])
        for start in range(0, len(images), CALIBRATION_BATCH)
    ]
    return {name: np.asarray(max(batch[name] for batch in batches)) for name in batches[0]}


@jax.jit
def _batch_largest(network: Network, images: Array) -> dict[str, Array]:
    def one(image: Array) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def hook(call: LayerCall, value: Array, parameters: LayerParameters) -> Array:
            seen[call.layer.name] = jnp.abs(value).max().astype(jnp.float32)
            return affine(call, value, parameters)

        execute(network.program, network.parameters, image, hook)
        return seen

    return jax.tree.map(lambda values: values.max(), jax.vmap(one)(images))
