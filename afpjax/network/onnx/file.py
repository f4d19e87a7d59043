"""An ONNX file as plain facts: its nodes at one operator set, and its tensors as NumPy arrays."""

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import external_data_helper, helper, numpy_helper, version_converter

from afpjax.errors import InputError
from afpjax.files import one_line, refuse_pointer

WHERE = "the ONNX file"  # opens every error
#: From here on, versions of an operator differ in the types they allow, or `operators` tells them
#: apart; older files are lifted.
OPSET = 14
# An adapter may look at a tensor of this size (a shape, axes), never at a larger one.
_SMALL = 1024
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


class Graph(NamedTuple):
    """What a file holds. The image has the shape [N, ...], None where the file leaves it free."""

    path: Path
    nodes: tuple[onnx.NodeProto, ...]  # in the order they run, those the output needs
    tensors: dict[str, np.ndarray]  # floats of every width as float32
    opset: int
    image: str
    image_shape: tuple[int | None, ...]
    output: str


def read_graph(path: Path) -> Graph:
    """Read an ONNX file, its external data included.

    Raises `InputError` for a file that is missing, a git-LFS pointer or damaged, for an operator
    set that cannot be lifted to `OPSET`, and for several inputs or outputs.
    """
    refuse_pointer(path, WHERE)
    model = _parsed(path)
    tensors = _tensors(model, path)
    image, output = _ends(model, tensors, path)
    graph, opset = _lifted(model, path)
    # An adapter's own small tensors come on top.
    added = {t.name: t for t in graph.initializer if t.name not in tensors}
    tensors.update((name, widened(numpy_helper.to_array(t))) for name, t in added.items())
    nodes = _needed(graph.node, output)
    return Graph(path, nodes, tensors, opset, image.name, _shape(image, path), output)


def widened(array: np.ndarray) -> np.ndarray:
    """Floats of every width as float32, the width that afpjax folds and quantises from."""
    if not jnp.issubdtype(array.dtype, np.floating):
        return array
    with np.errstate(over="ignore"):  # `trace` refuses infinity, by the weight's name
        return array.astype(np.float32, copy=False)


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    if not model.graph.node or not model.opset_import:
        raise _damaged(path, "it holds no graph")
    return model


def _damaged(path: Path, error: Exception | str) -> InputError:
    reason = error if isinstance(error, str) else one_line(error)
    return InputError(
        f"{WHERE}: {path} is no whole ONNX model ({reason}); export or fetch it again"
    )


def _tensors(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    """The initializers by name; the model's own copies are emptied, but for small ones."""
    arrays = {}
    for tensor in model.graph.initializer:
        _fetch(tensor, path)
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise _damaged(path, f"tensor {tensor.name}: {one_line(error)}") from error
        arrays[tensor.name] = widened(array)
        if array.size > _SMALL:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return arrays


def _fetch(tensor: onnx.TensorProto, path: Path) -> None:
    """Read a tensor that lies in a file of its own."""
    if not external_data_helper.uses_external_data(tensor):
        return
    location = external_data_helper.ExternalDataInfo(tensor).location
    refuse_pointer(path.parent / location, f"{WHERE}: {path}: the weights of {tensor.name}")
    try:
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise _damaged(path, f"tensor {tensor.name} in {location}: {one_line(error)}") from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.ClearField("external_data")


def _ends(
    model: onnx.ModelProto, tensors: dict[str, np.ndarray], path: Path
) -> tuple[onnx.ValueInfoProto, str]:
    """The one input that is no weight, and the name of the one output."""
    inputs = [each for each in model.graph.input if each.name not in tensors]
    outputs = [each.name for each in model.graph.output]
    for kind, names in (("input", [each.name for each in inputs]), ("output", outputs)):
        if len(names) != 1:
            held = ", ".join(names) or "none"
            raise InputError(
                f"{WHERE}: {path} has {len(names)} {kind}s ({held}); afpjax needs one: export the "
                "network from its images to its logits"
            )
    return inputs[0], outputs[0]


def _shape(image: onnx.ValueInfoProto, path: Path) -> tuple[int | None, ...]:
    tensor = image.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if name not in _FLOATS:
        raise InputError(f"{WHERE}: {path} reads {name} images; export it for floating point")
    return tuple(dim.dim_value or None for dim in tensor.shape.dim)


def _lifted(model: onnx.ModelProto, path: Path) -> tuple[onnx.GraphProto, int]:
    """The graph at operator set `OPSET` or later, without its larger tensors."""
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if version >= OPSET:
        return model.graph, version
    try:
        return version_converter.convert_version(_skeleton(model, version), OPSET).graph, OPSET
    except (RuntimeError, ValueError) as error:  # C++ exceptions
        raise InputError(
            f"{WHERE}: {path} cannot be lifted from operator set {version} to {OPSET} "
            f"({one_line(error)}); export it anew"
        ) from error


def _skeleton(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model with its larger tensors as inputs: the converter copies whatever it is given."""
    listed = {each.name for each in model.graph.input}
    small, large = [], []
    for tensor in model.graph.initializer:
        (large if prod(tensor.dims) > _SMALL else small).append(tensor)
    inputs = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in listed
    ]
    graph = helper.make_graph(
        model.graph.node, "skeleton", [*model.graph.input, *inputs], model.graph.output, small
    )
    return helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=[
            helper.make_opsetid(each.domain, each.version) for each in model.opset_import
        ],
    )


def _needed(nodes: Iterable[onnx.NodeProto], output: str) -> tuple[onnx.NodeProto, ...]:
    """Leave out what the output does not depend on."""
    wanted, kept = {output}, []
    listed: Sequence[onnx.NodeProto] = list(nodes)
    for node in reversed(listed):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return tuple(kept[::-1])
