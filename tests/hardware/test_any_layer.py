"""Any layer that tracing may find has a finite cost on any device, no less than it must be."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.hardware import Device, Sizes, active_lanes, layer_cost, load_device, shipped_devices
from afpjax.hardware.memory_traffic import dram_bytes, layer_traffic
from afpjax.hardware.platform import PEArray
from afpjax.network.layers import Layer
from afpjax.network.trace import trace

# Kinds of layers that the random shapes below do not have: (what it does with a kernel, image,
# kernel).


def conv(numbers: tuple[str, str, str], strides: tuple[int, ...], **rest):
    def layer(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, strides, "SAME", dimension_numbers=numbers, **rest
        )

    return layer


def einsum(formula: str):
    return lambda image, kernel: jnp.einsum(formula, image, kernel)


D1, D3 = ("NHC", "HIO", "NHC"), ("NDHWC", "DHWIO", "NDHWC")
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
KINDS = {
    "conv-1d": (conv(D1, (2,)), (1, 50, 3), (5, 3, 8)),
    "conv-3d": (conv(D3, (2, 2, 2)), (1, 8, 9, 10, 2), (3, 2, 1, 2, 6)),
    "conv-nchw": (conv(NCHW, (3, 2)), (1, 3, 17, 19), (7, 3, 5, 3)),
    "depthwise": (conv(NHWC, (1, 1), feature_group_count=12), (1, 9, 9, 12), (3, 3, 1, 12)),
    "transposed": (
        lambda image, kernel: jax.lax.conv_transpose(image, kernel, (2, 2), "SAME"),
        (1, 6, 6, 3),
        (4, 4, 3, 5),
    ),
    "dense-per-head": (einsum("bthd,hde->bthe"), (1, 11, 3, 4), (3, 4, 5)),
    "dense-over-an-image": (einsum("bhwc,hwcn->bn"), (1, 4, 3, 2), (4, 3, 2, 6)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_traced_layer_has_a_cost(kind):
    linear, image, kernel = KINDS[kind]
    params = {"kernel": jnp.ones(kernel)}
    network = trace(lambda p, x: linear(x, p["kernel"]).reshape(1, -1), params, jnp.ones(image))
    (layer,) = network.layers
    for name in shipped_devices():
        holds_for(layer, load_device(name))
    holds_for(layer, changed(PEArray("fixed", 3, 5)))


def test_any_layer_has_a_cost(layer_of):
    """Convolutions and dense layers of random shapes, on small arrays and odd formats."""
    rng = np.random.default_rng(3)
    for _ in range(80):
        groups, channels, neurons = map(int, rng.integers(1, [4, 9, 9]))
        size, out, window = map(int, rng.integers([1, 1, 0], [12, 12, 7]))
        shape = ("any", groups * channels, size, window, groups * neurons, out, groups)
        dataflow = rng.choice(["row-stationary", "weight-stationary", "fixed"]).item()
        on = changed(
            PEArray(dataflow, *map(int, rng.integers(1, 9, 2))),
            buffer_bytes=int(rng.choice([1, 64, 4096])),
            weight_words=int(rng.integers(1, 40)),
            input_words=int(rng.integers(1, 12)),
        )
        weight_bits, activation_bits, batch = map(int, rng.integers(1, [17, 17, 5]))
        holds_for(layer_of(shape), on, Sizes(weight_bits, activation_bits, batch))


def changed(array: PEArray, **memory: int) -> Device:
    """Eyeriss with another array and other memories."""
    eyeriss = load_device("eyeriss")
    sizes = dataclasses.replace(eyeriss.memory, **memory)
    return dataclasses.replace(eyeriss, array=array, memory=sizes)


def holds_for(layer: Layer, on: Device, sizes: Sizes | None = None) -> None:
    """Finite, not below what must be computed and moved, and not on lanes that there are not."""
    sizes = sizes or Sizes()
    ms, mj = layer_cost(layer, on, sizes)
    lanes, most = active_lanes(layer, on.array), on.array.rows * on.array.columns
    assert 1 <= lanes <= most and math.isfinite(ms) and math.isfinite(mj)
    macs = sizes.batch * layer.macs
    activations = sizes.batch * (layer.inputs + layer.outputs)
    moved = (layer.weights * sizes.weight_bits + activations * sizes.activation_bits) / 8
    assert dram_bytes(layer_traffic(layer, on, sizes), sizes) >= moved * (1 - 1e-12)
    assert ms >= max(macs / most / on.clock_mhz * 1e-3, moved / on.dram_gb_s * 1e-6) * (1 - 1e-12)
    word = on.word_bits
    products = macs * sizes.weight_bits * sizes.activation_bits / word**2 * on.energy_pj.mac
    assert mj * 1e9 >= (products + 8 * moved / word * on.energy_pj.dram) * (1 - 1e-12)
    assert ms > 0 and mj > 0
