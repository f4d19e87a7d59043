"""ONNX operators that treat every number alone: arithmetic, comparisons, activations, casts.

An operator takes a node's operands (None where an optional one is left out) in order and its
attributes by name; an attribute that has no parameter is one that is not supported. Those in a
`NUMPY` table also work out constants: on NumPy arrays alone they compute in NumPy, whose integers
have 64 bits, and on what the image reaches in JAX.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from jax.core import Tracer

#: An operand that the image or the parameters reach is a JAX array; a known one is NumPy's, which
#: makes scalars of arrays without axes; type checkers know no type for both.
Value: TypeAlias = Any
Operator = Callable[..., Any]


def namespace(*operands: Any) -> Any:
    """`jax.numpy` where an operand is JAX's, else NumPy."""
    return jnp if any(isinstance(operand, jax.Array) for operand in operands) else np


def by_name(name: str) -> Operator:
    """NumPy's or JAX's function of this name, which takes no attribute."""
    return lambda *operands: getattr(namespace(*operands), name)(*operands)


def plain(function: Operator) -> Operator:
    """A function of its operands alone, which takes no attribute."""
    return lambda *operands: function(*operands)


def known(value: Any, what: str) -> np.ndarray:
    """A setting among the operands. Raises `ValueError` where it depends on the image."""
    if isinstance(value, Tracer):
        raise ValueError(f"its {what} depends on the image; export the network with it fixed")
    return np.asarray(value)


def numbers(value: Any, what: str) -> list[int]:
    """A list among the operands: a shape, axes. Raises `ValueError` as `known`."""
    return [int(number) for number in known(value, what).reshape(-1)]


def refuse_unless(name: str, value: Any, *allowed: Any) -> None:
    """Raise `ValueError` for an attribute's value that is not supported."""
    if value not in allowed:
        listed = ", ".join(map(str, allowed))
        raise ValueError(f"its {name} is {value}; afpjax supports {listed}")


def cast(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    """To floats, integers or booleans; `saturate` and `round_mode` are for floats of eight bits."""
    return x.astype(_numeric(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to)), x))


def cast_like(x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return x.astype(_numeric(np.dtype(like.dtype), x))


def _numeric(dtype: np.dtype, x: Value) -> np.dtype:
    """The dtype that stands for another: in JAX, float32 for all floats. Raises `ValueError` for
    one that nothing does."""
    if namespace(x) is jnp and (dtype.kind == "f" or dtype == jnp.bfloat16):
        return np.dtype(np.float32)
    if dtype.kind not in ("biufV" if namespace(x) is np else "biu"):
        raise ValueError(f"numbers of the type {dtype} are not supported")
    return dtype if namespace(x) is np else jax.dtypes.canonicalize_dtype(dtype)


def power(x: Any, y: Any) -> Any:
    """In the base's own dtype, or the one that JAX has for it."""
    own = namespace(x, y)
    dtype = x.dtype if own is np else jax.dtypes.canonicalize_dtype(x.dtype)
    return own.power(x, y).astype(dtype)


def dropout(
    x: Value, ratio: Any = None, training: Any = None, *, seed: int = 0
) -> tuple[Value, Value]:
    """Nothing is dropped at inference; the second output, the mask, keeps everything."""
    if training is not None and bool(known(training, "training mode")):
        raise NotImplementedError("it drops values at random; export the network for inference")
    return x, jnp.ones(x.shape, bool)


def divide(a: Value, b: Value) -> Value:
    """Quotients of integers are cut towards zero."""
    xp = namespace(a, b)
    if jnp.issubdtype(a.dtype, jnp.floating):
        return xp.true_divide(a, b)
    if xp is jnp:
        return lax.div(*jnp.broadcast_arrays(a, b))
    _refuse_zero(b)
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def modulo(a: Value, b: Value, *, fmod: int = 0) -> Value:
    """The remainder has the divisor's sign, with `fmod` the dividend's."""
    xp = namespace(a, b)
    if xp is np and a.dtype.kind != "f":
        _refuse_zero(b)
    return (xp.fmod if fmod else xp.mod)(a, b)


def _refuse_zero(divisor: Value) -> None:
    if not np.all(divisor):
        raise ValueError("it divides by zero")


def shift(x: Value, by: Value, *, direction: str) -> Value:
    refuse_unless("direction", direction, "LEFT", "RIGHT")
    return (jnp.left_shift if direction == "LEFT" else jnp.right_shift)(x, by)


def is_infinite(x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    below = jnp.isneginf(x) & bool(detect_negative)
    return below | (jnp.isposinf(x) & bool(detect_positive))


def gelu(x: Value, *, approximate: str = "none") -> Value:
    refuse_unless("approximation", approximate, "none", "tanh")
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def selu(
    x: Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Value:
    return gamma * jax.nn.elu(x, alpha)


def shrink(x: Value, *, lambd: float = 0.5, bias: float = 0.0) -> Value:
    """Zero between ±lambd, the rest moved towards it by `bias`."""
    return jnp.where(x < -lambd, x + bias, jnp.where(x > lambd, x - bias, jnp.zeros_like(x)))


def _variadic(name: str) -> Operator:
    return lambda *operands: reduce(by_name(name), operands)


NUMPY: dict[str, Operator] = {
    "Abs": by_name("abs"),
    "Add": by_name("add"),
    "And": by_name("logical_and"),
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": by_name("ceil"),
    "Clip": plain(lambda x, low=None, high=None: namespace(x, low, high).clip(x, low, high)),
    "Cos": by_name("cos"),
    "Div": divide,
    "Equal": by_name("equal"),
    "Exp": by_name("exp"),
    "Floor": by_name("floor"),
    "Greater": by_name("greater"),
    "GreaterOrEqual": by_name("greater_equal"),
    "Identity": plain(lambda x: x),
    "Less": by_name("less"),
    "LessOrEqual": by_name("less_equal"),
    "Log": by_name("log"),
    "Max": _variadic("maximum"),
    "Min": _variadic("minimum"),
    "Mod": modulo,
    "Mul": by_name("multiply"),
    "Neg": by_name("negative"),
    "Not": by_name("logical_not"),
    "Or": by_name("logical_or"),
    "Pow": plain(power),
    "Round": by_name("round"),
    "Sign": by_name("sign"),
    "Sin": by_name("sin"),
    "Sqrt": by_name("sqrt"),
    "Sub": by_name("subtract"),
    "Sum": _variadic("add"),
    "Where": by_name("where"),
    "Xor": by_name("logical_xor"),
}

JAX: dict[str, Operator] = {
    "Acos": plain(jnp.arccos),
    "Acosh": plain(jnp.arccosh),
    "Asin": plain(jnp.arcsin),
    "Asinh": plain(jnp.arcsinh),
    "Atan": plain(jnp.arctan),
    "Atanh": plain(jnp.arctanh),
    "BitShift": shift,
    "Celu": lambda x, *, alpha=1.0: jax.nn.celu(x, alpha),
    "Cosh": plain(jnp.cosh),
    "Dropout": dropout,
    "Elu": lambda x, *, alpha=1.0: jax.nn.elu(x, alpha),
    "Erf": plain(lambda x: lax.erf(jnp.asarray(x))),
    "Gelu": gelu,
    "HardSigmoid": lambda x, *, alpha=0.2, beta=0.5: jnp.clip(alpha * x + beta, 0, 1),
    "HardSwish": plain(jax.nn.hard_swish),
    "IsInf": is_infinite,
    "IsNaN": plain(jnp.isnan),
    "LeakyRelu": lambda x, *, alpha=0.01: jax.nn.leaky_relu(x, alpha),
    "Mean": lambda *operands: reduce(jnp.add, operands) / len(operands),
    "Mish": plain(jax.nn.mish),
    "PRelu": plain(lambda x, slope: jnp.where(x >= 0, x, slope * x)),
    "Reciprocal": plain(lambda x: 1 / x),
    "Relu": plain(jax.nn.relu),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": plain(jax.nn.sigmoid),
    "Sinh": plain(jnp.sinh),
    "Softplus": plain(jax.nn.softplus),
    "Softsign": plain(jax.nn.soft_sign),
    "Swish": lambda x, *, alpha=1.0: x * jax.nn.sigmoid(x if alpha == 1 else alpha * x),
    "Tan": plain(jnp.tan),
    "Tanh": plain(jnp.tanh),
    "ThresholdedRelu": lambda x, *, alpha=1.0: jnp.where(x > alpha, x, jnp.zeros_like(x)),
}
