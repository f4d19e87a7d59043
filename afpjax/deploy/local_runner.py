"""Exported files run by onnxruntime: one device's tasks, or a whole export in one process.

Without JAX: a device's own process runs its tasks with this, too.
"""

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from afpjax.deploy.manifest import DeviceTask, Manifest, TensorInfo, joined
from afpjax.deploy.onnx.graph import graph_proto, nodes_between
from afpjax.inputs.errors import InputError
from afpjax.inputs.files import PART, read_bytes, understood


class DevicePart:
    """The tasks of one device, each an onnxruntime session.

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
        if not isinstance(source, bytes):
            source = read_bytes(Path(source) / file, "serve.export", PART)
        self.device = device
        self.tasks = {task.task: task for task in manifest.tasks if task.device == device}
        with understood(Path(file), "serve.export", PART):
            model = onnx.load_model_from_string(source)
            self._sessions = {
                name: _session(task_model(model, task, manifest.tensors), threads)
                for name, task in self.tasks.items()
            }

    def run(self, task: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a task makes, by name, from the tensors that it reads (others are left aside)."""
        session, outputs = self._sessions[task], list(self.tasks[task].outputs)
        feeds = {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()}
        return dict(zip(outputs, session.run(outputs, feeds), strict=True))


class LocalRunner:
    """A whole export in one process: every device's tasks, one after the other.

    `files` is the export's folder, or its files by name.
    """

    def __init__(
        self, manifest: Manifest, files: Path | str | Mapping[str, bytes], *, threads: int = 0
    ) -> None:
        self.manifest = manifest
        self._parts = {
            device.device: DevicePart(
                manifest,
                files[device.file] if isinstance(files, Mapping) else files,
                device.device,
                threads=threads,
            )
            for device in manifest.devices
        }

    def __call__(self, inputs: np.ndarray, failed: Collection[int] = ()) -> np.ndarray:
        """Logits [N, classes] of N inputs as the network takes them, any N.

        `failed` are the numbers of devices that are lost, of a placement. Raises `InputError` where
        none is left, or one of a mapping is lost.
        """
        manifest, count = self.manifest, len(inputs)
        if manifest.kind == "mapping" and failed:
            raise InputError("failed: every device of a mapping is needed; export a placement")
        if len(set(failed)) == len(manifest.devices):
            raise InputError("failed: all devices are lost; keep one")
        logits = []
        for start in range(0, count, manifest.batch):
            part = inputs[start : start + manifest.batch]
            missing = manifest.batch - len(part)
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            batch = batch.astype(manifest.image.dtype)
            logits.append(self._run_batch(batch, failed)[: len(part)])
        return np.concatenate(logits)

    def _run_batch(self, inputs: np.ndarray, failed: Collection[int]) -> np.ndarray:
        manifest = self.manifest
        tensors, pieces = {manifest.image.tensor: inputs}, dict[str, np.ndarray]()
        by = manifest.answering(failed) if manifest.pieces else {}
        shared = {made for layer in manifest.pieces.values() for made in layer.made}
        lost = {manifest.names[device] for device in failed}
        for task in manifest.tasks:
            if task.device in lost:
                continue
            for name in task.inputs:
                if name not in tensors:
                    layer = manifest.pieces[name]
                    made = {d: pieces[p] for d, p in enumerate(layer.made) if p in pieces}
                    tensors[name] = joined(layer, manifest.tensors[name], by[name], made)
            if manifest.output in tensors:
                break
            for name, array in self._parts[task.device].run(task.task, tensors).items():
                (pieces if name in shared else tensors)[name] = array
        return tensors[manifest.output]


def task_model(
    model: onnx.ModelProto, task: DeviceTask, tensors: Mapping[str, TensorInfo]
) -> onnx.ModelProto:
    """A device's model, cut down to one task: what leads from its inputs to its outputs."""
    nodes = nodes_between(model.graph.node, task.inputs, task.outputs)
    used = {name for node in nodes for name in node.input}
    graph = graph_proto(
        nodes,
        task.task,
        {name: tensors[name] for name in task.inputs if name in used},
        {name: tensors[name] for name in task.outputs},
        [array for array in model.graph.initializer if array.name in used],
    )
    return onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def onnxruntime_installed() -> bool:
    """Whether exported models can be run here."""
    return find_spec("onnxruntime") is not None


def _session(model: onnx.ModelProto, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "running an export needs onnxruntime, which is not installed: "
            "pip install 'afpjax[serve]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
