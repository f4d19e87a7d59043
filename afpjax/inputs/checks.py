"""What callers give, held against what it must be: one check for each kind of value.

Every public function, the readers of data sets and the jobs use these, so that all answer alike:
with an `InputError` of one line. `where` is what its message begins with, the argument's or the
setting's name. Of arrays that JAX traces, shape and dtype are checked, the values cannot be.
"""

import math
import numbers
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from afpjax.inputs.errors import InputError, quoted

FEWEST_CLASSES = 2
Real = int | float
T = TypeVar("T")


def whole(where: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """A whole number within limits (both included), or an array that is one."""
    if getattr(value, "shape", None) == () and getattr(value.dtype, "kind", None) in ("i", "u"):
        value = int(value)
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InputError(f"{where}: needs a whole number, got {shown(value)}")
    _refuse_outside(where, int(value), low, high)
    return int(value)


def number(where: str, value: Any, low: Real | None = None, high: Real | None = None) -> float:
    """A number that is not NaN, within limits (both included)."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise InputError(f"{where}: needs a number, got {shown(value)}")
    if math.isnan(float(value)):
        raise InputError(f"{where}: needs a number, got NaN")
    _refuse_outside(where, float(value), low, high)
    return float(value)


def instance(where: str, value: Any, kind: Any, wanted: str) -> None:
    """A value of a type; `wanted` says which, and where it comes from."""
    if not isinstance(value, kind):
        raise InputError(f"{where}: needs {wanted}, got {shown(value)}")


def choice(where: str, value: Any, choices: Sequence[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(
            f"{where}: {shown(value)} is none of " + ", ".join(each or '""' for each in choices)
        )
    return value


def names(where: str, value: Any, wanted: str) -> tuple[str, ...]:
    """Several words, of which each is text; a lone one is refused, not taken apart letter by
    letter."""
    if isinstance(value, str):
        raise InputError(f"{where}: needs a list of {wanted}, got {value!r}; give [{value!r}]")
    if not isinstance(value, Iterable):
        raise InputError(f"{where}: needs a list of {wanted}, got {shown(value)}")
    listed = tuple(value)
    for each in listed:
        instance(where, each, str, f"{wanted}, each as text")
    return listed


def several(
    where: str, value: Any, wanted: str, read: Callable[[str, Any], T] = whole
) -> tuple[T, ...]:
    """Several values, whole numbers or what else `read` checks."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{where}: needs a list of {wanted}, got {shown(value)}")
    return tuple(read(where, each) for each in value)


def array(where: str, value: Any) -> Any:
    """An array (NumPy's or JAX's as it is, nested lists as NumPy's) of real numbers."""
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        try:
            value = np.asarray(value)
        except (ValueError, TypeError):  # rows of several lengths
            raise InputError(f"{where}: needs an array of numbers, got {shown(value)}") from None
    real = _is_of(value.dtype, np.floating, np.integer)
    if not (real or value.dtype == bool):
        held = "no numbers" if value.dtype.kind in "OUSM" else str(value.dtype)
        raise InputError(f"{where}: needs an array of real numbers, got {held}")
    return value


def shaped(where: str, images: Any, shape: tuple[int, ...]) -> Any:
    """An array [B, *shape]."""
    images = array(where, images)
    found = tuple(images.shape)
    if not found or found[1:] != shape:
        hint = "; give a batch, images[None]" if found == shape else ""
        raise InputError(
            f"{where}: of shape {found[1:] if found else found}, but the network takes "
            f"{shape}{hint}"
        )
    return images


def batch(where: str, images: Any, shape: tuple[int, ...]) -> Any:
    """Images [B, *shape], one at least and all of them finite."""
    images = shaped(where, images, shape)
    if len(images) == 0:
        raise InputError(f"{where}: none given; give at least one")
    return finite(where, images)


def finite(where: str, values: Any) -> Any:
    """An array without NaN and infinity."""
    if is_traced(values) or not _is_of(values.dtype, np.floating):
        return values
    if not np.isfinite(np.asarray(values)).all():
        raise InputError(f"{where}: they hold NaN or infinity; give finite numbers")
    return values


def class_numbers(labels: Any, classes: int, where: str = "labels") -> Any:
    """Labels that say which of a network's classes each image is of, int32 [N].

    Whatever compares a network's answers with labels measures a classifier's accuracy, which has no
    meaning for labels that are no class numbers (0 to classes - 1), nor for a network of one
    output.
    """
    if classes < FEWEST_CLASSES:
        raise InputError(
            f"{where}: a network of {classes} output tells no classes apart; afpjax measures "
            f"classifiers, which have {FEWEST_CLASSES} outputs or more"
        )
    labels = array(where, labels)
    if labels.ndim == 2:
        column = labels.shape[1] == 1
        kind, mend = ("a column of", "labels[:, 0]") if column else ("one-hot", "labels.argmax(1)")
        raise InputError(f"{where}: {kind} labels, {tuple(labels.shape)}: give {mend}")
    if labels.ndim != 1:
        raise InputError(
            f"{where}: of shape {tuple(labels.shape)}, but needed is one class number an image, [N]"
        )
    if not _is_of(labels.dtype, np.integer):
        raise InputError(f"{where}: they are {_no_integers(labels)}")
    if is_traced(labels) or len(labels) == 0:
        return labels.astype(np.int32)
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise InputError(
            f"{where}: label {wrong} is not in 0..{classes - 1}; count classes from 0, and set "
            "model.classes to how many the network tells apart"
        )
    return labels.astype(np.int32)


def same_count(images: Any, labels: Any, where: str = "labels") -> None:
    """A label for each image."""
    if len(images) != len(labels):
        raise InputError(f"{where}: {len(images)} images but {len(labels)} labels; they must match")


def mappings(where: str, given: Any, layers: int, devices: int | None = None) -> Any:
    """Devices of every layer, int [..., L], each from 0 to devices - 1 (from 0 on, if None)."""
    found = array(where, given)
    if found.ndim == 0 or found.shape[-1] != layers:
        raise InputError(
            f"{where}: of shape {tuple(found.shape)}, but the network has {layers} layers; give "
            "the device of each"
        )
    if not _is_of(found.dtype, np.integer):
        raise InputError(f"{where}: they are {found.dtype}; devices are whole numbers from 0")
    if is_traced(found) or found.size == 0:
        return found
    least, most = int(np.min(found)), int(np.max(found))
    if least < 0 or (devices is not None and most >= devices):
        known = "devices count from 0" if devices is None else f"devices are 0 to {devices - 1}"
        raise InputError(f"{where}: no device {least if least < 0 else most}; {known}")
    return found


def key(where: str, given: Any) -> Any:
    """A `jax.random.key`, old-style key data, or an integer seed, as it was given."""
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return given
    dtype = getattr(given, "dtype", None)
    if dtype is not None and (_is_of(dtype, np.integer) or _is_random_key(dtype)):
        return given
    raise InputError(
        f"{where}: needs a jax.random.key or a whole number as seed, got {shown(given)}"
    )


def _is_of(dtype: Any, *kinds: type) -> bool:
    """Whether a dtype is of some of NumPy's kinds; JAX's small floats are floats too."""
    import jax.numpy as jnp  # not at the top: a service's devices check their files without JAX

    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _is_random_key(dtype: Any) -> bool:
    import jax

    return jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)


def is_traced(value: Any) -> bool:
    """Whether an array is a shape and a dtype alone, so that its values cannot be looked at."""
    jax = sys.modules.get("jax")  # without it there is no such array
    return jax is not None and isinstance(value, jax.core.Tracer | jax.ShapeDtypeStruct)


def shown(value: Any) -> str:
    """A value in an error's one line: short, an array by shape and dtype."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array {tuple(value.shape)} of {value.dtype}"
    if value is None or isinstance(value, str | bool | int | float):
        return quoted(value)
    return f"a {type(value).__name__}"


def _no_integers(labels: Any) -> str:
    """What labels are that are no integers, and what to do."""
    if labels.dtype == bool:
        return "bool; give labels.astype(int)"
    if is_traced(labels) or not (np.asarray(labels) == np.round(np.asarray(labels))).all():
        return (
            f"{labels.dtype}, no class numbers; afpjax measures classifiers, whose labels are "
            "whole numbers from 0"
        )
    return f"{labels.dtype}; save them as integers, labels.astype(int)"


def _refuse_outside(where: str, value: Real, low: Real | None, high: Real | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"{low} or more" if high is None else f"{low} to {high}"
        raise InputError(f"{where}: {quoted(value)}; give {limits}")
