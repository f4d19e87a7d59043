"""ONNX operators against ONNX Runtime, and against the examples of the ONNX standard itself."""

import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case.node import collect_testcases

from afpjax.network.onnx.constants import CONSTANTS, Room, worked_out
from afpjax.network.onnx.handlers import attributes_of, numpy_rules, runner
from afpjax.network.onnx.operators import OPERATORS

OPSET = 17
#: What jaxonnxruntime's handlers do for image classifiers.
HANDLED = (
    "Add BatchNormalization Concat Div Einsum Equal Erf Exp Expand Flatten GlobalAveragePool "
    "Identity LRN LeakyRelu LogSoftmax MatMul Max Min Mul Neg PRelu Pow Reciprocal ReduceMax "
    "ReduceMean ReduceSum Relu Reshape Selu Sigmoid Slice Softmax Softplus Split Sqrt Squeeze Sub "
    "Tanh Transpose Unsqueeze Where"
)
SETTINGS = ("Clip", "Dropout", "Pad")  # operators whose further operands are no weights


def drawn(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def ours(node, operands, opset=OPSET):
    """Run a node as a traced network does: floating-point arrays are traced, all else is known."""
    run = runner(node, opset)
    assert run is not None
    known = node.op_type in SETTINGS
    places = [
        i
        for i, operand in enumerate(operands)
        if operand is not None and operand.dtype.kind == "f" and not (known and i > 0)
    ]

    def function(*arrays):
        full = list(operands)
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        with numpy_rules():
            return run(*full)

    arrays = [jnp.asarray(operands[place], jnp.float32) for place in places]
    # What runs once need not run fast.
    quick = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
    return [np.asarray(output) for output in quick(*arrays)]


def theirs(node, operands, opset=OPSET):
    """ONNX Runtime's first output."""
    present = [(n, o) for n, o in zip(node.input, operands, strict=True) if n]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(o.dtype), o.shape)
        for n, o in present
    ]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", inputs, [output])
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), None, ["CPUExecutionProvider"]
    )
    return session.run(None, dict(present))[0]


def assert_agrees(node, *operands, opset=OPSET):
    wanted = np.asarray(theirs(node, operands, opset))
    got = ours(node, operands, opset)[0]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5 * max(np.ptp(wanted), 1), rtol=0)


PADS = ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0])


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("size", [7, 8])
def test_maximum_pools_agree_with_onnx_runtime(size, ceil):
    x = drawn(2, 3, size, size + 1)
    for window, stride, pads, dilation in itertools.product((2, 3), (2, 3), PADS, (1, 2)):
        how: dict[str, Any] = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "pads": pads}
        node = helper.make_node(
            "MaxPool", ["x"], ["y"], **how, dilations=[dilation] * 2, ceil_mode=ceil
        )
        assert_agrees(node, x)


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("count", [0, 1])
def test_average_pools_agree_with_onnx_runtime(count, ceil):
    """Windows that hang over the edge, in `ceil_mode`, average what they hold."""
    for size, window, stride, pads in itertools.product((7, 8), (2, 3), (2, 3), PADS):
        how: dict[str, Any] = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "pads": pads}
        node = helper.make_node(
            "AveragePool", ["x"], ["y"], **how, count_include_pad=count, ceil_mode=ceil
        )
        assert_agrees(node, drawn(2, 3, size, size + 1), opset=19)


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
def test_automatic_padding_agrees_with_onnx_runtime(kind):
    for size, stride, window in itertools.product((6, 7), (1, 2), (2, 3)):
        x, w = drawn(2, 4, size, size), drawn(6, 2, window, window)
        how: dict[str, Any] = {"strides": [stride] * 2, "auto_pad": kind}
        assert_agrees(helper.make_node("Conv", ["x", "w"], ["y"], **how, group=2), x, w)
        shape: dict[str, Any] = {"kernel_shape": [window] * 2}
        assert_agrees(helper.make_node("MaxPool", ["x"], ["y"], **how, **shape), x)
        assert_agrees(helper.make_node("AveragePool", ["x"], ["y"], **how, **shape), x)


def test_convolutions_agree_with_onnx_runtime():
    for groups, stride, dilation, pads in itertools.product((1, 4), (1, 2), (1, 2), PADS[1:]):
        node = helper.make_node(
            "Conv",
            ["x", "w", "b"],
            ["y"],
            group=groups,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=pads,
        )
        assert_agrees(node, drawn(2, 4, 7, 8), drawn(8, 4 // groups, 3, 3), drawn(8))


def test_dense_layers_agree_with_onnx_runtime():
    """Factors of zero, too: no bias, or nothing but it."""
    for first, second, alpha, beta in itertools.product(
        (0, 1), (0, 1), (1.0, 0.5, 0.0), (1.0, 0.0)
    ):
        node = helper.make_node(
            "Gemm", ["a", "b", "c"], ["y"], transA=first, transB=second, alpha=alpha, beta=beta
        )
        a, b = drawn(*((4, 3) if first else (3, 4))), drawn(*((5, 4) if second else (4, 5)))
        assert_agrees(node, a, b, drawn(5))


def test_operands_of_several_shapes_are_added():
    node = helper.make_node("Sum", ["a", "b", "c"], ["y"])
    assert_agrees(node, drawn(2, 3, 4), drawn(3, 1), drawn(4))


def test_padding_may_cut():
    node = helper.make_node("Pad", ["x", "pads", "value"], ["y"])
    pads = np.array([0, 1, -1, 2, 0, 0, 3, -2])
    assert_agrees(node, drawn(2, 3, 5, 6), pads, np.asarray(np.float32(7)))


def cases():
    """The standard's own examples of one node."""
    with warnings.catch_warnings(action="ignore"):  # the standard's, while it makes them up
        found = collect_testcases(None)
    for case in found:
        assert case.model is not None and case.data_sets is not None
        nodes = case.model.graph.node
        if len(nodes) == 1 and not nodes[0].domain and _within(case.name):
            for inputs, outputs in case.data_sets:
                yield case, inputs, outputs


def examples(found):
    """Those that a network of floats can contain."""
    quantised = {"QuantizeLinear", "DequantizeLinear"}  # of codes, which are no floats there
    chosen = (set(OPERATORS) | set(HANDLED.split())) - quantised
    for case, inputs, outputs in found:
        if case.model.graph.node[0].op_type not in chosen:
            continue
        arrays = [np.asarray(each) for each in (*inputs, *outputs)]
        floats = [array.dtype for array in arrays if array.dtype.kind == "f"]
        if floats and all(dtype == np.float32 for dtype in floats):
            yield pytest.param(case, inputs, outputs, id=case.name)


def constants(found):
    """Those that a graph can work out beforehand, of plain numbers."""
    for case, inputs, outputs in found:
        if case.model.graph.node[0].op_type not in CONSTANTS or "uint8" in case.name:
            continue
        arrays = [np.asarray(each) for each in (*inputs, *outputs)]
        plain = all(array.dtype.kind in "bif" and array.dtype != "f2" for array in arrays)
        if plain and not any(word in case.name for word in NOT_CONSTANT):
            yield pytest.param(case, inputs, outputs, id=case.name)


#: Kinds of an operator that no exporter writes for constants; refused.
NOT_CONSTANT = (
    "scatternd_",
    "scatter_elements_with_reduction",
    "scatter_elements_with_duplicate",
    "cumsum_1d_reverse",
    "exclusive",
    "gathernd_example_int32_batch",
)


def _within(name):
    """Training, outputs beside the value, and reductions of nothing are no business of ours."""
    outside = ("training", "argmax", "empty_set", "mask", "zero_size", "expanded")
    return not any(word in name for word in outside)


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        chosen = constants if "constants" in metafunc.function.__name__ else examples
        metafunc.parametrize(("case", "inputs", "outputs"), list(chosen(cases())))


def test_constants_of_the_standard_s_own_examples(case, inputs, outputs):
    (node,) = case.model.graph.node
    given = iter([np.asarray(each) for each in inputs])
    operands = [next(given) if name else None for name in node.input]
    made = worked_out(CONSTANTS[node.op_type], attributes_of(node), operands, Room(0))
    for got, wanted in zip(made, outputs, strict=True):
        assert got.shape == np.shape(wanted) and got.dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=1e-6)


def test_the_standard_s_own_examples(case, inputs, outputs):
    (node,) = case.model.graph.node
    given = iter([np.asarray(each) for each in inputs])
    operands = [next(given) if name else None for name in node.input]
    opset = max(each.version for each in case.model.opset_import)
    # Layer normalisation's mean and deviation are of no use to a classifier.
    for got, wanted in zip(ours(node, operands, opset), outputs, strict=False):
        assert got.shape == np.shape(wanted)
        # Some answers are written down with four digits.
        np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=1e-5)


def test_control_flow_is_no_operator():
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert runner(node, OPSET) is None


def test_training_is_refused():
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    run = runner(node, OPSET)
    assert run is not None
    with pytest.raises(NotImplementedError, match="at random"):
        run(jnp.asarray(drawn(3)), np.float32(0.5), np.bool_(True))
    x = jnp.asarray(drawn(3))
    np.testing.assert_array_equal(run(x, np.float32(0.5), np.bool_(False))[0], x)
