"""The table of ONNX operators, by name, and how a node is run by its operator.

Versions of an operator from set 14 on differ in the types they allow, in attributes that became
operands (both are taken) and in what operands' shapes say.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, signature
from typing import Any

import jax
import onnx

from afpjax.network.onnx import elementwise, quantised, reductions, resize, shapes, windows
from afpjax.network.onnx.elementwise import Operator

#: Runs a node on its operands (None where an optional one is left out): one array per output.
Run = Callable[..., Sequence[Any]]

#: Every operator that an image may pass.
OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **quantised.OPERATORS,
    **reductions.OPERATORS,
    **resize.OPERATORS,
    **shapes.OPERATORS,
    **windows.OPERATORS,
}


@contextmanager
def numpy_rules() -> Iterator[None]:
    """ONNX broadcasts and mixes types as NumPy does, whatever the caller's own rule."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def runner(node: onnx.NodeProto) -> Run | None:
    """How to run a node of an operator set from 14 on, within `numpy_rules`; None for an operator
    that is not in the table.

    Raises `ValueError` for an attribute that is not supported, or one that is missing.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        return None
    if any(each.HasField("g") for each in node.attribute):
        return None  # control flow (If, Loop, Scan) holds a graph
    operator, attributes = OPERATORS[node.op_type], attributes_of(node)
    taken = {
        name: each.default is Parameter.empty
        for name, each in signature(operator).parameters.items()
        if each.kind is Parameter.KEYWORD_ONLY
    }
    for name in attributes:
        if name not in taken:
            raise ValueError(f"its attribute {name} is not supported")
    for name, needed in taken.items():
        if needed and name not in attributes:
            raise ValueError(f"its attribute {name} is missing")
    return partial(_run, partial(operator, **attributes))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's settings by name."""
    attributes = {each.name: _value(each) for each in node.attribute}
    if node.op_type == "Split":  # which says in few versions what its outputs say anyway
        attributes.setdefault("num_outputs", len(node.output))
    return attributes


def _run(operator: Operator, *operands: Any) -> Sequence[Any]:
    outputs = operator(*operands)
    return outputs if isinstance(outputs, list | tuple) else [outputs]


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value
