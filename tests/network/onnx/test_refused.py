"""ONNX files that cannot run: refused in one line."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import afpjax
from afpjax.network.onnx import load_onnx

from .onnx_files import N, classifier, conv_tensors, made, saved, tail


def refused(path, message):
    with pytest.raises(afpjax.InputError, match=message) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


#: Of a node before the network: what it cannot do, and what is said.
UNSUPPORTED = {
    "afpjax does not know": N("Mystery", ["x"], ["z"], domain="com.example"),
    "it reads nowhere, which nothing": N("Relu", ["nowhere"], ["z"]),
    "its antialias is 1; afpjax supports 0": N(
        "Resize", ["x", "", "scales"], ["z"], mode="linear", antialias=1
    ),
    "its coordinate_transformation_mode is tf_crop_and_resize; afpjax supports half_pixel, ": N(
        "Resize", ["x", "", "scales"], ["z"], coordinate_transformation_mode="tf_crop_and_resize"
    ),
    "its attribute colour is not supported": N("Relu", ["x"], ["z"], colour="blue"),
    "its attribute kernel_shape is missing": N("MaxPool", ["x"], ["z"]),
    "its mode is odd; afpjax supports constant, edge, reflect, wrap": N(
        "Pad", ["x", "ends"], ["z"], mode="odd"
    ),
    "numbers of the type float8_e4m3fn are not supported": N(
        "Cast", ["x"], ["z"], to=TensorProto.FLOAT8E4M3FN
    ),
    "its repeats depends on the image; export the network with it fixed": N(
        "Tile", ["x", "x"], ["z"]
    ),
    "afpjax works this operator out of constants alone, and here it depends on the image": N(
        "NonZero", ["x"], ["z"]
    ),
    "it normalises as in training; export the network for inference": N(
        "BatchNormalization", ["x", "s", "s", "s", "s"], ["z"], training_mode=1
    ),
    "its auto_pad is HALF; afpjax supports NOTSET, VALID, SAME_UPPER, SAME_LOWER": N(
        "AveragePool", ["x"], ["z"], kernel_shape=[2, 2], auto_pad="HALF"
    ),
    "": N("Conv", ["x", "narrow"], ["z"]),  # channels that do not fit the kernel
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_an_operator_cannot_do_is_refused_by_its_node(tmp_path, message):
    nodes, tensors = tail("c", 4)
    node = helper.make_node("Identity", [], [])
    node.CopyFrom(UNSUPPORTED[message])
    node.name = "odd"
    nodes = [node, N("Conv", ["z", "c.weight"], ["c"]), *nodes]
    tensors |= conv_tensors("c", 3, 4, bias=False)
    tensors |= {"scales": np.array([1, 1, 2, 2], np.float32), "s": np.ones(3, np.float32)}
    tensors["ends"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    tensors["narrow"] = np.ones((3, 2, 1, 1), np.float32)
    path = saved(tmp_path, made(nodes, tensors, opset=20))
    refused(path, rf"{node.op_type} \(node odd\): {message}")


def test_a_network_without_layers_is_refused(tmp_path):
    nodes = [N("GlobalAveragePool", ["x"], ["p"]), N("Flatten", ["p"], ["y"])]
    path = saved(tmp_path, made(nodes, {}))
    refused(path, r"net\.onnx has no convolution or dense layer")


def test_several_inputs_or_outputs_are_refused_by_their_names(tmp_path):
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ("N", 9)))
    refused(saved(tmp_path, model), r"has 2 inputs \(x, mask\)")
    model = classifier()
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ("N", 8)))
    refused(saved(tmp_path, model), r"has 2 outputs \(y, flat\)")


def test_images_of_integers_and_outputs_that_are_no_logits_are_refused(tmp_path):
    refused(saved(tmp_path, classifier(dtype=TensorProto.UINT8)), "reads UINT8 images")
    nodes = [N("Conv", ["x", "c.weight"], ["y"])]
    model = made(nodes, conv_tensors("c", 3, 4, bias=False))
    refused(saved(tmp_path, model), r"gives \[1, 4, 7, 7\] for one image")


def test_files_that_are_no_model_are_refused_in_one_line(tmp_path):
    whole = classifier().SerializeToString()
    path = tmp_path / "net.onnx"
    for bad in (whole[: len(whole) // 2], whole[:-30], b"", b"<html>not found</html>"):
        path.write_bytes(bad)
        refused(path, r"net\.onnx is no whole ONNX model")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(path, "git-LFS pointer")
    refused(tmp_path / "none.onnx", r"none\.onnx does not exist")
    refused(tmp_path, "is a folder")


def test_an_operator_set_that_cannot_be_lifted_is_refused(tmp_path):
    model = classifier(opset=7)
    model.graph.node.append(N("Upsample", ["x"], ["up"], mode="nearest"))
    refused(saved(tmp_path, model), r"cannot be lifted from operator set 7 to 14")
