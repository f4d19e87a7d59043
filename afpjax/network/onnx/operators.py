"""ONNX operators that jaxonnxruntime lacks, or does not have as image classifiers need them.

Each takes the node's attributes and its operands (None where an optional one is left out). Those
that only say how (axes, sizes) are NumPy arrays; image and weights are float32.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from jaxtyping import Array

from afpjax.network.onnx.quantised import dequantize_linear, quantize_linear
from afpjax.network.onnx.windows import average_pool, conv, max_pool

Attributes = Mapping[str, Any]
Operator = Callable[..., Any]


def gemm(attributes: Attributes, a: Array, b: Array, c: Array | None = None) -> Array:
    """alpha·a·b + beta·c, the kernel multiplied as it lies in the file."""
    axes = (0 if attributes.get("transA", 0) else 1, 1 if attributes.get("transB", 0) else 0)
    y = lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())))
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    y = y if alpha == 1 else alpha * y
    return y if c is None else y + (c if beta == 1 else beta * c)


def cast(attributes: Attributes, x: Array) -> Array:
    """To floats (of every width: float32), integers or booleans."""
    wanted = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    floating = jnp.issubdtype(wanted, np.floating)
    return x.astype(np.float32 if floating else jax.dtypes.canonicalize_dtype(wanted))


def dropout(attributes: Attributes, x: Array, ratio: Any = None, training: Any = None) -> Array:
    """Nothing is dropped at inference."""
    if training is not None and bool(training):
        raise NotImplementedError("it drops values at random; export the network for inference")
    return x


def gather(attributes: Attributes, x: Array, indices: Any) -> Array:
    """Take along an axis; negative indices count from its end."""
    axis = attributes.get("axis", 0)
    indices = jnp.where(indices < 0, indices + x.shape[axis], indices)
    return jnp.take(x, indices, axis=axis, mode="clip")


def pad(
    attributes: Attributes, x: Array, pads: np.ndarray, value: Any = None, axes: Any = None
) -> Array:
    """Pad, or cut where a number is negative; `pads` holds all beginnings, then all ends."""
    mode = attributes.get("mode", "constant")
    width = np.zeros((x.ndim, 2), int)
    width[range(x.ndim) if axes is None else axes] = pads.reshape(2, -1).T
    sides = zip(width.tolist(), x.shape, strict=True)
    kept = [slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in sides]
    extra = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
    return jnp.pad(x[tuple(kept)], np.maximum(width, 0).tolist(), mode, **extra)


def layer_norm(attributes: Attributes, x: Array, scale: Array, bias: Any = None) -> Array:
    axis = attributes.get("axis", -1) % x.ndim
    y = _standardised(attributes, x, tuple(range(axis, x.ndim))) * scale
    return y if bias is None else y + bias


def instance_norm(attributes: Attributes, x: Array, scale: Array, bias: Array) -> Array:
    y = _standardised(attributes, x, tuple(range(2, x.ndim)))
    return y * _per_channel(scale, x) + _per_channel(bias, x)


def group_norm(attributes: Attributes, x: Array, scale: Array, bias: Array) -> Array:
    """Scale and bias are per channel, before operator set 21 per group."""
    groups = attributes["num_groups"]
    grouped = x.reshape(x.shape[0], groups, -1)
    y = _standardised(attributes, grouped, (2,)).reshape(x.shape)
    repeats = x.shape[1] // scale.shape[0]
    scale, bias = (_per_channel(jnp.repeat(each, repeats), x) for each in (scale, bias))
    return y * scale + bias


def space_to_depth(attributes: Attributes, x: Array) -> Array:
    """Move blocks of pixels into channels: block first ("DCR"), or channel first ("CRD")."""
    size, (batch, channels, rows, columns) = attributes["blocksize"], x.shape
    y = x.reshape(batch, channels, rows // size, size, columns // size, size)
    block_first = attributes.get("mode", "DCR") == "DCR"
    y = y.transpose((0, 3, 5, 1, 2, 4) if block_first else (0, 1, 3, 5, 2, 4))
    return y.reshape(batch, -1, rows // size, columns // size)


def _reduction(function: Callable[..., Array]) -> Operator:
    """A reduction over `axes`: an attribute, later an operand; all of them where none are given."""

    def operator(attributes: Attributes, x: Array, axes: Any = None) -> Array:
        axes = attributes.get("axes") if axes is None else axes
        if axes is None or len(axes) == 0:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            axes = range(x.ndim)
        keep = bool(attributes.get("keepdims", 1))
        return function(x, axis=tuple(map(int, axes)), keepdims=keep)

    return operator


def _global(function: Callable[..., Array]) -> Operator:
    return lambda attributes, x: function(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def _variadic(function: Callable[[Array, Array], Array]) -> Operator:
    return lambda attributes, *operands: reduce(function, operands)


def _pointwise(function: Callable[..., Array]) -> Operator:
    return lambda attributes, *operands: function(*operands)


def _standardised(attributes: Attributes, x: Array, axes: tuple[int, ...]) -> Array:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + attributes.get("epsilon", 1e-5))


def _per_channel(channels: Array, x: Array) -> Array:
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))


def _hard_sigmoid(attributes: Attributes, x: Array) -> Array:
    return jnp.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1)


def _gelu(attributes: Attributes, x: Array) -> Array:
    return jax.nn.gelu(x, approximate=attributes.get("approximate", "none") == "tanh")


def _celu(attributes: Attributes, x: Array) -> Array:
    return jax.nn.celu(x, attributes.get("alpha", 1.0))


def _elu(attributes: Attributes, x: Array) -> Array:
    return jax.nn.elu(x, attributes.get("alpha", 1.0))


OPERATORS: dict[str, Operator] = {
    "AveragePool": average_pool,
    "Cast": cast,
    "Celu": _celu,
    "Clip": _pointwise(jnp.clip),
    "Conv": conv,
    "DequantizeLinear": dequantize_linear,
    "Dropout": dropout,
    "Elu": _elu,
    "Floor": _pointwise(jnp.floor),
    "Gather": gather,
    "Gelu": _gelu,
    "Gemm": gemm,
    "GlobalMaxPool": _global(jnp.max),
    "Greater": _pointwise(jnp.greater),
    "GreaterOrEqual": _pointwise(jnp.greater_equal),
    "GroupNormalization": group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _pointwise(jax.nn.hard_swish),
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "MaxPool": max_pool,
    "Mean": lambda attributes, *operands: reduce(jnp.add, operands) / len(operands),
    "Mish": _pointwise(jax.nn.mish),
    "Pad": pad,
    "QuantizeLinear": quantize_linear,
    "ReduceL1": _reduction(lambda x, **how: jnp.abs(x).sum(**how)),
    "ReduceL2": _reduction(lambda x, **how: jnp.sqrt((x * x).sum(**how))),
    "ReduceMin": _reduction(jnp.min),
    "ReduceSumSquare": _reduction(lambda x, **how: (x * x).sum(**how)),
    "Round": _pointwise(jnp.round),
    "Sign": _pointwise(jnp.sign),
    "Softsign": _pointwise(jax.nn.soft_sign),
    "SpaceToDepth": space_to_depth,
    "Sum": _variadic(jnp.add),
}
