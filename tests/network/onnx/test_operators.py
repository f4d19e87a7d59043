"""ONNX operators against ONNX Runtime, and against the examples of the ONNX standard itself."""

import itertools
import warnings
from collections import Counter
from functools import cache
from math import ceil, floor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax.extend.core import Literal
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from afpjax.network.onnx.constants import Room
from afpjax.network.onnx.operators import NUMPY, OPERATORS, numpy_rules, runner, worked_out
from afpjax.network.onnx.plan import SETTINGS

OPSET = 17


def drawn(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def ours(node, operands):
    """Run a node as a traced network does: floating-point arrays are traced, all else is known."""
    run = runner(node)
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
    got = ours(node, operands)[0]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5 * max(np.ptp(wanted), 1), rtol=0)


PADS = ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0])
#: Window, stride and pads of pools over 7 x 8 pixels.
WINDOWS = [*itertools.product((2, 3), (2, 3), PADS)]


@pytest.mark.parametrize("beyond", [0, 1])
def test_maximum_pools_agree_with_onnx_runtime(beyond):
    for place, (window, stride, pads) in enumerate(WINDOWS):
        how: dict[str, Any] = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "pads": pads}
        how |= {"dilations": [1 + place % 2] * 2, "ceil_mode": beyond}
        assert_agrees(helper.make_node("MaxPool", ["x"], ["y"], **how), drawn(2, 3, 7, 8))


@pytest.mark.parametrize(("count", "beyond"), [(0, 0), (0, 1), (1, 1)])
def test_average_pools_agree_with_onnx_runtime(count, beyond):
    """Windows that hang over the edge, in `ceil_mode`, average what they hold."""
    for window, stride, pads in WINDOWS:
        how: dict[str, Any] = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "pads": pads}
        how |= {"count_include_pad": count, "ceil_mode": beyond}
        assert_agrees(
            helper.make_node("AveragePool", ["x"], ["y"], **how), drawn(2, 3, 7, 8), opset=19
        )


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
def test_automatic_padding_agrees_with_onnx_runtime(kind):
    for size, stride, window in ((6, 2, 3), (7, 2, 2), (7, 1, 2)):
        x, w = drawn(2, 4, size, size), drawn(6, 2, window, window)
        how: dict[str, Any] = {"strides": [stride] * 2, "auto_pad": kind}
        assert_agrees(helper.make_node("Conv", ["x", "w"], ["y"], **how, group=2), x, w)
        shape: dict[str, Any] = {"kernel_shape": [window] * 2}
        assert_agrees(helper.make_node("MaxPool", ["x"], ["y"], **how, **shape), x)
        assert_agrees(helper.make_node("AveragePool", ["x"], ["y"], **how, **shape), x)


def test_convolutions_agree_with_onnx_runtime():
    for groups, stride, dilation in itertools.product((1, 4), (1, 2), (1, 2)):
        how: dict[str, Any] = {"strides": [stride] * 2, "dilations": [dilation] * 2}
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **how, group=groups, pads=PADS[2])
        assert_agrees(node, drawn(2, 4, 7, 8), drawn(8, 4 // groups, 3, 3), drawn(8))


def test_dense_layers_agree_with_onnx_runtime():
    """Factors of zero, too: no bias, or nothing but it."""
    factors = ((1.0, 1.0), (0.5, 1.0), (0.5, 0.0), (0.0, 1.0))
    for first, second, (alpha, beta) in itertools.product((0, 1), (0, 1), factors):
        how: dict[str, Any] = {"transA": first, "transB": second, "alpha": alpha, "beta": beta}
        node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], **how)
        a, b = drawn(*((4, 3) if first else (3, 4))), drawn(*((5, 4) if second else (4, 5)))
        assert_agrees(node, a, b, drawn(5))


def test_padding_may_cut():
    node = helper.make_node("Pad", ["x", "pads", "value"], ["y"])
    pads = np.array([0, 1, -1, 2, 0, 0, 3, -2])
    assert_agrees(node, drawn(2, 3, 5, 6), pads, np.asarray(np.float32(7)))


#: Examples of the standard that are no business of a network that classifies images, and why. The
#: pattern is looked for in the example's name.
OUT_OF_SCOPE = {
    "_expanded": "the same example, its operator written as others",
    "training": "networks are read for inference",
    "dropout_default_mask": "a mask is of no use at inference",
    "with_argmax": "the places of maxima are for unpooling",
    "maxpool_2d_uint8": "images are floats",
    "dropout_random_old": "of operator set 11, whose files are lifted when they are read",
    "_scales_linear_align_corners": "see `_scales_cubic_align_corners`",
    "_scales_cubic_align_corners": "made of a length that is not whole, unlike the schema's words "
    "and ONNX Runtime; see test_resized_images_agree_with_onnx_runtime",
    "_antialias": "another filter, which no classifier uses; refused",
    "tf_crop_and_resize": "a crop as an image asks for it; refused",
    "reduce_max_empty_set": "no image is empty",
    "reduce_min_empty_set": "no image is empty",
    "zero_size": "no image is empty",
}
#: Operators that the standard has no example of a single node for, and where they are tested.
NO_EXAMPLE = {"GlobalLpPool": "test_global_norms_agree_with_onnx_runtime"}


class Case(NamedTuple):
    """One of the standard's own examples of one node, with one set of values."""

    name: str
    node: NodeProto
    rtol: float
    inputs: list[Any]
    outputs: list[Any]


def cases():
    """Examples of an operator that we have, those in scope."""
    for case in _collected():
        known = case.node.op_type in OPERATORS or case.node.op_type in NUMPY
        if known and not any(pattern in case.name for pattern in OUT_OF_SCOPE):
            yield case


@cache
def _collected() -> list[Case]:
    with warnings.catch_warnings(action="ignore"):  # the standard's, while it makes them up
        found = collect_testcases(None)
    made = []
    for case in found:
        assert case.model is not None and case.data_sets is not None
        nodes = case.model.graph.node
        if len(nodes) == 1 and not nodes[0].domain:
            made += [
                Case(case.name, nodes[0], case.rtol, list(inputs), list(outputs))
                for inputs, outputs in case.data_sets
            ]
    return made


def examples():
    """Those that a network can contain: floats of eight or sixteen bits are read as float32, whose
    answers differ, and lists and texts are no numbers."""
    for case in cases():
        arrays = [_array(each) for each in (*case.inputs, *case.outputs)]
        plain = all(each is not None and each.dtype in PLAIN for each in arrays)
        if case.node.op_type in OPERATORS and plain:
            yield case


PLAIN = ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def constants():
    """Those that a graph can work out beforehand, of plain numbers."""
    for case in cases():
        if case.node.op_type not in NUMPY or "uint8" in case.name:
            continue
        arrays = [np.asarray(each) for each in (*case.inputs, *case.outputs)]
        plain = all(array.dtype.kind in "bif" and array.dtype != "f2" for array in arrays)
        if plain and not any(word in case.name for word in NOT_CONSTANT):
            yield case


#: Kinds of an operator that no exporter writes for constants; refused.
NOT_CONSTANT = ("empty_set", "zero_size")

IN_CI = 1  # example of each operator; all run before a release


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    chosen, seen = constants if "constants" in metafunc.function.__name__ else examples, Counter()
    params = []
    for case in chosen():
        seen[case.node.op_type] += 1
        late = chosen is examples and seen[case.node.op_type] > IN_CI
        marks = [pytest.mark.slow] if late else []
        params.append(pytest.param(case, id=case.name, marks=marks))
    metafunc.parametrize("case", params)


def test_constants_of_the_standard_s_own_examples(case):
    given = iter([np.asarray(each) for each in case.inputs])
    operands = [next(given) if name else None for name in case.node.input]
    made = worked_out(case.node, operands, Room(0))
    assert made is not None
    for got, wanted in zip(made, case.outputs, strict=True):
        assert got.shape == np.shape(wanted) and got.dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=1e-6)


def test_the_standard_s_own_examples(case):
    given = iter([_array(each) for each in case.inputs])
    operands = [next(given) if name else None for name in case.node.input]
    # Layer normalisation's mean and deviation are of no use to a classifier.
    for got, wanted in zip(ours(case.node, operands), map(_array, case.outputs), strict=False):
        assert wanted is not None and got.shape == wanted.shape
        # Codes are held in float32.
        assert got.dtype.kind == wanted.dtype.kind or case.node.op_type == "QuantizeLinear"
        # Some answers are written down with four digits.
        np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=1e-5)


def test_every_operator_has_examples_in_scope_or_a_test_of_its_own():
    tried = {case.node.op_type for case in examples()}
    assert tried.isdisjoint(NO_EXAMPLE) and tried | set(NO_EXAMPLE) == set(OPERATORS)
    assert set(NO_EXAMPLE.values()) <= set(globals())
    worked = {case.node.op_type for case in constants()}
    assert set(NUMPY) - worked <= set(OPERATORS)


def test_what_is_out_of_scope_exists():
    """Else a pattern hides nothing, or something new."""
    names = [case.name for case in _collected() if case.node.op_type in OPERATORS]
    for pattern in OUT_OF_SCOPE:
        assert any(pattern in name for name in names), pattern


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_norms_agree_with_onnx_runtime(p):
    assert_agrees(helper.make_node("GlobalLpPool", ["x"], ["y"], p=p), drawn(2, 3, 5, 6))


@pytest.mark.parametrize("size", [2, 3])
def test_local_response_is_what_the_standard_s_formula_says(size):
    """ONNX Runtime takes odd sizes alone, and the reference goes over images for channels."""
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.3, beta=0.6, bias=1.5)
    x = drawn(2, 5, 4, 3)
    wanted = np.empty_like(x)
    for c in range(5):
        first, last = max(0, c - floor((size - 1) / 2)), min(4, c + ceil((size - 1) / 2))
        squares = (x[:, first : last + 1] ** 2).sum(1)
        wanted[:, c] = x[:, c] / (1.5 + 0.3 / size * squares) ** 0.6
    np.testing.assert_allclose(ours(node, [x])[0], wanted, atol=1e-6, rtol=0)
    if size % 2:
        assert_agrees(node, x)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resized_images_agree_with_onnx_runtime(mode):
    """Also to sizes that are no multiples, where corners are kept."""
    x = drawn(1, 2, 5, 10)
    for way, factor in itertools.product(("half_pixel", "align_corners", "asymmetric"), (0.7, 2.3)):
        how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": way}
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **how)
        assert_agrees(node, x, None, np.array([1, 1, factor, factor], np.float32))


def test_integers_that_the_image_reaches_are_divided_towards_zero():
    """Traced, not known beforehand: so are the places of a maximum."""
    run = runner(helper.make_node("Div", ["a", "b"], ["y"]))
    assert run is not None
    a, b = np.meshgrid(np.arange(-7, 8, dtype=np.int32), np.array([-3, -1, 2], np.int32))
    got = np.asarray(jax.jit(run)(a, b)[0])
    np.testing.assert_array_equal(got, np.trunc(a / b))


def test_averages_leave_nothing_image_sized_for_the_compiler_to_fold():
    node = helper.make_node(
        "AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
    )
    run = runner(node)
    assert run is not None
    x = jax.ShapeDtypeStruct((1, 256, 112, 112), jnp.float32)
    closed = jax.make_jaxpr(run)(x)
    held = [np.size(each) for each in closed.consts]
    held += [np.size(v.val) for e in closed.eqns for v in e.invars if isinstance(v, Literal)]
    assert held and max(held) <= 112 * 112


def test_training_is_refused():
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    run = runner(node)
    assert run is not None
    with pytest.raises(NotImplementedError, match="at random"):
        run(jnp.asarray(drawn(3)), np.float32(0.5), np.bool_(True))
    x = jnp.asarray(drawn(3))
    np.testing.assert_array_equal(run(x, np.float32(0.5), np.bool_(False))[0], x)
