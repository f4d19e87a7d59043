"""Whole networks, cut between every two layers, against afpjax's logits and ONNX Runtime's own."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from afpjax.models import zoo
from afpjax.network.fixed_point import QFormat
from afpjax.network.onnx import load_onnx
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace

from .exports import FLOAT, assert_near, drawn, mapped, runner_of

INT8 = QFormat(bits=8, frac=4, scale="channel")
#: By how much logits may differ, of their range. Sums of 16-bit codes are rounded in float32, in
#: whatever order: a code between layers may be one off.
FORMATS = {INT8: 1e-6, QFormat(bits=16, frac=8, scale="tensor"): 1e-3}
ZOO = {
    "alexnet": (64, 0.1),
    "squeezenet1_0": (64, 0.1),
    "squeezenet1_1": (64, 0.1),
    "resnet18": (32, 0.1),
    "resnet34": (32, 0.05),
    "vgg16_bn": (32, 0.05),
    "convnext_tiny": (32, 0.1),
    "mobilenet_v2": (32, 0.1),
}


def test_every_network_of_the_zoo_is_here():
    assert set(ZOO) == set(zoo.NETWORKS)


@pytest.mark.in_ci("resnet18")
@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo_cut_between_any_two_layers(name):
    """In 8 bits, a slow one in 16 too; trained networks below in float32."""
    size, width = ZOO[name]
    apply_fn = zoo.apply_fn_of(name, classes=7, image_size=size, width=width)
    params = zoo.params_of(zoo.create(name, classes=7, width=width, seed=0))
    images = drawn(3, size, size, 3)
    network = trace(apply_fn, params, jax.ShapeDtypeStruct(images.shape, jnp.float32))
    for fmt in FORMATS if name == "squeezenet1_1" else [INT8]:
        quantized = quantize(network, fmt, images)
        expected = np.asarray(quantized(images))
        assert np.ptp(expected) > 0
        assert_near(runner_of(mapped(quantized, batch=2))(images), expected, FORMATS[fmt])


LIGHT = [
    *("squeezenet", "shufflenet", "bvlc_alexnet", "zfnet512", "inception_v1", "inception_v2"),
    *("resnet50", "densenet121", "vgg19"),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_onnx_s_own_networks(tmp_path, name):
    """Weights are drawn: as shipped, each is one number many times over."""
    folder = onnx.__path__[0] + "/backend/test/data/light"
    model = randomised(onnx.load(f"{folder}/light_{name}.onnx"))
    onnx.save(model, tmp_path / "net.onnx")
    quantized = quantize(load_onnx(tmp_path / "net.onnx"), FLOAT)
    images = drawn(1, 224, 224, 3)
    expected = by_onnxruntime(tmp_path / "net.onnx", images)
    assert_near(runner_of(mapped(quantized))(images), expected, 1e-4)


def randomised(model):
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and len(node.output) == 1:
            shape = numpy_helper.to_array(held[node.input[0]]).tolist()
            gain = np.sqrt(2 / max(np.prod(shape[1:]), 1))
            values = rng.normal(size=shape) * gain if len(shape) > 1 else rng.uniform(0.5, 1, shape)
            array = numpy_helper.from_array(values.astype(np.float32), node.output[0])
            model.graph.initializer.append(array)
            info = helper.make_tensor_value_info(array.name, TensorProto.FLOAT, shape)
            model.graph.input.append(info)
            model.graph.node.remove(node)
    if model.graph.node[-1].op_type == "Softmax":
        last = helper.make_tensor_value_info(
            model.graph.node.pop().input[0], TensorProto.FLOAT, None
        )
        model.graph.output[0].CopyFrom(last)
    return model


def by_onnxruntime(path, images):
    """The logits of a whole network that is not afpjax's."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    given = {session.get_inputs()[0].name: images.transpose(0, 3, 1, 2)}
    return np.asarray(session.run(None, given)[0]).reshape(len(images), -1)


TRAINED = {
    "resnet20_cifar10": ("cifar10_test1000", 32),
    "resnet20_cifar10_slicepad": ("cifar10_test1000", 32),
    "resnet18trunk_tinyimagenet": ("tiny_imagenet_val2000_uint8", 64),
    "squeezenet11_imagenet": ("nips17_200_227_uint8", 227),
}


@pytest.mark.in_ci("resnet20_cifar10")
@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_on_their_own_images(shared_data, name):
    data, size = TRAINED[name]
    with np.load(shared_data / f"{data}.npz") as archive:
        raw = archive["images"][:16].astype(np.float32) / 255
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images = ((raw - np.array(mean, np.float32)) / np.array(std, np.float32)).astype(np.float32)
    network = load_onnx(shared_data / f"{name}.onnx", size)
    expected = by_onnxruntime(shared_data / f"{name}.onnx", images)
    got = runner_of(mapped(quantize(network, FLOAT), batch=16))(images)
    assert_near(got, expected, 1e-4)
