"""ONNX files that would fill memory, never end, or make libraries stumble: refused in one line."""

import itertools
import random
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import afpjax
from afpjax.network.onnx import load_onnx

from .onnx_files import N, classifier, drawn, made, saved

HUGE = np.array([1 << 20, 1 << 20])


def refusal(path):
    """What is said; it is one line that names the file."""
    with pytest.raises(afpjax.InputError) as caught:
        load_onnx(path)
    said = str(caught.value)
    assert "\n" not in said and str(path) in said and len(said) < 800
    return said


def adding(nodes, tensors, functions=()):
    """A dense layer of the image plus what `nodes` make of `tensors`, called `z`."""
    nodes = [*nodes, N("Add", ["x", "z"], ["sum"]), N("MatMul", ["sum", "w"], ["y"])]
    model = made(nodes, tensors | {"w": drawn(4, 3)}, image=("N", 4))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.functions.extend(functions)
    return model


def chain(op, count, first, **attributes):
    """An operator of its own output, `count` times over."""
    names = [first, *(f"{op}{i}" for i in range(count))]
    return [
        N(op, [a, a] if op == "Concat" else [a], [b], **attributes)
        for a, b in itertools.pairwise(names)
    ] + [N("ReduceMax", [names[-1]], ["z"], keepdims=0)]


def body(nodes, outputs):
    boolean = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    counter = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(nodes, "body", [counter, boolean, state], [boolean, *made])


def laughing(depth):
    """Functions that each call the next one twice."""
    opsets = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 17)]
    last = [N("Relu", ["a"], ["b"])]
    bodies = [
        [N(f"F{i + 1}", ["a"], ["c"], domain="mine"), N(f"F{i + 1}", ["c"], ["b"], domain="mine")]
        for i in range(depth)
    ]
    return [
        helper.make_function("mine", f"F{i}", ["a"], ["b"], nodes, opsets)
        for i, nodes in enumerate([*bodies, last])
    ]


def calling_itself():
    opsets = [helper.make_opsetid("mine", 1)]
    pair = (("F0", "G"), ("G", "F0"))
    return [
        helper.make_function("mine", a, ["a"], ["b"], [N(b, ["a"], ["b"], domain="mine")], opsets)
        for a, b in pair
    ]


ONE = {"one": np.ones((1, 1), np.float32)}
CALL = [N("F0", ["one"], ["z"], domain="mine")]
GROWING = body([N("Concat", ["s", "s"], ["t"], axis=0)], ["t"])
LOOP = [N("Loop", ["", "", "one"], ["s_out"], body=GROWING)]
ENDLESS = [N("Loop", ["", "", "one"], ["z"], body=body([N("Add", ["s", "s"], ["t"])], ["t"]))]
FILL = N("ConstantOfShape", ["n"], ["f"])
MOST = chain("Abs", 1, "f")
SUMS = [f"sum{number}" for number in range(3000)]


def scalar(number):
    return np.array(number, np.float32)


def grown(op, count, *more):
    """An operator that makes as much of one number as `count` says."""
    return adding([N(op, ["one", *more, "n"], ["f"]), *MOST], ONE | {"n": count})


BOMBS = {
    "ConstantOfShape": adding([FILL, *MOST], {"n": HUGE}),
    "Expand": grown("Expand", HUGE),
    "Tile": grown("Tile", HUGE),
    "Pad": grown("Pad", np.array([0, 0, 1 << 20, 1 << 20])),
    "Resize": grown("Resize", HUGE, "", ""),
    "Range": adding(
        [N("Range", ["a", "n", "b"], ["f"]), *MOST],
        {"a": scalar(0), "n": scalar(1e18), "b": scalar(1)},
    ),
    "doubling": adding(chain("Concat", 60, "one", axis=0), ONE),
    "cosines": adding([FILL, *chain("Cos", 400, "f")], {"n": np.array([1 << 22])}),
    "sums": adding(
        [FILL, *(N("ReduceSum", ["f"], [name]) for name in SUMS), N("Sum", SUMS, ["z"])],
        {"n": np.array([1 << 24])},
    ),
    "products": adding(
        [FILL, N("MatMul", ["f", "f"], ["g"]), *chain("Abs", 1, "g")],
        {"n": np.array([1 << 13, 1 << 13])},
    ),
    "functions": adding(CALL, ONE, laughing(60)),
    "functions that call themselves": adding(CALL, ONE, calling_itself()),
    "an endless loop": adding(ENDLESS, ONE),
    "a growing loop": adding([*LOOP, N("ReduceMax", ["s_out"], ["z"], keepdims=0)], ONE),
    "an image of a trillion": made(
        [N("Expand", ["x", "n"], ["e"]), N("MatMul", ["e", "w"], ["y"])],
        {"w": drawn(4, 3), "n": np.array([1 << 40, 1, 4])},
        image=("N", 4),
    ),
}


@pytest.mark.parametrize("model", BOMBS.values(), ids=BOMBS)
def test_what_would_fill_memory_or_never_end_is_refused_at_once(tmp_path, model):
    start = time.process_time()
    refusal(saved(tmp_path, model))
    assert time.process_time() - start < 5


EXTERNAL = {
    "beside the model": {"location": "../w.bin"},
    "has to lie": {"location": ""},
    "has to lie beside": {"location": "a\0b"},
    "bytes -5 to": {"location": "w.bin", "offset": "-5"},
    "and the file has fewer": {"location": "w.bin", "offset": "7"},
    "fewer": {"location": "w.bin", "offset": "9" * 30},
    "where its shape takes 864": {"location": "w.bin", "length": "100"},
    "invalid literal": {"location": "w.bin", "length": "many"},
    "digits": {"location": "w.bin", "length": "9" * 5000},
    "does not exist": {"location": "none.bin"},
    "File name too long": {"location": "n" * 5000},
    "a link leads out": {"location": "link.bin"},
}


@pytest.mark.parametrize("problem", EXTERNAL)
def test_weights_that_lie_elsewhere_or_nowhere_are_refused(tmp_path, problem):
    folder = tmp_path / "net"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(bytes(864))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    model = classifier()
    tensor = next(t for t in model.graph.initializer if t.name == "conv1.weight")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in EXTERNAL[problem].items():
        tensor.external_data.add(key=key, value=value)
    assert problem in refusal(saved(folder, model))


def _cycle(model):
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


DAMAGE = {
    "which nothing before it makes": _cycle,
    "which there is already": lambda m: m.graph.node.append(N("Relu", ["c"], ["y"])),
    "operator set 999 does not exist": lambda m: setattr(m.opset_import[0], "version", 999),
    "operator set 0 does not exist": lambda m: setattr(m.opset_import[0], "version", 0),
    "tensor conv1.weight: -1": lambda m: setattr(m.graph.initializer[2], "data_type", -1),
    "tensor conv1.weight": lambda m: m.graph.initializer[2].dims.append(1 << 40),
    "of the shape": lambda m: m.graph.initializer[2].dims.append(-1),
    "two tensors are called": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "holds NaN or infinity": lambda m: m.graph.initializer[2].CopyFrom(
        numpy_helper.from_array(np.full((8, 3, 3, 3), np.inf, np.float32), "conv1.weight")
    ),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_damage_is_told_by_the_file_s_name(tmp_path, problem):
    model = classifier()
    DAMAGE[problem](model)
    assert problem in refusal(saved(tmp_path, model))


def bytes_changed(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data))
        way = rng.randrange(3)
        if way == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            del data[place : place + rng.choice((1, 4, 60))]
        else:
            data[place:place] = rng.randbytes(rng.choice((1, 5)))
    return bytes(data)


def test_a_hundred_damaged_files_are_read_or_refused(tmp_path):
    """Bits, bytes and pieces of a small network's file, drawn with a fixed seed."""
    whole = [classifier(opset=11).SerializeToString(), BOMBS["Tile"].SerializeToString()]
    path, rng, refused = tmp_path / "net.onnx", random.Random(0), 0
    for number in range(100):
        path.write_bytes(bytes_changed(whole[number % 2], rng))
        try:
            load_onnx(path)
        except afpjax.InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 50
    assert isinstance(onnx.load(saved(tmp_path, classifier())), onnx.ModelProto)
