"""A network from an ONNX file: ONNX Runtime is asked what is left without a neuron."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import afpjax

from .conftest import divergence

N = helper.make_node
CHANNELS = {"a": 4, "b": 4, "c": 3, "d": 5}


def _model(tensors):
    nodes = [
        N("Conv", ["x", "a", "a_bias"], ["h1"], pads=[1, 1, 1, 1]),
        N("Relu", ["h1"], ["h2"]),
        N("Conv", ["h2", "b"], ["h3"], pads=[1, 1, 1, 1], group=2),
        N("Add", ["h2", "h3"], ["h4"]),
        N("Conv", ["h4", "c"], ["h5"]),
        N("Concat", ["h4", "h5"], ["h6"], axis=1),
        N("GlobalAveragePool", ["h6"], ["h7"]),
        N("Flatten", ["h7"], ["h8"]),
        N("Gemm", ["h8", "d", "d_bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 2, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 5))],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _run(tensors, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    text = _model(tensors).SerializeToString()
    session = onnxruntime.InferenceSession(text, options, ["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
    return np.asarray(found)


def test_scores_of_an_onnx_network(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"a": (4, 2, 3, 3), "b": (4, 2, 3, 3), "c": (3, 4, 1, 1), "d": (7, 5)}
    shapes |= {"a_bias": (4,), "d_bias": (5,)}
    tensors = {
        name: (rng.normal(size=shape) / 2).astype(np.float32) for name, shape in shapes.items()
    }
    images = rng.normal(size=(5, 6, 6, 2)).astype(np.float32)
    path = tmp_path / "net.onnx"
    path.write_bytes(_model(tensors).SerializeToString())
    network = afpjax.load_onnx(path)
    found = afpjax.importance(network, images)
    assert len(found) == 4
    whole = _run(tensors, images)
    for (name, channels), layer in zip(CHANNELS.items(), network.layers, strict=True):
        kernel, bias = tensors[name], tensors.get(f"{name}_bias", np.zeros(channels, np.float32))
        by_neuron = kernel.T if name == "d" else kernel.reshape(channels, -1)
        expected = np.abs(by_neuron).sum(axis=1) + np.abs(bias)
        np.testing.assert_allclose(found[layer.name]["l1"], expected, rtol=1e-5)
        for neuron in range(channels):
            removed = {each: array.copy() for each, array in tensors.items()}
            removed[name][(..., neuron) if name == "d" else neuron] = 0
            if f"{name}_bias" in removed:
                removed[f"{name}_bias"][neuron] = 0
            lost = divergence(whole, _run(removed, images)).mean()
            assert float(found[layer.name]["jsd"][neuron]) == pytest.approx(lost, rel=1e-3)
