"""An ONNX file as plain facts: its nodes at one operator set, and its tensors as NumPy arrays."""

from collections.abc import Iterable, Iterator, Sequence
from io import SEEK_END
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper, version_converter

from afpjax.inputs.errors import InputError, one_line
from afpjax.inputs.files import PART, Kind, opened, read_bytes
from afpjax.network.onnx.constants import tensor_value
from afpjax.network.onnx.control import names_read

WHERE = "the ONNX file"  # opens every error
#: From here on, one function runs every version of an operator; older files are lifted.
OPSET = 14
# An adapter may look at a tensor of this size (a shape, axes), never at a larger one.
_SMALL = 1024
#: Nodes of a graph once its functions, branches and loops are written out.
MOST_NODES = 20_000
_DEEPEST = 100  # functions that call one another
_WEIGHTS = Kind("file of weights", 2**40)  # of which only what a shape says is read
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


class OnnxGraph(NamedTuple):
    """What a file holds. The image has the shape [N, ...], None where the file leaves it free."""

    path: Path
    nodes: tuple[onnx.NodeProto, ...]  # in the order they run, those the output needs
    tensors: dict[str, np.ndarray]  # floats of every width as float32
    image: str
    image_shape: tuple[int | None, ...]
    output: str


def read_graph(path: Path) -> OnnxGraph:
    """Read an ONNX file, its external data included.

    Raises `InputError` for a file that is missing, a git-LFS pointer or damaged, for an operator
    set that cannot be lifted to `OPSET`, and for several inputs or outputs.
    """
    model = _parsed(path)
    tensors = _tensors(model, path)
    image, output = _ends(model, tensors, path)
    graph = _lifted(model, path)
    # An adapter's own small tensors come on top.
    added = {t.name: t for t in graph.initializer if t.name not in tensors}
    tensors.update((name, widened(numpy_helper.to_array(t))) for name, t in added.items())
    nodes = _needed(list(graph.node), output)
    return OnnxGraph(path, nodes, tensors, image.name, _shape(image, path), output)


def widened(array: np.ndarray) -> np.ndarray:
    """Floats of every width as float32, the width that afpjax folds and quantises from."""
    if not jnp.issubdtype(array.dtype, np.floating):
        return array
    return array.astype(np.float32, copy=False)


def _parsed(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(read_bytes(path, WHERE, PART))
    except DecodeError as error:
        raise _damaged(path, error) from error
    if not model.graph.node or not model.opset_import:
        raise _damaged(path, "it holds no graph")
    if model.functions:
        _refuse_bombs(model, path)
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # C++ has kinds of its own
            raise _damaged(path, error) from error
    if len(model.graph.node) > MOST_NODES:
        raise _too_many(path)
    return model


def _refuse_bombs(model: onnx.ModelProto, path: Path) -> None:
    """Raise `InputError` where functions call themselves, or come to more nodes than anyone needs:
    each may call the next one many times."""
    bodies = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    counts: dict[tuple[str, str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto], calls: tuple[tuple[str, str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, node.overload)
            if key in bodies and key not in counts:
                if key in calls or len(calls) > _DEEPEST:
                    problem = f"function {node.op_type} calls itself, or calls go too deep"
                    raise _damaged(path, problem)
                counts[key] = count(bodies[key], (*calls, key))
            total += counts.get(key, 1)
            total += sum(count(a.g.node, calls) for a in node.attribute if a.HasField("g"))
        return total

    if count(model.graph.node, ()) > MOST_NODES:
        raise _too_many(path)


def _too_many(path: Path) -> InputError:
    return InputError(
        f"{WHERE}: {path} comes to more than {MOST_NODES:,} nodes, beyond any network that afpjax "
        "places; export the network itself"
    )


def _damaged(path: Path, error: Exception | str) -> InputError:
    reason = (error if isinstance(error, str) else one_line(error))[:300]
    return InputError(
        f"{WHERE}: {path} is no whole ONNX model ({reason}); export or fetch it again"
    )


def _tensors(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    """The initializers by name; the model's own copies are emptied, but for small ones."""
    for tensor in _inner_tensors(model.graph.node):
        _fetch(tensor, path)
    arrays = {}
    for tensor in model.graph.initializer:
        _fetch(tensor, path)
        if tensor.name in arrays:
            raise _damaged(path, f"two tensors are called {tensor.name}")
        try:
            array = widened(tensor_value(tensor))
        except Exception as error:  # protobuf, NumPy and onnx have many words for damage
            raise _damaged(path, f"tensor {tensor.name}: {one_line(error)}") from error
        arrays[tensor.name] = array
        if array.size > _SMALL:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return arrays


def _inner_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """The tensors that nodes, and graphs inside them, hold."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from attribute.g.initializer
            yield from _inner_tensors(attribute.g.node)


def _fetch(tensor: onnx.TensorProto, path: Path) -> None:
    """Read a tensor that lies in a file of its own, in the folder of the model or below it."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    try:
        size = _bytes(tensor)
        if int(said.get("length", size)) != size:
            raise ValueError(f"{said['length']} bytes, where its shape takes {size}")
        data = _external(path, location, int(said.get("offset", 0)), size, tensor.name)
    except InputError:
        raise
    except Exception as error:
        raise _damaged(
            path, f"tensor {tensor.name} in {location[:100]}: {one_line(error)}"
        ) from error
    tensor.raw_data = data
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.ClearField("external_data")


def _bytes(tensor: onnx.TensorProto) -> int:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = prod(tensor.dims)
    if dtype.kind not in "biufV" or count < 0 or any(size < 0 for size in tensor.dims):
        raise ValueError(f"no numbers of the shape {list(tensor.dims)[:8]}")
    halves = tensor.data_type in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4)
    return -(-count // 2) if halves else count * dtype.itemsize


def _external(model: Path, location: str, offset: int, size: int, name: str) -> bytes:
    inside = Path(location)
    if not location or inside.is_absolute() or ".." in inside.parts or chr(0) in location:
        raise ValueError("it has to lie beside the model, or below it")
    file = model.parent / inside
    if model.parent.resolve() not in file.resolve().parents:
        raise ValueError("a link leads out of the model's folder")
    with opened(file, f"{WHERE}: {model}: the weights of {name}", _WEIGHTS) as weights:
        if offset < 0 or offset + size > weights.seek(0, SEEK_END):
            raise ValueError(f"bytes {offset} to {offset + size}, and the file has fewer")
        weights.seek(offset)
        return weights.read(size)


def _ends(
    model: onnx.ModelProto, tensors: dict[str, np.ndarray], path: Path
) -> tuple[onnx.ValueInfoProto, str]:
    """The one input that is no weight, and the name of the one output."""
    inputs = [value for value in model.graph.input if value.name not in tensors]
    outputs = [value.name for value in model.graph.output]
    for kind, names in (("input", [value.name for value in inputs]), ("output", outputs)):
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


def _lifted(model: onnx.ModelProto, path: Path) -> onnx.GraphProto:
    """The graph at operator set `OPSET` or later, without its larger tensors."""
    version = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    if not 1 <= version <= onnx.defs.onnx_opset_version():
        raise _damaged(path, f"operator set {version} does not exist")
    if version >= OPSET:
        return model.graph
    try:
        return version_converter.convert_version(_skeleton(model), OPSET).graph
    except Exception as error:  # C++ has kinds of its own
        raise InputError(
            f"{WHERE}: {path} cannot be lifted from operator set {version} to {OPSET} "
            f"({one_line(error)}); export it anew"
        ) from error


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its larger tensors as inputs: the converter copies whatever it is given."""
    listed = {value.name for value in model.graph.input}
    tensors = model.graph.initializer
    small = [tensor for tensor in tensors if prod(tensor.dims) <= _SMALL]
    inputs = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in tensors
        if prod(tensor.dims) > _SMALL and tensor.name not in listed
    ]
    graph = helper.make_graph(
        model.graph.node, "skeleton", [*model.graph.input, *inputs], model.graph.output, small
    )
    opsets = [helper.make_opsetid(opset.domain, opset.version) for opset in model.opset_import]
    return helper.make_model(graph, ir_version=model.ir_version, opset_imports=opsets)


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> tuple[onnx.NodeProto, ...]:
    """Leave out what the output does not depend on."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= names_read([node])
    return tuple(kept[::-1])
