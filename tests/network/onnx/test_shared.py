"""An ONNX file whose nodes share an initialiser: stored once, also when it is struck."""

import numpy as np
import onnx
from onnx import numpy_helper

import afpjax
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import LOGITS
from afpjax.faults.sites import Fault, Site

from .onnx_files import N, assert_agrees, conv_tensors, drawn, expected, made, saved, tail


def siamese():
    """Two branches, convolved by one kernel (one of them twice), and joined."""
    nodes, tensors = tail("joined", 4)
    nodes = [
        N("Conv", ["x", "stem.weight"], ["a"], pads=[1, 1, 1, 1]),
        N("MaxPool", ["a"], ["p"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        N("Conv", ["a", "twin.weight"], ["b"], pads=[1, 1, 1, 1]),
        N("Conv", ["p", "twin.weight", "twin.bias"], ["c"], pads=[1, 1, 1, 1]),
        N("Add", ["b", "c"], ["joined"]),
        *nodes,
    ]
    tensors |= conv_tensors("stem", 3, 4, bias=False) | conv_tensors("twin", 4, 4)
    return made(nodes, tensors)


def test_a_fault_in_a_shared_initialiser_is_onnx_runtimes_answer_to_the_struck_file(tmp_path):
    """The sign of one float32 weight, flipped in the file itself."""
    model, images = siamese(), drawn(4, 9, 9, 3)
    network = afpjax.load_onnx(saved(tmp_path, model))
    assert_agrees(network, images, expected(model, images))
    names, shares = network.graph.names, [layer.shares for layer in network.layers]
    assert shares == ["", "", names[1], ""] and network.graph.stored == (0, 1, 1, 3)
    floats = afpjax.quantize(network, afpjax.QFormat(kind="float32"))
    evaluator = Evaluator(floats, images, np.zeros(4, np.int32), 0, metric=LOGITS)
    clean = expected(model, images)
    place = (1, 3, 2, 0)  # neuron, channel, row, column
    assert network.layers[1].kernel_shape == (4, 4, 3, 3)
    element = np.ravel_multi_index(place, (4, 4, 3, 3))
    (tensor,) = (each for each in model.graph.initializer if each.name == "twin.weight")
    struck = numpy_helper.to_array(tensor).copy()
    struck[place] *= -1
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for each in other.graph.initializer:
        if each.name == "twin.weight":
            each.CopyFrom(numpy_helper.from_array(struck, each.name))
    wanted, faults = expected(other, images), [Fault.at(Site(2, int(element), 31))]
    np.testing.assert_allclose(evaluator.evaluate_sites(faults)[0], wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(wanted - clean).max() > 0.01
    read = evaluator.evaluate_sites(faults, shared="read")[0]
    assert np.abs(read - wanted).max() > 0.001 < np.abs(read - clean).max()
