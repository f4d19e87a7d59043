"""The library answers as the command does: whatever is wrong, one line that says what and where."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A call by the names of `library_calls`, and what its one line must say.
REFUSED = {
    # load_platform: a bare name is no list of devices
    "afpjax.load_platform('eyeriss', 'ucie')": "platform.devices: needs a list",
    "afpjax.load_platform(3, 'ucie')": "platform.devices: needs a list",
    "afpjax.load_platform([3], 'ucie')": "platform.devices: needs device names, each as text",
    "afpjax.load_platform([], 'ucie')": "platform.devices is empty",
    "afpjax.load_platform(['eyerise'], 'ucie')": "did you mean `eyeriss`",
    "afpjax.load_platform(['eyeriss'], ['ucie'])": "platform.link: needs the name of a link",
    "afpjax.load_platform(['eyeriss'], None)": "platform.link: needs the name of a link",
    # QFormat
    "afpjax.QFormat(bits=4)": "format.frac: 8 fraction bits do not fit a signed number of 4 bits",
    "afpjax.QFormat(bits='16')": "format.bits: needs a whole number",
    "afpjax.QFormat(bits=16.0)": "format.bits: needs a whole number",
    "afpjax.QFormat(bits=True)": "format.bits: needs a whole number",
    "afpjax.QFormat(frac=None)": "format.frac: needs a whole number",
    "afpjax.QFormat(frac=-17)": "format.frac: -17",
    "afpjax.QFormat(kind=None)": "format.kind: None is none of",
    "afpjax.QFormat(scale=['tensor'])": "format.scale: a list is none of",
    "afpjax.QFormat(step=1)": "format.step: 1 is none of",
    # FaultModel
    "afpjax.FaultModel(bits=3)": "faults.bits: needs a list",
    "afpjax.FaultModel(bits='012')": "faults.bits: needs a list",
    "afpjax.FaultModel(bits=[0.5])": "faults.bits: needs a whole number, got 0.5",
    "afpjax.FaultModel(bits=[0, 0])": "must be distinct",
    "afpjax.FaultModel(bit_profile=['a'])": "faults.bit_profile: needs a number",
    "afpjax.FaultModel(weight_rate='0.1')": "faults.weight_rate: needs an array of real numbers",
    "afpjax.FaultModel(weight_rate=None)": "faults.weight_rate: needs an array of real numbers",
    "afpjax.FaultModel(weight_rate=[[0.1]])": "faults.weight_rate: 1 rates; give one number",
    "afpjax.FaultModel(activation_rate=float('nan'))": "faults.activation_rate: nan is outside",
    "afpjax.FaultModel(activation_rate=1.5)": "faults.activation_rate: 1.5 is outside [0, 1]",
    "afpjax.FaultModel(layers=1.5)": "faults.layers: needs a list of layer names",
    "afpjax.FaultModel(layers=[0, 1])": "faults.layers: needs layer names, each as text",
    "afpjax.FaultModel(budget=1.5)": "faults.budget: needs a whole number",
    "afpjax.FaultModel(budget=-1)": "faults.budget: -1; give 0 or more",
    "afpjax.FaultModel(burst='2', kind='burst')": "faults.burst: needs a whole number",
    "afpjax.FaultModel(packet=0)": "faults.packet: 0; give 1 or more",
    "afpjax.FaultModel(link_rate='x')": "faults.link_rate: needs a number",
    "afpjax.FaultModel(kind=3)": "faults.kind: 3 is none of",
    "afpjax.FaultModel(scope=None)": "faults.scope: None is none of",
    # trace
    "afpjax.trace(3, params, x)": "apply_fn: needs a function",
    "afpjax.trace(apply_fn, params, 'x')": "the sample:",
    "afpjax.trace(apply_fn, params, x[0, 0, 0])": "the sample:",
    "afpjax.trace(apply_fn, params, np.array([['a', 'b']]))": "the sample:",
    "afpjax.trace(apply_fn, params, x * np.nan)": "the sample: they hold NaN",
    "afpjax.trace(lambda p, x: 'logits', params, x)": "the network: it gives a str",
    # load_onnx
    "afpjax.load_onnx('missing.onnx')": "missing.onnx",
    "afpjax.load_onnx(3)": "path: needs",
    "afpjax.load_onnx('missing.onnx', 'large')": "image_size: needs a whole number",
    "afpjax.load_onnx('missing.onnx', 0)": "image_size: 0; give 1 or more",
    "afpjax.load_onnx('missing.onnx', (49, 0))": "image_size: 0; give 1 or more",
    "afpjax.load_onnx('missing.onnx', (49, 'x'))": "image_size: needs a whole number",
    "afpjax.load_onnx('missing.onnx', (1, 2, 3))": "image_size: needs one number, or (rows, col",
    # quantize
    "afpjax.quantize(3, afpjax.QFormat())": "network: needs a network",
    "afpjax.quantize(net, 'int8')": "fmt: needs an afpjax.QFormat",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'))": "calibration: ",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), x[:0])": "calibration: none given",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), x[0])": "give a batch, images[None]",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), x * np.nan)": "hold NaN",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), 'x')": "calibration: needs an array",
    # networks as functions
    "net(x[0])": "images: ",
    "net('x')": "images: needs an array of real numbers",
    "net([[1], [2, 3]])": "images: needs an array of numbers",
    "net(x[..., :0])": "images: ",
    "net(3)": "images: ",
    "q(x[0])": "images: ",
    "q(None)": "images: needs an array",
    "q(x, faults='all')": "faults: needs an afpjax.FaultModel",
    "q(x, mapping=[0, 1, 0])": "mapping: of shape (3,), but the network has 2 layers",
    "q(x, mapping=[0, 1, 0], faults=faults)": "mapping: of shape (3,), but the network has 2",
    "q(x, mapping=[0.0, 1.0], faults=faults)": "mapping: they are float64; devices are whole",
    "q(x, mapping=[0, 2], faults=faults)": "device 2",
    "q(x, mapping=[0, -1], faults=faults)": "mapping: no device -1",
    "q(x, mapping=0, faults=faults)": "mapping: of shape ()",
    "q(x, mapping='01', faults=faults)": "mapping: needs an array of real numbers",
    "q(x, faults=faults, key=None)": "key: needs a jax.random.key",
    "q(x, faults=faults, key='0')": "key: needs a jax.random.key",
    "q(x, faults=faults, key=0.5)": "key: needs a jax.random.key",
    "q(x, faults=faults, trial=-1)": "trial: -1; give 0 to",
    "q(x, faults=faults, trial=0.5)": "trial: needs a whole number",
    "q(x, faults=afpjax.FaultModel(bits=[16]))": "faults.bits: bit 16",
    "q(x, faults=afpjax.FaultModel(layers=['no']))": "faults.layers: no layer 'no'",
    # accuracy
    "accuracy(images=x[:0], labels=y[:0])": "images: none given",
    "accuracy(images=x[0])": "images: ",
    "accuracy(images='x')": "images: needs an array",
    "accuracy(images=x * np.inf)": "images: they hold NaN or infinity",
    "accuracy(labels=y[:3])": "6 images but 3 labels",
    "accuracy(labels=np.eye(5)[y])": "one-hot labels, (6, 5): give labels.argmax(1)",
    "accuracy(labels=np.eye(5, dtype=int)[y])": "one-hot labels, (6, 5): give labels.argmax(1)",
    "accuracy(labels=y[:, None])": "a column of labels, (6, 1): give labels[:, 0]",
    "accuracy(labels=y + 0.5)": "labels: they are float64, no class numbers",
    "accuracy(labels=y.astype(float))": "save them as integers, labels.astype(int)",
    "accuracy(labels=y - 1)": "label -1 is not in 0..4",
    "accuracy(labels=y + 1)": "label 5 is not in 0..4",
    "accuracy(labels=y > 2)": "labels: they are bool; give labels.astype(int)",
    "accuracy(labels=3)": "labels: of shape ()",
    "accuracy(labels=['a'] * 6)": "labels: needs an array of real numbers",
    "accuracy(network=q1, labels=y * 0)": "a network of 1 output tells no classes apart",
    "accuracy(network=net)": "quantized: needs a network from afpjax.quantize",
    "accuracy(mappings=maps[0])": "mappings: of shape (2,); needed is [mappings, layers]",
    "accuracy(mappings=maps[:, :1])": "mapping: of shape (2, 1), but the network has 2 layers",
    "accuracy(mappings=maps + 0.0)": "mapping: they are float64; devices are whole numbers",
    "accuracy(mappings=maps + 2)": "device 2",
    "accuracy(mappings=maps - 1)": "no device -1",
    "accuracy(mappings='0')": "mappings: needs an array",
    "accuracy(model=0.2)": "faults: needs an afpjax.FaultModel",
    "accuracy(key='k')": "key: needs a jax.random.key",
    "accuracy(trials=0)": "trials: 0; give 1 to",
    "accuracy(trials=2.0)": "trials: needs a whole number",
    # partition
    "partition(network=net)": "quantized: needs a network from afpjax.quantize",
    "partition(on='eyeriss')": "platform: needs a platform from afpjax.load_platform",
    "partition(model=None)": "faults: needs an afpjax.FaultModel",
    "partition(labels=np.eye(5)[y])": "one-hot labels",
    "partition(labels=y / 2)": "no class numbers",
    "partition(network=q1, labels=y * 0)": "tells no classes apart",
    "partition(images=x[:0], labels=y[:0])": "images: none given",
    "partition(key=None)": "key: needs a jax.random.key",
    "partition(trials=0)": "trials: 0; give 1 to",
    "partition(population=1)": "population: 1; give 4 to",
    "partition(generations='20')": "generations: needs a whole number",
    "partition(batch=0)": "batch: 0; give 1 to",
    "partition(effort=-1)": "effort: -1; give 0 or more",
    "partition(strategy='best')": "strategy: 'best' is none of platform, layerwise",
    "partition(caps=3)": "caps: needs",
    # importance
    "afpjax.importance('net', x)": "network: needs a network",
    "afpjax.importance(net, x[:0])": "images: none given",
    "afpjax.importance(net, x[0])": "images: ",
    "afpjax.importance(net, 'x')": "images: needs an array",
    "afpjax.importance(net, x * np.nan)": "images: they hold NaN",
    "afpjax.importance(net, x, np.eye(5)[y], target='label')": "one-hot labels",
    "afpjax.importance(net, x, y / 2, target='loss')": "no class numbers",
    "afpjax.importance(net, x, y - 1, target='loss')": "label -1 is not in",
    "afpjax.importance(net, x, y[:2], target='loss')": "6 images but 2 labels",
    "afpjax.importance(net, x, target='loss')": "labels: none given",
    "afpjax.importance(net, x, target=3)": "target: 3 is none of",
    "afpjax.importance(one, x)": "tells no classes apart",
    "afpjax.importance(net, x, exact_passes=-1)": "exact_passes: -1",
    "afpjax.importance(net, x, exact_passes=1e5)": "exact_passes: needs a whole number",
    "afpjax.importance(net, x, classes=0)": "classes: 0; give 1 or more",
    # distribute
    "afpjax.distribute('net', scores)": "network: needs a network",
    "afpjax.distribute(net, [1, 2])": "scores: needs what afpjax.importance gives",
    "afpjax.distribute(net, {})": "scores: of another network",
    "afpjax.distribute(net, {**scores, 'conv': 3})": "scores of layer conv: needs",
    "afpjax.distribute(net, {**scores, 'conv': {n: 'x' for n in scores['conv']}})": "scores: l1",
    "afpjax.distribute(net, scores, devices=1)": "distribute.devices: 1; give 2 to 128",
    "afpjax.distribute(net, scores, devices=2.0)": "distribute.devices: needs a whole number",
    "afpjax.distribute(net, scores, thresholds=-1)": "distribute.thresholds: -1",
    "afpjax.distribute(net, scores, thresholds='0.1')": "distribute.thresholds: needs an array",
    "afpjax.distribute(net, scores, thresholds=[0.1])": "distribute.thresholds: 1 for 2 layers",
    "afpjax.distribute(net, scores, thresholds=None)": "distribute.thresholds: needs an array",
    "afpjax.distribute(net, scores, method='lopp')": "distribute.method: 'lopp' is none of",
    "afpjax.distribute(net, scores, method=['lop'])": "distribute.method: a list is none of",
    "afpjax.distribute(net, scores, names=3)": "names: needs a list of scores",
    "afpjax.distribute(net, scores, names=[])": "distribute.scores: []",
    "afpjax.distribute(net, scores, names=['l3'])": "distribute.scores: no score 'l3'",
    "afpjax.distribute(net, scores, normalise='no')": "distribute.normalise: 'no' is none of",
    "afpjax.distribute(net, scores, seed=-1)": "distribute.seed: -1; give 0 or more",
    "afpjax.distribute(net, scores, seed='0')": "distribute.seed: needs a whole number",
    # Placement
    "placement.answering([7])": "failed: no device 7",
    "placement.answering(0)": "failed: needs a list of devices",
    "placement.answering(['0'])": "failed: needs a whole number",
    "placement.answering([], order=[0])": "order: [0]; name each of the devices",
    "placement.answering([], order=3)": "order: needs a list of devices",
    "placement.coded(5)": "layer: 5; give 0 to 1",
    "placement.coded('conv')": "layer: needs a whole number",
}
DONE = (
    "accuracy(key=0)",
    "partition(key=0)",
    "partition(key=2**40)",
    "partition(images=x.tolist(), labels=y.tolist())",
    "accuracy(labels=y.astype(np.uint8), mappings=maps.tolist())",
    "q(x, mapping=[0, 1], faults=faults, key=np.int64(3))",
    "afpjax.load_platform(('eyeriss',), 'ucie')",
    "afpjax.QFormat(bits=np.int64(8), frac=4)",
    "afpjax.distribute(net, scores, devices=np.int32(2), names='l1')",
)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[str]]:
    calls = [*REFUSED, *DONE]
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("library_calls.py")],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(calls, json.loads(ran.stdout), strict=True))


@pytest.mark.parametrize("call", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(outcomes, call):
    kind, said = outcomes[call]
    assert (kind, "\n" in said) == ("InputError", False), (kind, said)
    assert REFUSED[call] in said


@pytest.mark.parametrize("call", DONE)
def test_what_makes_sense_is_done(outcomes, call):
    assert outcomes[call][0] == "done", outcomes[call]


def test_every_public_function_is_among_the_calls():
    import afpjax

    named = " ".join(REFUSED)
    homes = {"__version__", "InputError", "Network", "Quantized", "Placement", "Platform", "Front"}
    assert all(f"{name}(" in named for name in afpjax.__all__ if name not in homes)
