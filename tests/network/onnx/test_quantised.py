"""Quantised ONNX files, onnxruntime's and our own, against ONNX Runtime."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import afpjax
from afpjax.deploy.onnx.export import ExportInfo, export_mapping
from afpjax.network.onnx import load_onnx

from .onnx_files import N, assert_agrees, classifier, drawn, expected, made, saved


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.left = [
            {"x": np.ascontiguousarray(each[None].transpose(0, 3, 1, 2))} for each in images
        ]

    def get_next(self):
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def images():
    return drawn(6, 9, 9, 3, scale=1)


def quantised_by_onnxruntime(folder, images, form, **how):
    """Without an average of two or four codes, which is often half a code: there rounding decides
    on the last bit of a sum, whose order nobody states."""
    model = classifier(ir=8)
    average = next(node for node in model.graph.node if node.op_type == "AveragePool")
    average.CopyFrom(N("Relu", average.input, average.output))
    source, target = saved(folder, model), folder / "quantised.onnx"
    quantize_static(source, target, Images(images), quant_format=form, **how)
    return target


@pytest.mark.parametrize(
    ("per_channel", "activations"), [(False, QuantType.QUInt8), (True, QuantType.QInt8)]
)
def test_networks_that_onnxruntime_quantised_give_its_logits(
    tmp_path, images, per_channel, activations
):
    how = {"per_channel": per_channel, "activation_type": activations}
    path = quantised_by_onnxruntime(tmp_path, images, QuantFormat.QDQ, **how)
    network = load_onnx(path)
    wanted = expected(path, images, as_written=True)
    assert_agrees(network, images, wanted, 1e-5)
    assert len(np.unique(wanted)) < wanted.size  # they lie on a grid
    assert network.graph.names == ("conv1", "fc")


def test_what_lies_between_layers_is_not_folded_into_them(tmp_path, images):
    """A division by the scale, taken for a batch norm, would make the weights another layer's."""
    path = quantised_by_onnxruntime(tmp_path, images, QuantFormat.QDQ)
    network = load_onnx(path)
    kernel = np.asarray(network.parameters.layers["fc"].kernel)
    wanted = onnx.numpy_helper.to_array(
        next(t for t in classifier().graph.initializer if t.name == "fc.weight")
    )
    np.testing.assert_allclose(kernel.reshape(-1, 8), wanted, atol=np.abs(wanted).max() / 100)


def quantise_and_back(tmp_path, kind):
    """A layer of ones, then 4 codes a unit with 5 for zero."""
    nodes = [
        N("MatMul", ["x", "w"], ["l"]),
        N("QuantizeLinear", ["l", "s", "z"], ["q"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    tensors = {"w": np.eye(3), "s": np.array(0.25)}
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    model = made(nodes, tensors | {"z": np.array(5, kind)}, image=("N", 3))
    return model, load_onnx(saved(tmp_path, model))


def test_gradients_pass_through_what_is_not_saturated(tmp_path):
    _, network = quantise_and_back(tmp_path, np.int8)
    images = jnp.array([[0.3, 100.0, -1.0], [-50.0, 0.0, 2.0]])
    slopes = jax.grad(lambda x: network(x).sum())(images)
    np.testing.assert_array_equal(slopes, [[1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_codes_are_those_of_onnx_runtime_halves_and_ends_too(tmp_path, kind):
    model, network = quantise_and_back(tmp_path, kind)
    images = (np.arange(-639, 642, dtype=np.float32) / 8).reshape(-1, 3)  # half a code apart
    np.testing.assert_array_equal(network(jnp.asarray(images)), expected(model, images))


def test_operators_that_quantise_by_themselves_agree_within_a_code(tmp_path, images):
    """QLinearConv and QLinearMatMul, written as what they stand for."""
    scale, zero = np.array(0.05, np.float32), np.array(12, np.uint8)
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        N("QLinearConv", ["xq", "s", "z", "k", "ks", "kz", "s2", "z", "b"], ["c"], strides=[2, 2]),
        N("DequantizeLinear", ["c", "s2", "z"], ["cv"]),
        N("GlobalAveragePool", ["cv"], ["p"]),
        N("Flatten", ["p"], ["f"]),
        N("QuantizeLinear", ["f", "s2", "z"], ["fq"]),
        N("QLinearMatMul", ["fq", "s2", "z", "m", "ms", "mz", "s2", "z"], ["q"]),
        N("DequantizeLinear", ["q", "s2", "z"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    tensors = {
        "s": scale,
        "z": zero,
        "s2": np.array(0.04, np.float32),
        "k": rng.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8),
        "ks": np.linspace(0.002, 0.004, 6).astype(np.float32),
        "kz": np.zeros(6, np.int8),
        "b": rng.integers(-500, 500, 6).astype(np.int32),
        "m": rng.integers(-127, 128, (6, 5)).astype(np.int8),
        "ms": np.array(0.01, np.float32),
        "mz": np.array(0, np.int8),
    }
    model = made(nodes, tensors)
    network = load_onnx(saved(tmp_path, model))
    wanted = expected(model, images, as_written=True)
    got = np.asarray(network(jnp.asarray(images)))
    assert np.abs(got - wanted).max() <= 0.0401 and (got == wanted).mean() > 0.8
    assert network.graph.names == ("k", "m")


def test_dynamic_quantisation_is_refused_with_what_to_do(tmp_path):
    source, target = saved(tmp_path, classifier()), tmp_path / "dynamic.onnx"
    quantize_dynamic(source, target)
    with pytest.raises(afpjax.InputError, match=r"dynamic\.onnx: .*QuantFormat\.QDQ, static"):
        load_onnx(target)


@pytest.mark.parametrize(
    "fmt", [afpjax.QFormat(bits=8, scale="channel"), afpjax.QFormat(bits=16, frac=8)], ids=str
)
def test_our_own_exports_read_back(tmp_path, images, fmt):
    network = load_onnx(saved(tmp_path, classifier()))
    quantized = afpjax.quantize(network, fmt, jnp.asarray(images))
    about = ExportInfo("net", (0.0,), (1.0,), "given")
    exported = export_mapping(quantized, np.array([0, 0]), ("all",), about)
    (tmp_path / "all.onnx").write_bytes(exported.files["all.onnx"])
    again = load_onnx(tmp_path / "all.onnx")
    assert_agrees(again, images, np.asarray(quantized(jnp.asarray(images))), 1e-5)
    assert again.graph.names == network.graph.names
