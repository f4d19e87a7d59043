"""What a graph knows before an image is: branches, loops, functions and constants written out."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper

import afpjax
from afpjax.network.onnx import load_onnx, read_onnx

from .onnx_files import N, assert_agrees, drawn, expected, made, saved


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, output, tensors=(), inputs=()):
    return helper.make_graph(nodes, output, inputs, [value(output)], tensors)


def dense(nodes, tensors):
    """A dense layer `l` of the image, then `nodes` that make `y` of it."""
    nodes = [N("MatMul", ["x", "w"], ["l"]), *nodes]
    return made(nodes, {"w": drawn(6, 5)} | tensors, image=("N", 6))


def assert_reads(tmp_path, model, names=("w",)):
    path, images = saved(tmp_path, model), drawn(4, 6)
    network = load_onnx(path)
    assert_agrees(network, images, expected(path, images))
    assert network.graph.names == names


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_branches_whose_condition_is_known_are_what_they_choose(tmp_path, outer, inner):
    """Also one inside another, of a condition that is computed from shapes."""
    within = N(
        "If",
        ["d"],
        ["m"],
        then_branch=graph([N("Relu", ["l"], ["a"])], "a"),
        else_branch=graph([N("Tanh", ["l"], ["a"])], "a"),
    )
    choice = N(
        "If",
        ["c"],
        ["y"],
        then_branch=graph([within, N("Mul", ["m", "two"], ["b"])], "b"),
        else_branch=graph([N("Sigmoid", ["l"], ["b"])], "b"),
    )
    nodes = [
        N("Shape", ["l"], ["shape"]),
        N("Gather", ["shape", "one"], ["columns"]),
        N("Equal", ["columns", "five"], ["c"]),
        choice,
    ]
    tensors = {
        "one": np.array(1),
        "five": np.array(5 if outer else 4),
        "two": np.array(2, np.float32),
        "d": np.array(inner),
    }
    assert_reads(tmp_path, dense(nodes, tensors))


def test_a_branch_that_only_captures_a_value_keeps_what_makes_it(tmp_path):
    """The layer's output is read by the branch alone."""
    branch = graph([N("MatMul", ["r", "head.weight"], ["b"])], "b")
    nodes = [N("Relu", ["l"], ["r"]), N("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    model = dense(nodes, {"c": np.array(True), "head.weight": drawn(5, 3)})
    assert_reads(tmp_path, model, ("w", "head"))


@pytest.mark.parametrize("rounds", [1, 3])
def test_loops_of_a_known_number_of_rounds_are_unrolled(tmp_path, rounds):
    """The state goes round, and what every round makes is stacked."""
    nodes = [
        N("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
        N("Add", ["s", "number"], ["sum"]),
        N("Tanh", ["sum"], ["t"]),
        N("Mul", ["t", "t"], ["square"]),
        N("Identity", ["on"], ["go"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("s")],
        [value("go", TensorProto.BOOL, []), value("t"), value("square")],
    )
    nodes = [
        N("Loop", ["rounds", "c", "l"], ["last", "all"], body=body),
        N("ReduceSum", ["all", "axis"], ["added"], keepdims=0),
        N("Add", ["last", "added"], ["y"]),
    ]
    tensors = {"rounds": np.array(rounds), "c": np.array(True), "axis": np.array([0])}
    assert_reads(tmp_path, dense(nodes, tensors))


def test_what_an_image_decides_is_refused(tmp_path):
    nodes = [
        N("ReduceMax", ["l"], ["top"], keepdims=0),
        N("Greater", ["top", "zero"], ["c"]),
        N(
            "If",
            ["c"],
            ["y"],
            then_branch=graph([N("Relu", ["l"], ["a"])], "a"),
            else_branch=graph([N("Tanh", ["l"], ["a"])], "a"),
        ),
    ]
    path = saved(tmp_path, dense(nodes, {"zero": np.array(0, np.float32)}))
    with pytest.raises(afpjax.InputError, match=r"operator If .*: its condition depends on the im"):
        load_onnx(path)


def test_functions_are_written_out(tmp_path):
    opsets = [helper.make_opsetid("", 17)]
    nodes = [N("Tanh", ["a"], ["t"]), N("Mul", ["t", "t"], ["b"])]
    function = helper.make_function("mine", "Squared", ["a"], ["b"], nodes, opsets)
    calls = [N("Squared", ["l"], ["m"], domain="mine"), N("Squared", ["m"], ["y"], domain="mine")]
    model = dense(calls, {})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert_reads(tmp_path, model)


CODES = {
    "q": np.random.default_rng(0).integers(-128, 128, (6, 5)).astype(np.int8),
    "each": np.linspace(0.01, 0.05, 5).astype(np.float32),
    "one": np.array(0.02, np.float32),
    "zeros": np.arange(-2, 3).astype(np.int8),
    "zero": np.array(3, np.int8),
}


@pytest.mark.in_ci("scale0-13", "scale1-17", "scale2-21", "scale3-19")
@pytest.mark.parametrize("opset", range(13, 22))
@pytest.mark.parametrize("scale", [["each", "zeros"], ["each"], ["one", "zero"], ["one"]])
def test_int8_weights_of_every_operator_set_are_read(tmp_path, opset, scale):
    nodes = [
        N("DequantizeLinear", ["q", *scale], ["w"], axis=1),
        N("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = {name: CODES[name] for name in ("q", *scale)}
    model = made(nodes, tensors, image=("N", 6), opset=opset)
    images = drawn(3, 6)
    wanted = expected(model, images, as_written=True)
    assert_agrees(load_onnx(saved(tmp_path, model)), images, wanted, 1e-6)


LATER = {"Gelu": 20, "HardSwish": 14, "LayerNormalization": 17}


@pytest.mark.parametrize("op", LATER)
def test_operators_on_constants_run_at_their_first_operator_set(tmp_path, op):
    operands = ["v"] + (["scale"] if op == "LayerNormalization" else [])
    nodes = [N(op, operands, ["w"]), N("MatMul", ["x", "w"], ["y"])]
    tensors = {"v": drawn(6, 5)} | ({"scale": drawn(5)} if len(operands) > 1 else {})
    model = made(nodes, tensors, image=("N", 6), opset=LATER[op])
    images = drawn(3, 6)
    assert_agrees(load_onnx(saved(tmp_path, model)), images, expected(model, images), 1e-5)


def test_one_number_many_times_over_takes_no_memory_until_it_is_used(tmp_path):
    nodes = [N("ConstantOfShape", ["n"], ["w"]), N("MatMul", ["x", "w"], ["y"])]
    model = made(nodes, {"n": np.array([6, 5])}, image=("N", 6))
    (array,) = read_onnx(saved(tmp_path, model)).params.values()
    assert array.shape == (6, 5) and set(array.strides) == {0}


def test_negative_and_backward_slices_of_shapes_are_those_of_onnx_runtime(tmp_path):
    """Padding comes out of PyTorch as a reversed, transposed list."""
    bounds = [*itertools.product((-1, 3, 0), (-(2**63), -9, 1, 9), (-1, 1))]
    tensors = {"list": np.array([1, 10, 100, 1000]), "a": np.array([0])}
    nodes, totals = [], [f"total{place}" for place in range(len(bounds))]
    for place, numbers in enumerate(bounds):
        start, end, step = names = [f"{name}{place}" for name in ("start", "end", "step")]
        tensors |= dict(zip(names, map(np.atleast_1d, numbers), strict=True))
        nodes.append(N("Slice", ["list", start, end, "a", step], [f"cut{place}"]))
        nodes.append(N("ReduceSum", [f"cut{place}"], [totals[place]]))
    nodes += [
        N("Concat", totals, ["all"], axis=0),
        N("Cast", ["all"], ["f"], to=TensorProto.FLOAT),
        N("Add", ["l", "f"], ["y"]),
    ]
    assert_reads(tmp_path, dense(nodes, tensors | {"w": drawn(6, len(bounds))}))
