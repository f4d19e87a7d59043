"""ONNX operators that reduce along axes: products of arrays, sums and extremes, normalisations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from afpjax.network.onnx.arrays import chosen_axes
from afpjax.network.onnx.elementwise import Operator, Value, known, namespace, plain


def gemm(
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    """alpha·a·b + beta·c, the kernel multiplied as it lies in the file."""
    axes = (0 if transA else 1, 1 if transB else 0)
    y = lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())))
    y = y if alpha == 1 else alpha * y
    return y if c is None else y + (c if beta == 1 else beta * c)


def _reduction(function: Callable[..., Value]) -> Operator:
    """A reduction over `axes`: an attribute, later an operand; all of them where none are given."""

    def operator(
        x: Value,
        among: Any = None,
        *,
        axes: Sequence[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        chosen = chosen_axes(among, axes)
        if not chosen and noop_with_empty_axes:
            # Nothing is reduced, and what is done to each number is done: one number has no axes.
            return function(namespace(x).expand_dims(x, -1), axis=(-1,), keepdims=False)
        return function(x, axis=chosen or tuple(range(x.ndim)), keepdims=bool(keepdims))

    return operator


def _reduced(name: str, of_booleans: str = "") -> Operator:
    """NumPy's or JAX's reduction of this name; of booleans, the maximum is any, the minimum all."""

    def function(x: Value, **how: Any) -> Value:
        xp = namespace(x)
        chosen = of_booleans if of_booleans and x.dtype == bool else name
        made = getattr(xp, chosen)(x, **how)
        return made.astype(x.dtype) if xp is np else made

    return _reduction(function)


def _norm(p: int) -> Callable[..., Value]:
    if p == 1:
        return lambda x, **how: jnp.abs(x).sum(**how)
    if p == 2:
        return lambda x, **how: jnp.sqrt((x * x).sum(**how))
    return lambda x, **how: (jnp.abs(x) ** p).sum(**how) ** (1 / p)


def _extreme_place(name: str) -> Operator:
    """ArgMax and ArgMin: the first of equals, or the last where asked."""

    def operator(
        x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
    ) -> Value:
        xp = namespace(x)
        places = getattr(xp, name)(xp.flip(x, axis) if select_last_index else x, axis=axis)
        places = x.shape[axis] - 1 - places if select_last_index else places
        return xp.expand_dims(places, axis) if keepdims else places

    return operator


def top_k(
    x: Value, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Value, Value]:
    """The k largest (or smallest) and their places; of equals, the first comes first."""
    count = int(known(k, "k").item())
    order = jnp.argsort(x, axis, stable=True, descending=bool(largest))
    places = lax.slice_in_dim(order, 0, count, axis=axis % x.ndim)
    return jnp.take_along_axis(x, places, axis), places


def cumulated(x: Value, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """Sums so far; without the number itself where `exclusive`, from the end where `reverse`."""
    xp, along = namespace(x), int(known(axis, "axis").item())
    turned = xp.flip(x, along) if reverse else x
    sums = xp.cumsum(turned, along, turned.dtype)
    if exclusive:
        width = [(0, 0)] * x.ndim
        width[along] = (1, 0)
        kept = [slice(None)] * x.ndim
        kept[along] = slice(x.shape[along])
        sums = xp.pad(sums, width)[tuple(kept)]
    return xp.flip(sums, along) if reverse else sums


def hardmax(x: Value, *, axis: int = -1) -> Value:
    """One at the first maximum, zero elsewhere."""
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], axis=axis % x.ndim, dtype=x.dtype)


def lp_norm(x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """Divided by the norm along `axis`; zeros stay zeros."""
    norm = _norm(p)(x, axis=axis, keepdims=True)
    return x / jnp.where(norm == 0, 1, norm)


def batch_norm(
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    """By the statistics of the file; `momentum` is for training."""
    if training_mode:
        raise ValueError("it normalises as in training; export the network for inference")
    scale, bias, mean, variance = (per_channel(v, x) for v in (scale, bias, mean, variance))
    return (x - mean) / jnp.sqrt(variance + epsilon) * scale + bias


def layer_norm(
    x: Value,
    scale: Value,
    bias: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    """Over `axis` and all behind it; `stash_type` is the mean's type, float32 here."""
    y = _standardised(x, tuple(range(axis % x.ndim, x.ndim)), epsilon) * scale
    return y if bias is None else y + bias


def rms_norm(
    x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    over = tuple(range(axis % x.ndim, x.ndim))
    return x / jnp.sqrt((x * x).mean(over, keepdims=True) + epsilon) * scale


def instance_norm(x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    y = _standardised(x, tuple(range(2, x.ndim)), epsilon)
    return y * per_channel(scale, x) + per_channel(bias, x)


def group_norm(
    x: Value,
    scale: Value,
    bias: Value,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    """Scale and bias are per channel, before operator set 21 per group."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    y = _standardised(grouped, (2,), epsilon).reshape(x.shape)
    repeats = x.shape[1] // scale.shape[0]
    scale, bias = (per_channel(jnp.repeat(vector, repeats), x) for vector in (scale, bias))
    return y * scale + bias


def mean_variance_norm(x: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """The standard adds its small number to the deviation, not to the variance."""
    mean, deviation = x.mean(tuple(axes), keepdims=True), x.std(tuple(axes), keepdims=True)
    return (x - mean) / (deviation + 1e-9)


def _standardised(x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + epsilon)


def per_channel(channels: Value, x: Value) -> Value:
    """One number per channel [C], laid out to broadcast against [B, C, ...]."""
    return channels.reshape(1, -1, *(1,) * (x.ndim - 2))


NUMPY: dict[str, Operator] = {
    "ArgMax": _extreme_place("argmax"),
    "ArgMin": _extreme_place("argmin"),
    "CumSum": cumulated,
    "ReduceMax": _reduced("max", of_booleans="any"),
    "ReduceMean": _reduced("mean"),
    "ReduceMin": _reduced("min", of_booleans="all"),
    "ReduceProd": _reduced("prod"),
    "ReduceSum": _reduced("sum"),
}
JAX: dict[str, Operator] = {
    "BatchNormalization": batch_norm,
    "Einsum": lambda *operands, equation: jnp.einsum(equation, *operands),
    "Gemm": gemm,
    "GroupNormalization": group_norm,
    "Hardmax": hardmax,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LogSoftmax": lambda x, *, axis=-1: jax.nn.log_softmax(x, axis),
    "LpNormalization": lp_norm,
    "MatMul": plain(jnp.matmul),
    "MeanVarianceNormalization": mean_variance_norm,
    "RMSNormalization": rms_norm,
    "ReduceL1": _reduction(_norm(1)),
    "ReduceL2": _reduction(_norm(2)),
    "ReduceLogSum": _reduction(lambda x, **how: jnp.log(x.sum(**how))),
    "ReduceLogSumExp": _reduction(jax.nn.logsumexp),
    "ReduceSumSquare": _reduction(lambda x, **how: (x * x).sum(**how)),
    "Softmax": lambda x, *, axis=-1: jax.nn.softmax(x, axis),
    "TopK": top_k,
}
