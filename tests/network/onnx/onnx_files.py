"""Small ONNX files made for the tests, and ONNX Runtime's answer to them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
LIGHT = Path(onnx.__path__[0]) / "backend" / "test" / "data" / "light"
IMAGE = ("N", 3, 9, 9)
N = helper.make_node


def drawn(*shape, scale=0.5):
    return (np.random.default_rng(shape).normal(size=shape) * scale).astype(np.float32)


def made(nodes, tensors, *, image=IMAGE, opset=17, dtype=TensorProto.FLOAT, ir=8):
    """A model from `x` to `y`; with `ir` 3, the tensors are listed among the inputs."""
    inputs = [helper.make_tensor_value_info("x", dtype, image)]
    if ir == 3:
        inputs += [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(t.dtype), t.shape)
            for n, t in tensors.items()
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        inputs,
        [helper.make_tensor_value_info("y", dtype, ("N", None))],
        [numpy_helper.from_array(t, n) for n, t in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=ir, opset_imports=opsets)


def saved(folder, model):
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def expected(model, images, *, nhwc=False, as_written=False):
    """ONNX Runtime's answer for images [B, rows, columns, channels].

    `as_written`: without its optimiser, which multiplies codes where the file has their values, and
    quantises what the file leaves in float.
    """
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    entrance = images if nhwc or images.ndim == 2 else images.transpose(0, 3, 1, 2)
    name = session.get_inputs()[0].name
    (output,) = session.run(None, {name: np.ascontiguousarray(entrance)})
    return np.asarray(output).reshape(len(images), -1)


def assert_agrees(network, images, wanted, tolerance=1e-4):
    got = np.asarray(network(jnp.asarray(images)))
    span = np.ptp(wanted)
    assert span > 0 and got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=tolerance * span, rtol=0)


def conv_tensors(name, inputs, outputs, window=3, bias=True):
    tensors = {f"{name}.weight": drawn(outputs, inputs, window, window)}
    return tensors | ({f"{name}.bias": drawn(outputs)} if bias else {})


def norm_tensors(name, channels):
    draws = np.random.default_rng(channels).uniform(0.5, 1.5, (4, channels)).astype(np.float32)
    return dict(zip((f"{name}.{k}" for k in ("weight", "bias", "mean", "var")), draws, strict=True))


def tail(value, channels, classes=5):
    """Global average, flatten, and a dense layer `fc` from `value` to `y`."""
    nodes = [
        N("GlobalAveragePool", [value], ["pooled"]),
        N("Flatten", ["pooled"], ["flat"]),
        N("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], transB=1),
    ]
    return nodes, {"fc.weight": drawn(classes, channels), "fc.bias": drawn(classes)}


def classifier(**how):
    """Convolution, batch norm, ReLU, both pools, the tail: what every classifier is made of."""
    norm = [f"bn1.{k}" for k in ("weight", "bias", "mean", "var")]
    ceil: dict[str, Any] = {"ceil_mode": 1} if how.get("opset", 17) >= 10 else {}
    nodes, tensors = tail("averaged", 8)
    nodes = [
        N("Conv", ["x", "conv1.weight"], ["c"], pads=[1, 1, 1, 1]),
        N("BatchNormalization", ["c", *norm], ["b"], epsilon=1e-3),
        N("Relu", ["b"], ["r"]),
        N("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], strides=[2, 2], **ceil),
        N("AveragePool", ["m"], ["averaged"], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        *nodes,
    ]
    tensors |= conv_tensors("conv1", 3, 8, bias=False) | norm_tensors("bn1", 8)
    return made(nodes, tensors, **how)
