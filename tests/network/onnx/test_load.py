"""Small ONNX files of every kind against ONNX Runtime."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import afpjax
from afpjax.network.onnx import load_onnx, read_onnx
from afpjax.network.program import Equation
from afpjax.network.trace import trace
from afpjax.run import main

from .onnx_files import (
    N,
    assert_agrees,
    classifier,
    conv_tensors,
    drawn,
    expected,
    made,
    saved,
    tail,
)


@pytest.mark.in_ci("7", "12", "13", "17", "21")
@pytest.mark.parametrize("opset", range(7, 22))
def test_a_classifier_of_every_operator_set_agrees_with_onnx_runtime(tmp_path, opset):
    model = classifier(opset=opset, ir=3 if opset < 10 else 8)
    network = afpjax.load_onnx(saved(tmp_path, model))
    images = drawn(4, 9, 9, 3, scale=2)
    assert_agrees(network, images, expected(model, images))
    assert network.graph.names == ("conv1", "fc")
    assert [layer.macs for layer in network.layers] == [81 * 27 * 8, 5 * 8]
    assert [layer.biases for layer in network.layers] == [8, 5]
    kept = {s.primitive.name for s in network.program.steps if isinstance(s, Equation)}
    assert not kept & {"mul", "sub", "sqrt"}  # batch norm is in the layer


def test_reshapes_with_0_and_minus_1_and_shapes_computed_in_the_graph(tmp_path):
    nodes = [
        N("Conv", ["x", "c.weight", "c.bias"], ["c"]),
        N("Reshape", ["c", "keep"], ["rows"]),  # [N, 4, 49]
        N("Shape", ["c"], ["shape"]),
        N("Gather", ["shape", "zero"], ["batch"]),
        N("Unsqueeze", ["batch", "axis"], ["batch1"]),
        N("Concat", ["batch1", "rest"], ["wanted"], axis=0),
        N("Reshape", ["rows", "wanted"], ["flat"]),
        N("MatMul", ["flat", "fc.weight"], ["y"]),
    ]
    tensors = conv_tensors("c", 3, 4) | {
        "keep": np.array([0, 0, -1]),
        "zero": np.array(0),
        "axis": np.array([0]),
        "rest": np.array([-1]),
        "fc.weight": drawn(196, 5),
    }
    model = made(nodes, tensors)
    path, images = saved(tmp_path, model), drawn(3, 9, 9, 3)
    wanted = expected(model, images)
    assert_agrees(load_onnx(path), images, wanted)
    loaded = read_onnx(path)
    assert sorted(loaded.params) == ["c.bias", "c.weight", "fc.weight"]
    assert_agrees(lambda batch: loaded.apply_fn(loaded.params, batch), images, wanted)


def test_float16_weights_are_computed_with_in_float32(tmp_path):
    """A float16 model agrees, in full precision, with its float32 twin of the same weights."""
    half = classifier(dtype=TensorProto.FLOAT16)
    twin = classifier()
    for ours, theirs in zip(half.graph.initializer, twin.graph.initializer, strict=True):
        rounded = numpy_helper.to_array(ours).astype(np.float16)
        ours.CopyFrom(numpy_helper.from_array(rounded, ours.name))
        theirs.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), ours.name))
    images = drawn(3, 9, 9, 3).astype(np.float16)
    network = load_onnx(saved(tmp_path, half))
    assert_agrees(network, images.astype(np.float32), expected(twin, images.astype(np.float32)))
    assert_agrees(network, images.astype(np.float32), expected(half, images), tolerance=1e-2)


def test_float16_weights_behind_casts_keep_their_names(tmp_path):
    nodes, tensors = tail("c", 4)
    nodes = [
        N("Cast", ["stem.weight"], ["wide"], to=TensorProto.FLOAT),
        N("Conv", ["x", "wide"], ["c"]),
        *nodes,
    ]
    model = made(nodes, tensors | {"stem.weight": drawn(4, 3, 3, 3).astype(np.float16)})
    network = load_onnx(saved(tmp_path, model))
    images = drawn(2, 9, 9, 3)
    assert_agrees(network, images, expected(model, images))
    assert network.graph.names == ("stem", "fc")


def test_weights_in_a_file_of_their_own(tmp_path):
    model = classifier()
    images = drawn(2, 9, 9, 3)
    wanted = expected(model, images)
    where = {"all_tensors_to_one_file": True, "location": "net.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, **where)
    assert_agrees(load_onnx(tmp_path / "net.onnx"), images, wanted)
    (tmp_path / "net.data").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(afpjax.InputError, match=r"weights of .*: .*net\.data is a git-LFS pointer"):
        load_onnx(tmp_path / "net.onnx")


def test_made_up_tensor_names_give_way_to_the_node_s(tmp_path):
    """PyTorch folds batch norm while it exports, and calls what comes out `onnx::Conv_12`."""
    nodes = [
        N("Conv", ["x", "onnx::Conv_1", "onnx::Conv_2"], ["a"], "/layer1/layer1.0/conv1/Conv"),
        N("Conv", ["a", "3"], ["b"], "/layer1/layer1.0/downsample/downsample.0/Conv"),
        N("GlobalAveragePool", ["b"], ["pooled"], "/pool/GlobalAveragePool"),
        N("Flatten", ["pooled"], ["flat"], "/Flatten"),
        N("MatMul", ["flat", "onnx::MatMul_4"], ["p"], "/head/MatMul"),
        N("Add", ["p", "head.bias"], ["y"], "/head/Add"),
    ]
    tensors = {
        "onnx::Conv_1": drawn(4, 3, 3, 3),
        "onnx::Conv_2": drawn(4),
        "3": drawn(6, 4, 1, 1),
        "onnx::MatMul_4": drawn(6, 5),
        "head.bias": drawn(5),
    }
    path = saved(tmp_path, made(nodes, tensors))
    assert load_onnx(path).graph.names == ("layer1.0.conv1", "layer1.0.downsample.0", "head")
    assert sorted(read_onnx(path).params) == [
        "head.bias",
        "head.weight",
        "layer1.0.conv1.bias",
        "layer1.0.conv1.weight",
        "layer1.0.downsample.0.weight",
    ]


def test_images_with_the_channels_last_are_taken_as_they_are(tmp_path):
    nodes, tensors = tail("c", 4)
    nodes = [
        N("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "c.weight"], ["c"]),
        *nodes,
    ]
    tensors |= conv_tensors("c", 3, 4, bias=False)
    model = made(nodes, tensors, image=("N", 9, 9, 3))
    images = drawn(2, 9, 9, 3)
    assert_agrees(load_onnx(saved(tmp_path, model)), images, expected(model, images, nhwc=True))


def test_a_size_that_the_file_leaves_free_is_the_caller_s(tmp_path):
    path = saved(tmp_path, classifier(image=("N", 3, "H", "W")))
    assert read_onnx(path).image_shape == (224, 224, 3)
    network = load_onnx(path, image_size=12)
    images = drawn(2, 12, 12, 3)
    assert_agrees(network, images, expected(path, images))
    model = read_onnx(path, 12)
    with pytest.raises(afpjax.InputError, match=r"takes images of 12 x 12 x 3, .* 12 x 12 x 2"):
        trace(model.apply_fn, model.params, jax.ShapeDtypeStruct((1, 12, 12, 2), jnp.float32))


@pytest.mark.parametrize("sides", [(14, 11), ("H", "W"), (14, "W")])
def test_a_size_of_rows_and_columns_is_taken_where_the_file_has_it_or_leaves_it_free(
    tmp_path, sides
):
    images = drawn(2, 14, 11, 3)
    path = saved(tmp_path, classifier(image=("N", 3, *sides)))
    network = load_onnx(path, image_size=(14, 11))
    assert network.program.image_shape == (14, 11, 3)
    assert_agrees(network, images, expected(path, images))


@pytest.mark.parametrize(
    ("sides", "given", "said"),
    [
        ((9, 9), 12, r"images of 9 x 9 pixels, not 12; set"),
        ((14, 11), 14, r"of 14 x 11 pixels, not 14; set .* to 14 11 \(rows"),
        ((9, 9), (9, 10), r"of 9 x 9 pixels, not 9 10 .*; set .* to 9$"),
    ],
)
def test_a_size_that_is_not_the_file_s_is_refused(tmp_path, sides, given, said):
    path = saved(tmp_path, classifier(image=("N", 3, *sides)))
    with pytest.raises(afpjax.InputError, match=said):
        load_onnx(path, image_size=given)


@pytest.mark.slow  # sizes of files, of settings and of images have tests of their own
def test_a_campaign_on_images_that_are_not_square(tmp_path, monkeypatch, capsys):
    """No setting fitted a network of 49 x 10 pixels, though the library ran it."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, classifier(image=("N", 3, 49, 10)))
    images = np.random.default_rng(0).integers(0, 256, (24, 49, 10, 3), np.uint8)
    labels = np.arange(24) % 5
    np.savez("data.npz", images=images, labels=labels)
    words = "--model.name net.onnx --model.classes 5 --out run"
    assert main(f"profile {words} --model.image_size 49".split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "set model.image_size to 49 10 (rows columns)" in error
    Path("e.toml").write_text("model.image_size = [49, 10]")
    words += " --config e.toml --data.name npz --data.path data.npz --search.images 4"
    assert main(f"campaign {words} --campaign.strata layer --campaign.trials 2".split()) == 0
    assert "\nimage_size = [49, 10]\n" in Path("run/config.toml").read_text()
    scaled = images / 255
    inputs = (scaled - scaled.mean((0, 1, 2))) / scaled.std((0, 1, 2))
    logits = expected(Path("net.onnx"), inputs.astype(np.float32))
    held = np.random.default_rng(0).permutation(24)[4:]
    right = (logits.argmax(1) == labels)[held].mean()
    answer = json.loads(Path("run/result.json").read_text())
    assert answer["clean"]["accuracy"] == pytest.approx(right)


def test_what_the_output_does_not_need_is_left_out(tmp_path):
    """An operator that nobody knows does no harm in a branch that nobody reads."""
    model = classifier()
    model.graph.node.append(N("Mystery", ["x"], ["unread"], domain="com.example"))
    assert load_onnx(saved(tmp_path, model)).graph.names == ("conv1", "fc")
