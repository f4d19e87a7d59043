"""ONNX operators that treat every number alone: arithmetic, comparisons, activations, casts.

An operator takes a node's operands (None where an optional one is left out) in order and its
attributes by name; an attribute that has no parameter is one that is not supported.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from jax.core import Tracer

#: An operand that the image or the parameters reach is a JAX array; a known one is NumPy's.
Value = jax.Array | np.ndarray
Operator = Callable[..., Any]


def plain(function: Operator) -> Operator:
    """A function of its operands alone, which takes no attribute."""
    return lambda *operands: function(*operands)


def known(value: Any, what: str) -> np.ndarray:
    """A setting among the operands. Raises `ValueError` where it depends on the image."""
    if isinstance(value, Tracer):
        raise ValueError(f"its {what} depends on the image; export the network with it fixed")
    return np.asarray(value)


def refuse_unless(name: str, value: Any, *allowed: Any) -> None:
    """Raise `ValueError` for an attribute's value that is not supported."""
    if value not in allowed:
        listed = ", ".join(map(str, allowed))
        raise ValueError(f"its {name} is {value}; afpjax supports {listed}")


def cast(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    """To floats (of every width: float32), integers or booleans.

    `saturate` and `round_mode` are for floats of eight bits, which are refused.
    """
    wanted = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
    return x.astype(_held(wanted))


def cast_like(x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return x.astype(_held(np.dtype(like.dtype)))


def _held(wanted: np.dtype) -> np.dtype:
    """The dtype that stands for another here. Raises `ValueError` for one that nothing does."""
    if wanted.kind == "f" or wanted == jnp.bfloat16:
        return np.dtype(np.float32)
    if wanted.kind not in "biu":
        raise ValueError(f"numbers of the type {wanted} are not supported")
    return jax.dtypes.canonicalize_dtype(wanted)


def dropout(
    x: Value, ratio: Any = None, training: Any = None, *, seed: int = 0
) -> tuple[Value, Value]:
    """Nothing is dropped at inference; the second output, the mask, keeps everything."""
    if training is not None and bool(known(training, "training mode")):
        raise NotImplementedError("it drops values at random; export the network for inference")
    return x, jnp.ones(x.shape, bool)


def divide(a: Value, b: Value) -> Value:
    """Quotients of integers are cut towards zero."""
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jnp.true_divide(a, b)
    return lax.div(*jnp.broadcast_arrays(a, b))


def modulo(a: Value, b: Value, *, fmod: int = 0) -> Value:
    """The remainder has the divisor's sign, with `fmod` the dividend's."""
    return (jnp.fmod if fmod else jnp.mod)(a, b)


def shift(x: Value, by: Value, *, direction: str) -> Value:
    refuse_unless("direction", direction, "LEFT", "RIGHT")
    return (jnp.left_shift if direction == "LEFT" else jnp.right_shift)(x, by)


def is_infinite(x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    below = jnp.isneginf(x) & bool(detect_negative)
    return below | (jnp.isposinf(x) & bool(detect_positive))


def hard_sigmoid(x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return jnp.clip(alpha * x + beta, 0, 1)


def gelu(x: Value, *, approximate: str = "none") -> Value:
    refuse_unless("approximation", approximate, "none", "tanh")
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def celu(x: Value, *, alpha: float = 1.0) -> Value:
    return jax.nn.celu(x, alpha)


def elu(x: Value, *, alpha: float = 1.0) -> Value:
    return jax.nn.elu(x, alpha)


def selu(
    x: Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Value:
    return gamma * jax.nn.elu(x, alpha)


def leaky_relu(x: Value, *, alpha: float = 0.01) -> Value:
    return jax.nn.leaky_relu(x, alpha)


def swish(x: Value, *, alpha: float = 1.0) -> Value:
    return x * jax.nn.sigmoid(x if alpha == 1 else alpha * x)


def thresholded_relu(x: Value, *, alpha: float = 1.0) -> Value:
    return jnp.where(x > alpha, x, jnp.zeros_like(x))


def shrink(x: Value, *, lambd: float = 0.5, bias: float = 0.0) -> Value:
    """Zero between ±lambd, the rest moved towards it by `bias`."""
    return jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, jnp.zeros_like(x)))


def _powers(x: Value, y: Value) -> Value:
    return jnp.power(x, y).astype(jnp.asarray(x).dtype)


def _variadic(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda *operands: reduce(function, operands)


OPERATORS: dict[str, Operator] = {
    "Abs": plain(jnp.abs),
    "Acos": plain(jnp.arccos),
    "Acosh": plain(jnp.arccosh),
    "Add": plain(jnp.add),
    "And": plain(jnp.logical_and),
    "Asin": plain(jnp.arcsin),
    "Asinh": plain(jnp.arcsinh),
    "Atan": plain(jnp.arctan),
    "Atanh": plain(jnp.arctanh),
    "BitShift": shift,
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": plain(jnp.ceil),
    "Celu": celu,
    "Clip": plain(jnp.clip),
    "Cos": plain(jnp.cos),
    "Cosh": plain(jnp.cosh),
    "Div": divide,
    "Dropout": dropout,
    "Elu": elu,
    "Equal": plain(jnp.equal),
    "Erf": plain(lambda x: lax.erf(jnp.asarray(x))),
    "Exp": plain(jnp.exp),
    "Floor": plain(jnp.floor),
    "Gelu": gelu,
    "Greater": plain(jnp.greater),
    "GreaterOrEqual": plain(jnp.greater_equal),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(jax.nn.hard_swish),
    "Identity": plain(lambda x: x),
    "IsInf": is_infinite,
    "IsNaN": plain(jnp.isnan),
    "LeakyRelu": leaky_relu,
    "Less": plain(jnp.less),
    "LessOrEqual": plain(jnp.less_equal),
    "Log": plain(jnp.log),
    "Max": _variadic(jnp.maximum),
    "Mean": lambda *operands: reduce(jnp.add, operands) / len(operands),
    "Min": _variadic(jnp.minimum),
    "Mish": plain(jax.nn.mish),
    "Mod": modulo,
    "Mul": plain(jnp.multiply),
    "Neg": plain(jnp.negative),
    "Not": plain(jnp.logical_not),
    "Or": plain(jnp.logical_or),
    "PRelu": plain(lambda x, slope: jnp.where(x >= 0, x, slope * x)),
    "Pow": plain(_powers),
    "Reciprocal": plain(lambda x: 1 / x),
    "Relu": plain(jax.nn.relu),
    "Round": plain(jnp.round),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": plain(jax.nn.sigmoid),
    "Sign": plain(jnp.sign),
    "Sin": plain(jnp.sin),
    "Sinh": plain(jnp.sinh),
    "Softplus": plain(jax.nn.softplus),
    "Softsign": plain(jax.nn.soft_sign),
    "Sqrt": plain(jnp.sqrt),
    "Sub": plain(jnp.subtract),
    "Sum": _variadic(jnp.add),
    "Swish": swish,
    "Tan": plain(jnp.tan),
    "Tanh": plain(jnp.tanh),
    "ThresholdedRelu": thresholded_relu,
    "Where": plain(jnp.where),
    "Xor": plain(jnp.logical_xor),
}
