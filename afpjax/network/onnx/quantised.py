"""ONNX's quantised operators: values on a grid, between layers that stay what they were.

QuantizeLinear and DequantizeLinear of an activation are elementwise: codes are whole numbers held
in float32. Operators that quantise, multiply and quantise again are written as what they stand for.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx
from jaxtyping import Array
from onnx import helper

from afpjax.network.onnx.elementwise import Operator, Value, namespace

#: Operators that stand for several others, see `plain_nodes`.
COMPOSED = ("QLinearConv", "QLinearMatMul")
#: Why a network that carries these cannot be used, by operator.
DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
ADVICE = (
    "afpjax reads networks that are quantised with QuantizeLinear and DequantizeLinear "
    "(QuantFormat.QDQ, static); quantise it that way, or export the network in float: afpjax "
    "quantises it itself"
)


def quantize_linear(
    x: Value,
    scale: Any,
    zero: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Value:
    """Codes, rounded half to even and saturated; the gradient is straight-through.

    Of constants they have their own dtype, else float32. `precision` is the division's, float32
    here; `saturate` is for codes that are floats, which are refused.
    """
    low, high, dtype = _code_range(zero, output_dtype)
    constant = namespace(x, scale) is np
    scale = _per_axis(scale, axis, block_size, x.shape)
    offset = np.float32(0)
    if zero is not None:
        offset = np.asarray(_per_axis(zero, axis, block_size, x.shape), np.float32)
    if constant:
        codes = np.rint(x.astype(np.float32) / scale) + offset
        return np.clip(codes, low, high).astype(dtype)
    return _codes(low, high, jnp.asarray(x), jnp.asarray(scale), jnp.asarray(offset))


def dequantize_linear(
    codes: Value,
    scale: Any,
    zero: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Value:
    """Values of codes, float32 whatever `output_dtype`."""
    # The difference is exact, the product rounds once: as in float32.
    wide = np.float64 if namespace(codes, scale) is np else np.float32
    values = codes.astype(wide)
    if zero is not None:
        values = values - _per_axis(zero, axis, block_size, codes.shape).astype(wide)
    scale = _per_axis(scale, axis, block_size, codes.shape)
    return values.astype(np.float32) * scale.astype(np.float32)


def _per_axis(array: Any, axis: int, block: int, shape: tuple[int, ...]) -> Any:
    """A scale or zero point, laid out to broadcast against what it quantises.

    One for all, one for each place along `axis`, or one for each block of that size along it.
    """
    if array.size == 1:
        return array.reshape(())
    if block:
        return array.repeat(block, axis)[tuple(slice(size) for size in shape)]
    return array.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])


def _code_range(zero: Any, output_dtype: int) -> tuple[float, float, np.dtype]:
    """The least and the largest code that QuantizeLinear makes, and their dtype."""
    dtype = np.dtype(np.uint8) if zero is None else np.dtype(zero.dtype)
    if zero is None and output_dtype:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(output_dtype))
    try:
        ends = ml_dtypes.iinfo(dtype)
    except ValueError:
        raise ValueError(f"codes of {dtype} are not supported, only integers") from None
    return float(ends.min), float(ends.max), dtype


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


NUMPY: dict[str, Operator] = {
    "DequantizeLinear": dequantize_linear,
    "QuantizeLinear": quantize_linear,
}
JAX: dict[str, Operator] = {}
