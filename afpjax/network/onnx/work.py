"""How much an operator would make and multiply, told from shapes alone."""

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import jax
from jax.extend import core

from afpjax.network.flatten import inner_jaxpr

#: Elements of one value, for one image: a gigabyte in float32.
MOST_ELEMENTS = 2**28


def refuse_excess(sizes: Iterable[int]) -> None:
    """Raise `ValueError` for a value that is larger than any network's."""
    for size in sizes:
        if size > MOST_ELEMENTS:
            raise ValueError(f"it makes {size:,} numbers of one image; reduce its size")


def work_of(function: Callable[..., Any], *arrays: Any) -> tuple[int, int]:
    """Elements that `function` makes, those on its way included, and its multiplications."""
    return _work(jax.make_jaxpr(function)(*arrays).jaxpr)


def _work(jaxpr: Any) -> tuple[int, int]:
    made = work = 0
    for eqn in jaxpr.eqns:
        inner = inner_jaxpr(eqn)
        if inner is not None:
            more, multiplied = _work(inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner)
            made, work = made + more, work + multiplied
            continue
        outputs = sum(prod(getattr(var.aval, "shape", ())) for var in eqn.outvars)
        made, work = made + outputs, work + outputs * _products(eqn)
    return made, work


def _products(eqn: core.JaxprEqn) -> int:
    """Multiplications, or elements read, for each element that an equation makes."""
    shapes: list[Any] = [getattr(var.aval, "shape", ()) for var in eqn.invars]
    if eqn.primitive.name == "dot_general":
        (axes, _), _ = eqn.params["dimension_numbers"]
        return prod(shapes[0][axis] for axis in axes)
    if eqn.primitive.name == "conv_general_dilated":
        neurons = eqn.params["dimension_numbers"].rhs_spec[0]
        return prod(shapes[1]) // max(shapes[1][neurons], 1)
    return prod(eqn.params.get("window_dimensions", ()))
