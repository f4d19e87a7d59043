"""How an ONNX node is run: by an operator of ours, else by jaxonnxruntime's handler."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import onnx
from jaxonnxruntime import onnx_ops  # noqa: F401 - registers the handlers
from jaxonnxruntime.core.handler import Handler
from jaxonnxruntime.core.onnx_node import OnnxNode

from afpjax.network.onnx.operators import OPERATORS

#: Runs a node on its operands (None where an optional one is left out): one array per output.
Run = Callable[..., Sequence[Any]]


@contextmanager
def numpy_rules() -> Iterator[None]:
    """ONNX broadcasts and mixes types as NumPy does, whatever the caller's own rule."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def runner(node: onnx.NodeProto, opset: int) -> Run | None:
    """How to run a node of an operator set from 14 on, within `numpy_rules`; None for an operator
    nobody knows."""
    if node.domain not in ("", "ai.onnx") or any(each.HasField("g") for each in node.attribute):
        return None  # control flow (If, Loop, Scan) holds a graph
    attributes = attributes_of(node)
    if node.op_type in OPERATORS:
        operator = partial(OPERATORS[node.op_type], attributes)
        return lambda *operands: _listed(operator(*operands))
    handler = _handlers().get(node.op_type)
    version = handler and _version(handler, opset)
    return partial(_handled, node, getattr(handler, f"version_{version}")) if version else None


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's settings by name."""
    attributes = {each.name: _value(each) for each in node.attribute}
    if node.op_type == "Split":  # which says in few versions what its outputs say anyway
        attributes.setdefault("num_outputs", len(node.output))
    return attributes


def _handled(node: onnx.NodeProto, method: Callable[..., Any], *operands: Any) -> Sequence[Any]:
    """Let a handler write the node's settings down, from operands that are NumPy arrays, and run
    the function that it chooses."""
    known = {
        name: operand
        for name, operand in zip(node.input, operands, strict=True)
        if isinstance(operand, np.ndarray)
    }
    described = OnnxNode(node, SimpleNamespace(initializer_dict=known, value_info_dict={}))
    function = method(described, operands)
    return _listed(function(*operands, **described.attrs_dict))


@cache
def _handlers() -> dict[str, type[Handler]]:
    return {each.OP_TYPE: each for each in Handler.__subclasses__() if not each.DOMAIN}


def _version(handler: type[Handler], opset: int) -> int | None:
    """The newest version that is no newer than what the operator set asks for.

    From set 14 on, the versions in between differ in nothing but the types they allow.
    """
    wanted = handler.get_since_version(opset)
    prefix = "version_"
    held = [int(name[len(prefix) :]) for name in dir(handler) if name.startswith(prefix)]
    return max((version for version in held if version <= wanted), default=None)


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _listed(outputs: Any) -> Sequence[Any]:
    return outputs if isinstance(outputs, list | tuple) else [outputs]
