"""ONNX's quantised operators: values on a grid, between layers that stay what they were.

QuantizeLinear and DequantizeLinear of an activation are elementwise: codes are whole numbers held
in float32. Operators that quantise, multiply and quantise again are written as what they stand for.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jaxtyping import Array, Float
from onnx import helper

from afpjax.network.onnx.constants import code_range, per_axis
from afpjax.network.onnx.elementwise import Operator, Value

#: Why a network that carries these cannot be used, by operator.
DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
ADVICE = (
    "afpjax reads networks that are quantised with QuantizeLinear and DequantizeLinear "
    "(QuantFormat.QDQ, static); quantise it that way, or export the network in float: afpjax "
    "quantises it itself"
)


def quantize_linear(
    x: Array,
    scale: Any,
    zero: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Float[Array, "..."]:
    """Codes, rounded half to even and saturated, as float32; the gradient is straight-through.

    `precision` is the division's, float32 here; `saturate` is for codes that are floats, which
    are refused.
    """
    attributes = {"axis": axis, "block_size": block_size, "output_dtype": output_dtype}
    low, high, _ = code_range(zero, attributes)
    scale = per_axis(scale, attributes, x.shape)
    offset = np.float32(0)
    if zero is not None:
        offset = np.asarray(per_axis(zero, attributes, x.shape), np.float32)
    return _codes(low, high, x, jnp.asarray(scale), jnp.asarray(offset))


def dequantize_linear(
    codes: Value,
    scale: Any,
    zero: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Float[Array, "..."]:
    """Values of codes, float32 whatever `output_dtype`."""
    attributes = {"axis": axis, "block_size": block_size}
    values = jnp.asarray(codes, jnp.float32)
    if zero is not None:
        values = values - per_axis(zero, attributes, codes.shape).astype(np.float32)
    return values * per_axis(scale, attributes, codes.shape)


# One equation of the traced program: a division that stood by itself would be folded into the
# layer before it, whose weights would then be another layer's.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _codes(low: float, high: float, x: Array, scale: Array, offset: Array) -> Array:
    return jnp.clip(jnp.round(x / scale) + offset, low, high)


@_codes.defjvp
def _codes_jvp(low: float, high: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
    x, scale, offset = primals
    exact, tangent = jax.jvp(lambda x, scale: x / scale + offset, (x, scale), tangents[:2])
    inside = (exact >= low) & (exact <= high)
    return _codes(low, high, x, scale, offset), jnp.where(
        inside, tangent, jnp.zeros((), tangent.dtype)
    )


def plain_nodes(node: onnx.NodeProto, fresh: Callable[[str], str]) -> Iterator[onnx.NodeProto]:
    """QLinearConv or QLinearMatMul as dequantised operands, their product, and its codes."""
    x, scale, zero, w, w_scale, w_zero, y_scale, y_zero, *bias = node.input
    convolution = node.op_type == "QLinearConv"
    values, kernel, made = fresh(f"{x}_values"), fresh(f"{w}_values"), fresh(node.output[0])
    axis = 0 if convolution else -1
    yield helper.make_node("DequantizeLinear", [x, scale, zero], [values])
    yield helper.make_node("DequantizeLinear", [w, w_scale, w_zero], [kernel], axis=axis)
    operands = [values, kernel]
    if bias and bias[0]:
        grid, added = fresh(f"{w}_grid"), fresh(f"{bias[0]}_values")
        yield helper.make_node("Mul", [scale, w_scale], [grid])
        yield helper.make_node("DequantizeLinear", [bias[0], grid], [added], axis=0)
        operands.append(added)
    product = onnx.NodeProto(op_type="Conv" if convolution else "MatMul", name=node.name)
    product.input[:], product.output[:] = operands, [made]
    product.attribute.extend(node.attribute)
    yield product
    yield helper.make_node("QuantizeLinear", [made, y_scale, y_zero], [node.output[0]])


PLAIN = ("QLinearConv", "QLinearMatMul")

OPERATORS: dict[str, Operator] = {
    "DequantizeLinear": dequantize_linear,
    "QuantizeLinear": quantize_linear,
}
