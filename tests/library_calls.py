"""Calls of the library that must be refused, one expression each; run by `test_library_calls`.

They run in a process of its own, as a user's would: the types that the tests check elsewhere are
not checked there. Prints, as JSON, what became of every call.
"""

import json
import sys
import warnings

import jax
import numpy as np

import afpjax

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
params = {
    "conv": {"kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32)},
    "head": {"kernel": rng.normal(size=(64, 5)).astype(np.float32)},
}


def apply_fn(params, images):
    kernel = params["conv"]["kernel"]
    seen = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(seen).reshape(len(images), -1) @ params["head"]["kernel"]


x = rng.normal(size=(6, 4, 4, 1)).astype(np.float32)
y = np.array([0, 1, 2, 3, 4, 0], np.int32)
net = afpjax.trace(apply_fn, params, x)
one = afpjax.trace(lambda p, x: apply_fn(p, x)[:, :1], params, x)
q = afpjax.quantize(net, afpjax.QFormat())
q1 = afpjax.quantize(one, afpjax.QFormat())
platform = afpjax.load_platform(["eyeriss", "simba"], "ucie")
faults = afpjax.FaultModel(weight_rate=(0.1, 0.2), activation_rate=(0.1, 0.2))
maps = np.zeros((2, 2), np.int32)
key = jax.random.key(0)
scores = afpjax.importance(net, x)
placement = afpjax.distribute(net, scores, devices=2)
little = {"population": 4, "generations": 1, "trials": 1}


def accuracy(images=x, labels=y, mappings=maps, model=faults, key=key, network=q, **more):
    return afpjax.accuracy(network, images, labels, mappings, model, key, **more)


def partition(images=x, labels=y, model=faults, key=key, network=q, on=platform, **more):
    return afpjax.partition(network, on, model, images, labels, key, **{**little, **more})


if __name__ == "__main__":
    found = []
    for line in json.load(sys.stdin):
        try:
            found.append(["done", repr(eval(line))[:80]])
        except BaseException as error:
            found.append([type(error).__name__, str(error)])
    print(json.dumps(found))
