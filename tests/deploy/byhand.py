"""A small network as exports made by hand, and what it answers, in NumPy alone."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from afpjax import __version__
from afpjax.deploy import manifest as m
from afpjax.deploy.service.plan import ServedExport

SHAPE, SIZES = (3, 3, 2), (18, 12, 8, 5)
LAYERS = ("one", "two", "three")
NAMES = ("a", "b", "c", "d")
MEAN, STD = (0.5, 0.25), (0.5, 2.0)
_RNG = np.random.default_rng(5)
WEIGHTS = [_RNG.normal(size=pair).astype(np.float32) for pair in pairwise(SIZES)]
BIASES = [_RNG.normal(size=size).astype(np.float32) for size in SIZES[1:]]
SUBSTITUTES = [_RNG.normal(size=size).astype(np.float32) for size in SIZES[1:]]


def images(count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def held(layer: int, device: int) -> list[int]:
    """Every neuron on two devices, those whose number ends in 3 on one."""
    count = range(SIZES[layer + 1])
    return [n for n in count if n % 4 == device or (n % 4 != 3 and (n + 1) % 4 == device)]


def answer(image, lost: Collection[int] = (), *, shared=True, substitutes=SUBSTITUTES):
    """Logits, in NumPy; neurons that no living device holds give their substitute."""
    value = ((image / 255.0 - np.array(MEAN)) / np.array(STD)).reshape(-1)
    for layer, (weights, bias) in enumerate(zip(WEIGHTS, BIASES, strict=True)):
        value = (np.maximum(value, 0) if layer else value) @ weights + bias
        alive = {n for device in range(4) if device not in lost for n in held(layer, device)}
        if shared:
            gone = [n for n in range(len(bias)) if n not in alive]
            value[gone] = substitutes[layer][gone]
    return value


def task(name, device, layers, inputs, outputs):
    return m.DeviceTask(task=name, device=device, layers=layers, inputs=inputs, outputs=outputs)


def placement(batch=1, names: Sequence[str] = NAMES, **changes) -> ServedExport:
    """The neurons of all layers shared out over four devices."""
    tensors = {"image": (batch, *SHAPE), "logits": (batch, SIZES[-1])}
    pieces, tasks, files = {}, [], {}
    for layer, name in enumerate(LAYERS):
        tensors[name] = (batch, SIZES[layer + 1])
        made = tuple(f"{name}/{device}" for device in NAMES)
        neurons = tuple(tuple(held(layer, device)) for device in range(4))
        tensors |= {t: (batch, len(n)) for t, n in zip(made, neurons, strict=True)}
        substitute = tuple(map(float, SUBSTITUTES[layer]))
        pieces[name] = m.LayerPieces(
            layer=name, axis=1, made=made, neurons=neurons, substitute=substitute
        )
        reads = LAYERS[layer - 1] if layer else "image"
        tasks += [task(t, t[-1], (name,), (reads,), (t,)) for t in made]
    tasks += [task(f"logits/{d}", d, (), (LAYERS[-1],), ("logits",)) for d in NAMES]
    for device, name in enumerate(NAMES):
        columns = [held(layer, device) for layer in range(len(LAYERS))]
        nodes = [n for layer in range(3) for n in _layer(layer, f"{LAYERS[layer]}/{name}")]
        nodes.append(helper.make_node("Identity", [LAYERS[-1]], ["logits"]))
        files[f"{name}.onnx"] = _file(nodes, columns, tensors)
    return _export("placement", batch, tensors, pieces, tasks, files, names, changes)


def mapping(of: Sequence[str], batch=1, names: Sequence[str] = NAMES, **changes) -> ServedExport:
    """Every layer whole, on the device that `of` names for it."""
    tensors = {"image": (batch, *SHAPE)}
    tensors |= {name: (batch, size) for name, size in zip(LAYERS, SIZES[1:], strict=True)}
    reads = ("image", *LAYERS)
    tasks = [
        task(f"{name} on {device}", device, (name,), (reads[layer],), (name,))
        for layer, (name, device) in enumerate(zip(LAYERS, of, strict=True))
    ]
    whole = [list(range(size)) for size in SIZES[1:]]
    files = {}
    for device in dict.fromkeys(of):
        nodes = [n for layer in range(3) if of[layer] == device for n in _layer(layer)]
        files[f"{device}.onnx"] = _file(nodes, whole, tensors)
    return _export("mapping", batch, tensors, {}, tasks, files, names, changes)


def _layer(layer, output=""):
    name = LAYERS[layer]
    reads = LAYERS[layer - 1] if layer else "image"
    first = helper.make_node("Relu" if layer else "Flatten", [reads], [f"{name}:in"])
    inputs = [f"{name}:in", f"{name}:weights", f"{name}:bias"]
    return first, helper.make_node("Gemm", inputs, [output or name])


def _file(nodes, columns, tensors):
    kept = []
    for layer, name in enumerate(LAYERS):
        parts = WEIGHTS[layer][:, columns[layer]], BIASES[layer][columns[layer]]
        for array, part in zip(parts, ("weights", "bias"), strict=True):
            kept.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}:{part}"))
    made = {each for node in nodes for each in node.output}
    read = {each for node in nodes for each in node.input}

    def info(of):
        return [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
            for n, s in tensors.items()
            if n in of
        ]

    graph = helper.make_graph(nodes, "part", info(read - made), info(made), kept)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=9, opset_imports=opset).SerializeToString()


def _export(kind, batch, tensors, pieces, tasks, files, names, changes):
    devices = [
        m.DeviceFile(
            device=f[:-5],
            file=f,
            sha256=m.sha256(content),
            weight_bytes=4 * 500,
            activation_bytes=4 * 60 * batch,
        )
        for f, content in files.items()
    ]
    fields = {
        "afpjax": __version__,
        "kind": kind,
        "method": "hand",
        "model": m.ModelInfo(name="byhand", digest="0", layers=LAYERS),
        "format": {"kind": "float32"},
        "image": m.ImageFormat(
            tensor="image", shape=(batch, *SHAPE), dtype="float32", mean=MEAN, std=STD
        ),
        "output": "logits" if kind == "placement" else LAYERS[-1],
        "batch": batch,
        "devices": tuple(devices),
        "tensors": {
            name: m.TensorInfo(shape=shape, dtype="float32") for name, shape in tensors.items()
        },
        "tasks": tuple(tasks),
        "pieces": pieces,
        "sends": (),
    }
    return ServedExport(m.Manifest(**{**fields, **changes}), files, tuple(names))
