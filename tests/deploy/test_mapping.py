"""Mappings as tasks: what is carried between devices, and that nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from afpjax.deploy.onnx import export
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat

from .exports import NAMES, assert_near, drawn, mapped, quantized_of, runner_of


def residual(params, images):
    """A residual sum and a concatenation over layers that may all lie elsewhere."""
    value = jax.nn.relu(images @ params["in"]["w"])
    value = value + jax.nn.relu(value @ params["mid"]["w"])
    both = jnp.concatenate([value @ params["left"]["w"], value @ params["right"]["w"], value], 1)
    return jax.nn.relu(both) @ params["out"]["w"]


SIZES = {"in": (4, 6), "mid": (6, 6), "left": (6, 3), "right": (6, 2), "out": (11, 5)}
PARAMS = {name: {"w": drawn(*size)} for name, size in SIZES.items()}
IMAGES = drawn(7, 4)


@pytest.fixture(scope="module")
def quantized():
    return quantized_of(residual, PARAMS, IMAGES)


@pytest.mark.parametrize(
    ("mapping", "batch"),
    [([0, 1, 2, 0, 1], 1), ([0, 0, 0, 0, 0], 3), ([0, 1, 0, 1, 0], 3), ([2, 2, 1, 1, 0], 1)],
)
def test_the_files_give_the_function_s_own_logits(quantized, mapping, batch):
    """What is sent is what the cost model charges: the layer graph's tensors, each once to every
    other device that reads it."""
    exported = mapped(quantized, mapping, batch=batch)
    assert_near(runner_of(exported)(IMAGES), residual(PARAMS, IMAGES), 1e-6)
    manifest = exported.manifest
    assert manifest.batch == batch and manifest.image.shape == (batch, 4)
    expected = sorted(
        (NAMES[mapping[each.producer]], NAMES[target], 4 * batch * each.elements)
        for each in quantized.graph.tensors
        for target in {mapping[user] for user in each.consumers} - {mapping[each.producer]}
        if each.producer >= 0
    )
    assert sorted((s.source, s.target, s.bytes) for s in manifest.sends) == expected


def test_a_task_is_a_run_of_layers_on_one_device(quantized):
    manifest = mapped(quantized, [0, 0, 2, 2, 0]).manifest
    assert [(t.task, t.device, t.layers) for t in manifest.tasks] == [
        ("in", "edge", ("in", "mid")),
        ("left", "spare", ("left", "right")),
        ("out", "edge", ("out",)),
    ]
    known = {manifest.image.tensor}
    for task in manifest.tasks:
        assert set(task.inputs) <= known
        known |= set(task.outputs)
    assert manifest.output == "logits" in known
    assert [each.device for each in manifest.devices] == ["edge", "spare"]  # hub has no part


def test_files_pass_the_checker_and_name_what_enters_and_leaves(quantized):
    exported = mapped(quantized, [0, 1, 0, 1, 0])
    manifest = exported.manifest
    for device in manifest.devices:
        model = onnx.load_model_from_string(exported.files[device.file])
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version <= 21 and model.ir_version <= 10
        own = [task for task in manifest.tasks if task.device == device.device]
        made = {name for task in own for name in task.outputs}
        assert {each.name for each in model.graph.output} == made
        entering = {each.name for each in model.graph.input}
        assert entering == {name for task in own for name in task.inputs} - made
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert {name for task in own for name in task.layers} <= set(names)
        for info in (*model.graph.input, *model.graph.output):
            shape = tuple(each.dim_value for each in info.type.tensor_type.shape.dim)
            assert shape == manifest.tensors[info.name].shape


def test_weights_and_activations_are_counted(quantized):
    (device,) = mapped(quantized, [0] * 5).manifest.devices
    weights = sum(np.prod(size) for size in SIZES.values())
    assert device.weight_bytes == pytest.approx(4 * weights, abs=200)  # and axes of Squeezes
    assert 4 * 2 * 11 <= device.activation_bytes <= 4 * 4 * 11


def test_int8_weights_take_a_byte_and_the_grid_is_the_evaluated_one():
    """QuantizeLinear and DequantizeLinear, a scale for every channel, int32 biases."""

    def biased(params, images):
        return residual(params, images + 0.5) + 1

    fmt = QFormat(bits=8, frac=4, scale="channel")
    quantized = quantized_of(biased, PARAMS, IMAGES, fmt)
    exported = mapped(quantized, [0] * 5)
    (device,) = exported.manifest.devices
    graph = onnx.load_model_from_string(exported.files[device.file]).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    ops = [node.op_type for node in graph.node]
    assert ops.count("QuantizeLinear") == 5
    for call in quantized.program.calls:
        (node,) = (node for node in graph.node if node.name == call.layer.name)
        maker = next(each for each in graph.node if node.input[1] in each.output)
        codes, scale = (arrays[name] for name in maker.input[:2])
        assert codes.dtype == np.int8
        steps = np.asarray(quantized.steps[call.layer.name].weights)
        np.testing.assert_array_equal(np.broadcast_to(scale, steps.shape), steps)
        kernel = np.asarray(quantized.parameters.layers[call.layer.name].kernel, np.float64)
        np.testing.assert_array_equal(codes, np.clip(np.round(kernel / steps), -128, 127))
    biases = [
        arrays[n.input[0]]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in arrays
    ]
    assert any(each.dtype == np.int32 for each in biases)


def test_more_weights_than_a_file_holds_are_refused(quantized, monkeypatch):
    monkeypatch.setattr(export, "_MOST_BYTES", 300)
    with pytest.raises(InputError, match=r"edge has .* an ONNX file holds no more than 2"):
        mapped(quantized, [0] * 5)


def test_equal_exports_are_equal_bytes_and_the_digest_tells_networks_apart(quantized):
    one, other = (mapped(quantized, [0, 1, 2, 0, 1]) for _ in range(2))
    assert one.files == other.files
    digest = one.manifest.model.digest
    assert digest == mapped(quantized_of(residual, PARAMS, IMAGES)).manifest.model.digest
    changed = {**PARAMS, "mid": {"w": PARAMS["mid"]["w"] + np.float32(1e-3)}}
    assert digest != mapped(quantized_of(residual, changed, IMAGES)).manifest.model.digest


def test_names_that_layers_have_taken_are_left_to_them():
    params = {"logits": {"w": drawn(4, 6)}, "image": {"w": drawn(6, 3)}}

    def apply_fn(params, images):
        return jax.nn.relu(images @ params["logits"]["w"]) @ params["image"]["w"]

    exported = mapped(quantized_of(apply_fn, params, IMAGES))
    assert (exported.manifest.image.tensor, exported.manifest.output) == ("image_2", "logits_2")
    assert_near(runner_of(exported)(IMAGES), apply_fn(params, IMAGES), 1e-6)


def test_what_comes_before_all_layers_is_done_where_it_is_needed():
    def apply_fn(params, images):
        scaled = jnp.tanh(images) * 2
        return (scaled @ params["a"]["w"]) + (scaled @ params["b"]["w"]) @ params["c"]["w"]

    params = {"a": {"w": drawn(4, 3)}, "b": {"w": drawn(4, 5)}, "c": {"w": drawn(5, 3)}}
    exported = mapped(quantized_of(apply_fn, params, IMAGES), [0, 1, 0])
    first, second, _ = exported.manifest.tasks
    assert first.inputs == second.inputs == ("image",)
    assert_near(runner_of(exported)(IMAGES), apply_fn(params, IMAGES), 1e-6)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ([0, 1, 0, 1], "4 devices, but the network has 5 layers"),
        ([0, 1, 0, 1, 3], "no device 3; devices are 0 to 2"),
        ([0, 1, 0, 1, -1], "no device -1"),
    ],
)
def test_mappings_of_another_network_or_platform_are_refused(quantized, mapping, said):
    with pytest.raises(InputError, match=said):
        mapped(quantized, mapping)


def test_every_device_of_a_mapping_is_needed(quantized):
    with pytest.raises(InputError, match="every device of a mapping is needed"):
        runner_of(mapped(quantized))(IMAGES, failed=(0,))


@pytest.mark.parametrize(
    ("head", "mapping"),
    [
        (lambda x: x[:, 0], [0, 1, 2]),
        (lambda x: x[:, -1], [0, 1, 0]),
        (lambda x: x[:, :1], [1, 0, 0]),
    ],
)
def test_a_squeeze_between_devices_takes_no_name_from_the_layer_before_it(head, mapping):
    """A layer's own nodes are called LAYER/OPERATOR, and so are the tensors that others know."""
    params = {"a": {"w": drawn(4, 6)}, "b": {"w": drawn(6, 6)}, "c": {"w": drawn(6, 3)}}

    def apply_fn(params, images):
        tokens = jnp.squeeze((images @ params["a"]["w"])[:, None], 1)
        first = head(tokens @ params["b"]["w"])
        return first.reshape(len(images), -1) @ params["c"]["w"]

    images = drawn(2, 5, 4)
    quantized = quantized_of(apply_fn, params, images, QFormat(bits=8, scale="channel"))
    exported = mapped(quantized, mapping)
    assert_near(runner_of(exported)(images[:1]), quantized(images[:1]), 1e-5)
