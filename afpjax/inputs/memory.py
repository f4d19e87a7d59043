"""What an experiment would hold in memory at once, and whether this machine has as much."""

from math import prod
from typing import Any

import jax
import psutil

from afpjax.inputs.errors import InputError


def refuse_beyond(wanted: int | float, what: str, advice: str) -> None:
    """Raise `InputError` where `wanted` bytes are more than this machine's memory."""
    there = psutil.virtual_memory().total
    if wanted > there:
        raise InputError(
            f"{what} would take about {wanted / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f} GB; {advice}"
        )


def bytes_of(shapes: Any) -> int:
    """Bytes of a pytree's arrays, from their shapes."""
    return sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
