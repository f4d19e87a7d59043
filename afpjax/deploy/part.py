"""One device's part of an export: its ONNX file, cut into one onnxruntime session per task."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from afpjax.deploy.graph import leading
from afpjax.deploy.manifest import Manifest, Task, Tensor
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import PART, read_bytes, understood

_SETTING = "serve.export"


class Part:
    """The tasks of one device, ready to run. Without JAX: it lives in a device's own process.

    `source` is the export's folder, or the file's content. `threads` is onnxruntime's number of
    threads within one operator. Raises `InputError` where onnxruntime is not installed or the
    manifest has no such device.
    """

    def __init__(
        self, manifest: Manifest, source: Path | str | bytes, device: str, *, threads: int = 1
    ) -> None:
        if device not in manifest.names:
            known = ", ".join(manifest.names)
            raise InputError(f"device: {device!r} is none of the export's; it has {known}")
        file = manifest.devices[manifest.names.index(device)].file
        content = (
            source if isinstance(source, bytes) else read_bytes(Path(source) / file, _SETTING, PART)
        )
        self.device = device
        self.tasks = tuple(task for task in manifest.tasks if task.device == device)
        with understood(Path(file), _SETTING, PART):
            model = onnx.load_model_from_string(content)
            self._sessions = {
                task.task: _session(cut(model, task, manifest.tensors), threads)
                for task in self.tasks
            }
        self._outputs = {task.task: list(task.outputs) for task in self.tasks}

    def run(self, task: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a task makes, by name, from the tensors that it reads (others are left aside)."""
        session, outputs = self._sessions[task], self._outputs[task]
        feeds = {each.name: inputs[each.name] for each in session.get_inputs()}
        return dict(zip(outputs, session.run(outputs, feeds), strict=True))


def cut(model: onnx.ModelProto, task: Task, tensors: Mapping[str, Tensor]) -> onnx.ModelProto:
    """The model of one task: what leads from its inputs to its outputs."""
    nodes = leading(model.graph.node, task.inputs, task.outputs)
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        task.task,
        [_info(name, tensors) for name in task.inputs if name in used],
        [_info(name, tensors) for name in task.outputs],
        [each for each in model.graph.initializer if each.name in used],
    )
    made = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    made.ir_version = model.ir_version
    return made


def _info(name: str, tensors: Mapping[str, Tensor]) -> onnx.ValueInfoProto:
    tensor = tensors[name]
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.helper.make_tensor_value_info(name, dtype, tensor.shape)


def installed() -> bool:
    """Whether exported models can be run here."""
    return find_spec("onnxruntime") is not None


def require() -> Any:
    """onnxruntime; raises `InputError` where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "running an export needs onnxruntime, which is not installed: "
            "pip install 'afpjax[serve]'"
        ) from None
    return onnxruntime


def _session(model: onnx.ModelProto, threads: int) -> Any:
    onnxruntime = require()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
