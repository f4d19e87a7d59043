"""The library answers as the command does: whatever is wrong, one line that says what and where."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A call by the names of `library_calls`, and what its one line must say.
REFUSED = {
    # jobs as functions
    "afpjax.campaign(q, x, y, margn=0.1)": "did you mean `campaign.margin`",
    "afpjax.campaign(q, x, y[:3])": "6 images but 3 labels",
    "afpjax.campaign(apply_fn, x, y)": "network: needs one from afpjax.trace",
    "afpjax.online_phase(q, x, None)": "images, labels: one without the other",
    "afpjax.export(q, x, y, '.')": "is there already",
    "afpjax.profile(q, margin=1)": "no section of settings has this name",
    "afpjax.run_job('serve', q)": "no job `serve`",
    "afpjax.from_torch(3, x)": "module: ",
    # expected_metric, trace_with_refold
    "afpjax.expected_metric(lambda l, y: l[:, 0], q, x, y, weight_rate=2)": "outside [0, 1]",
    "afpjax.expected_metric(lambda l, y: l[:, 0], q, x, y, weight_rate=[0.1] * 3)": "layers",
    "afpjax.expected_metric(lambda l, y: l, q, x, y)": "not a number for each of 6 images",
    "afpjax.expected_metric(lambda l, y: l[:, 0], q, x, y, bits=[16])": "bits",
    "afpjax.expected_metric(lambda l, y: l[:, 0], q, x, y, trials=1)": "trials",
    "afpjax.trace_with_refold(3, params, x)": "",
    # load_platform: a bare name is no list of devices
    "afpjax.load_platform('eyeriss', 'ucie')": "platform.devices: needs a list",
    "afpjax.load_platform([3], 'ucie')": "platform.devices: needs device names, each as text",
    "afpjax.load_platform([], 'ucie')": "platform.devices is empty",
    "afpjax.load_platform(['eyerise'], 'ucie')": "did you mean `eyeriss`",
    "afpjax.load_platform(['eyeriss'], ['ucie'])": "platform.link: needs the name of a link",
    # QFormat
    "afpjax.QFormat(bits=4)": "format.frac: 8 fraction bits do not fit a signed number of 4 bits",
    "afpjax.QFormat(bits=True)": "format.bits: needs a whole number",
    "afpjax.QFormat(frac=-17)": "format.frac: -17",
    "afpjax.QFormat(kind=None)": "format.kind: None is none of",
    # FaultModel
    "afpjax.FaultModel(bits=3)": "faults.bits: needs a list",
    "afpjax.FaultModel(bits=[0.5])": "faults.bits: needs a whole number, got 0.5",
    "afpjax.FaultModel(bits=[0, 0])": "must be distinct",
    "afpjax.FaultModel(weight_rate='0.1')": "faults.weight_rate: needs an array of real numbers",
    "afpjax.FaultModel(weight_rate=[[0.1]])": "faults.weight_rate: 1 rates; give one number",
    "afpjax.FaultModel(activation_rate=float('nan'))": "faults.activation_rate: nan is outside",
    "afpjax.FaultModel(layers=1.5)": "faults.layers: needs a list of layer names",
    "afpjax.FaultModel(budget=-1)": "faults.budget: -1; give 0 or more",
    "afpjax.FaultModel(packet=0)": "faults.packet: 0; give 1 or more",
    "afpjax.FaultModel(link_rate='x')": "faults.link_rate: needs a number",
    "afpjax.FaultModel(kind=3)": "faults.kind: 3 is none of",
    # trace
    "afpjax.trace(3, params, x)": "apply_fn: needs a function",
    "afpjax.trace(apply_fn, params, x[0, 0, 0])": "the sample:",
    "afpjax.trace(apply_fn, params, np.array([['a', 'b']]))": "the sample:",
    "afpjax.trace(apply_fn, params, x * np.nan)": "the sample: they hold NaN",
    "afpjax.trace(lambda p, x: 'logits', params, x)": "the network: it gives a str",
    # load_onnx
    "afpjax.load_onnx('missing.onnx')": "missing.onnx",
    "afpjax.load_onnx(3)": "path: needs",
    "afpjax.load_onnx('missing.onnx', (49, 0))": "image_size: 0; give 1 or more",
    "afpjax.load_onnx('missing.onnx', (1, 2, 3))": "image_size: needs one number, or (rows, col",
    # quantize
    "afpjax.quantize(3, afpjax.QFormat())": "network: needs a network",
    "afpjax.quantize(net, 'int8')": "fmt: needs an afpjax.QFormat",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'))": "calibration: ",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), x[:0])": "calibration: none given",
    "afpjax.quantize(net, afpjax.QFormat(8, scale='tensor'), x[0])": "give a batch, images[None]",
    # networks as functions
    "net(x[0])": "images: ",
    "net([[1], [2, 3]])": "images: needs an array of numbers",
    "q(x[0])": "images: ",
    "q(x, faults='all')": "faults: needs an afpjax.FaultModel",
    "q(x, mapping=[0, 1, 0], faults=faults)": "mapping: of shape (3,), but the network has 2",
    "q(x, mapping=[0.0, 1.0], faults=faults)": "mapping: they are float64; devices are whole",
    "q(x, mapping=[0, 2], faults=faults)": "device 2",
    "q(x, mapping=[0, -1], faults=faults)": "mapping: no device -1",
    "q(x, faults=faults, key='0')": "key: needs a jax.random.key",
    "q(x, faults=faults, trial=-1)": "trial: -1; give 0 to",
    "q(x, faults=afpjax.FaultModel(bits=[16]))": "faults.bits: bit 16",
    "q(x, faults=afpjax.FaultModel(layers=['no']))": "faults.layers: no layer 'no'",
    # accuracy
    "accuracy(images=x[:0], labels=y[:0])": "images: none given",
    "accuracy(images=x * np.inf)": "images: they hold NaN or infinity",
    "accuracy(labels=y[:3])": "6 images but 3 labels",
    "accuracy(labels=np.eye(5)[y])": "one-hot labels, (6, 5): give labels.argmax(1)",
    "accuracy(labels=y[:, None])": "a column of labels, (6, 1): give labels[:, 0]",
    "accuracy(labels=y + 0.5)": "labels: they are float64, no class numbers",
    "accuracy(labels=y - 1)": "label -1 is not in 0..4",
    "accuracy(labels=y + 1)": "label 5 is not in 0..4",
    "accuracy(labels=y > 2)": "labels: they are bool; give labels.astype(int)",
    "accuracy(network=q1, labels=y * 0)": "a network of 1 output tells no classes apart",
    "accuracy(network=net)": "quantized: needs a network from afpjax.quantize",
    "accuracy(mappings=maps[0])": "mappings: of shape (2,); needed is [mappings, layers]",
    "accuracy(mappings=maps + 2)": "device 2",
    "accuracy(mappings=maps - 1)": "no device -1",
    "accuracy(model=0.2)": "faults: needs an afpjax.FaultModel",
    "accuracy(key='k')": "key: needs a jax.random.key",
    "accuracy(trials=0)": "trials: 0; give 1 to",
    # partition
    "partition(network=net)": "quantized: needs a network from afpjax.quantize",
    "partition(on='eyeriss')": "platform: needs a platform from afpjax.load_platform",
    "partition(model=None)": "faults: needs an afpjax.FaultModel",
    "partition(labels=np.eye(5)[y])": "one-hot labels",
    "partition(network=q1, labels=y * 0)": "tells no classes apart",
    "partition(key=None)": "key: needs a jax.random.key",
    "partition(population=1)": "population: 1; give 4 to",
    "partition(batch=0)": "batch: 0; give 1 to",
    "partition(effort=-1)": "effort: -1; give 0 or more",
    "partition(strategy='best')": "strategy: 'best' is none of platform, layerwise",
    "partition(caps=3)": "caps: needs",
    # importance
    "afpjax.importance('net', x)": "network: needs a network",
    "afpjax.importance(net, x[:0])": "images: none given",
    "afpjax.importance(net, x, np.eye(5)[y], target='label')": "one-hot labels",
    "afpjax.importance(net, x, y - 1, target='loss')": "label -1 is not in",
    "afpjax.importance(net, x, y[:2], target='loss')": "6 images but 2 labels",
    "afpjax.importance(net, x, target='loss')": "labels: none given",
    "afpjax.importance(net, x, target=3)": "target: 3 is none of",
    "afpjax.importance(one, x)": "tells no classes apart",
    "afpjax.importance(net, x, exact_passes=-1)": "exact_passes: -1",
    "afpjax.importance(net, x, classes=0)": "classes: 0; give 1 or more",
    # distribute
    "afpjax.distribute('net', scores)": "network: needs a network",
    "afpjax.distribute(net, [1, 2])": "scores: needs what afpjax.importance gives",
    "afpjax.distribute(net, {})": "scores: of another network",
    "afpjax.distribute(net, {**scores, 'conv': 3})": "scores of layer conv: needs",
    "afpjax.distribute(net, {**scores, 'conv': {n: 'x' for n in scores['conv']}})": "scores: l1",
    "afpjax.distribute(net, scores, devices=1)": "distribute.devices: 1; give 2 to 128",
    "afpjax.distribute(net, scores, thresholds=-1)": "distribute.thresholds: -1",
    "afpjax.distribute(net, scores, thresholds=[0.1])": "distribute.thresholds: 1 for 2 layers",
    "afpjax.distribute(net, scores, method='lopp')": "distribute.method: 'lopp' is none of",
    "afpjax.distribute(net, scores, names=3)": "names: needs a list of scores",
    "afpjax.distribute(net, scores, names=[])": "distribute.scores: []",
    "afpjax.distribute(net, scores, names=['l3'])": "distribute.scores: no score 'l3'",
    "afpjax.distribute(net, scores, normalise='no')": "distribute.normalise: 'no' is none of",
    "afpjax.distribute(net, scores, seed=-1)": "distribute.seed: -1; give 0 or more",
    # Placement
    "placement.answering([7])": "failed: no device 7",
    "placement.answering(0)": "failed: needs a list of devices",
    "placement.answering([], order=[0])": "order: [0]; name each of the devices",
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
