"""The table of ONNX operators, by name, and how a node is run by its operator.

Versions of an operator from set 14 on differ in the types they allow, in attributes that became
operands (both are taken) and in what operands' shapes say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from inspect import Parameter, signature
from typing import Any

import jax
import numpy as np
import onnx

from afpjax.network.onnx import arrays, elementwise, quantised, reductions, windows
from afpjax.network.onnx.constants import CONSTANTS, Room, elements
from afpjax.network.onnx.elementwise import Operator

#: Runs a node on its operands (None where an optional one is left out): one array per output.
Run = Callable[..., Sequence[Any]]

_FAMILIES = (elementwise, arrays, reductions, windows, quantised)
#: Operators that work out constants in NumPy.
NUMPY = {name: op for family in _FAMILIES for name, op in family.NUMPY.items()} | CONSTANTS
#: Every operator that an image may pass.
OPERATORS = {
    name: operator
    for family in _FAMILIES
    for table in (family.NUMPY, family.JAX)
    for name, operator in table.items()
}


@contextmanager
def numpy_rules() -> Iterator[None]:
    """ONNX broadcasts and mixes types as NumPy does, whatever the caller's own rule."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def runner(node: onnx.NodeProto, table: Mapping[str, Operator] = OPERATORS) -> Run | None:
    """How to run a node of an operator set from 14 on, within `numpy_rules`; None for an operator
    that is not in the table.

    Raises `ValueError` for an attribute that is not supported, or one that is missing.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in table:
        return None
    if any(attribute.HasField("g") for attribute in node.attribute):
        return None  # control flow (If, Loop, Scan) holds a graph
    operator, attributes = table[node.op_type], attributes_of(node)
    needed = _attributes(operator)
    for name in attributes:
        if name not in needed:
            raise ValueError(f"its attribute {name} is not supported")
    for name, must in needed.items():
        if must and name not in attributes:
            raise ValueError(f"its attribute {name} is missing")
    return partial(_run, partial(operator, **attributes))


def _run(operator: Operator, *operands: Any) -> Sequence[Any]:
    outputs = operator(*operands)
    return outputs if isinstance(outputs, list | tuple) else [outputs]


@cache
def _attributes(operator: Operator) -> dict[str, bool]:
    """The attributes that an operator takes, and whether it needs them; those of a window where it
    passes them on."""
    parameters = signature(operator).parameters.values()
    own = {p.name: p.default is Parameter.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    on = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return (_attributes(windows.window) if on else {}) | own


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's settings by name."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {n: v.decode() if isinstance(v, bytes) else v for n, v in values.items()}
    if node.op_type == "Split":  # which says in few versions what its outputs say anyway
        attributes.setdefault("num_outputs", len(node.output))
    return attributes


def worked_out(
    node: onnx.NodeProto, operands: Sequence[np.ndarray | None], room: Room
) -> list[np.ndarray] | None:
    """The outputs of a node in `NUMPY`, of constants; None for another.

    Raises `ValueError` where `room` does not suffice.
    """
    run = runner(node, NUMPY)
    if run is None:
        return None
    attributes = attributes_of(node)
    count = elements(node.op_type, attributes, operands)
    if node.op_type == "ConstantOfShape":
        room.repeat(count)
    else:
        present = [operand for operand in operands if operand is not None]
        narrow = any(operand.itemsize <= 4 for operand in present) or "value" in attributes
        read = 0 if node.op_type in ("Shape", "Size") else sum(each.size for each in present)
        room.take(count, 4 if narrow else 8, read)
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in run(*operands)]
