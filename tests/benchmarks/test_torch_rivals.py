# pyright: reportMissingImports=false
"""The PyTorch rivals' arithmetic and masks against NumPy; skipped without PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import networks  # noqa: E402
from benchmarks.agreement import check_rate  # noqa: E402
from benchmarks.rivals import plain, sliced, torch_networks  # noqa: E402


def numpy_codes(values):
    return np.clip(np.rint(values.astype(np.float64) * 256), -32768, 32767).astype(np.int64)


def test_codes_are_rounded_half_to_even_and_saturate():
    halves = (np.arange(-9, 10) + 0.5) / 256
    extremes = [-500, -128, -128.01, 127.99609375, 127.998, 128, 500]
    values = np.concatenate([halves, extremes, np.random.default_rng(0).normal(size=1000) * 60])
    values = values.astype(np.float32)
    codes = plain.encode(torch.tensor(values)).numpy()
    np.testing.assert_array_equal(codes, numpy_codes(values))
    assert codes.min() == -32768 and codes.max() == 32767
    for back in (plain.decode(torch.tensor(codes)), plain.rounded(torch.tensor(values))):
        np.testing.assert_array_equal(back.numpy(), numpy_codes(values) / 256)


@pytest.mark.parametrize(
    ("draw", "rate"), [(plain.loop, plain.RATE), (sliced.sliced, sliced.RATE_MET)]
)
def test_each_low_bit_flips_at_its_rate_by_itself_and_no_other(draw, rate):
    torch.manual_seed(0)
    elements = 400_003
    mask = draw("", plain.WEIGHTS, torch.zeros(elements, dtype=torch.int16)).numpy()
    assert mask.min() >= 0 and mask.max() <= 15
    bits = mask[:, None] >> np.arange(4) & 1
    for bit in bits.T:
        check_rate(int(bit.sum()), elements, rate)
        check_rate(int((bit[1:] & bit[:-1]).sum()), elements - 1, rate**2 + 1e-4)
    for one in range(4):
        for other in range(one):
            check_rate(int((bits[:, one] & bits[:, other]).sum()), elements, rate**2)


def numpy_layer(codes, kernel, bias, stride):
    """Integers: NCHW by OIHW with a border of half the kernel, or [N, in] by [out, in]."""
    if kernel.ndim == 2:
        return codes @ kernel.T + bias
    edge = kernel.shape[2] // 2
    padded = np.pad(codes, [(0, 0), (0, 0), (edge, edge), (edge, edge)])
    sides = range(0, codes.shape[2], stride)
    made = np.zeros((len(codes), len(kernel), len(sides), len(sides)), np.int64)
    for row, y in enumerate(sides):
        for column, x in enumerate(sides):
            window = padded[:, :, y : y + kernel.shape[2], x : x + kernel.shape[2]]
            made[:, :, row, column] = np.einsum("nchw,ochw->no", window, kernel)
    return made + bias[:, None, None]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("layer", ["stem", "1.0.shortcut", "fc"])
def test_a_struck_layer_is_integer_arithmetic_with_handed_masks(layer, channels_last):
    made = plain.fixed(torch_networks.make(networks.resnet18(), 1, channels_last=channels_last))
    random = np.random.default_rng(1)
    kernel = made.net.kernels[layer]
    dense = kernel.weight.ndim == 2
    values = random.normal(size=(2, 512) if dense else (2, 6, 6, kernel.weight.shape[1]))
    values = values.astype(np.float32)
    params = networks.resnet18().params
    own, bias = params[f"{layer}.kernel"], params[f"{layer}.bias"]
    masks = [random.integers(0, 16, each.shape).astype(np.int16) for each in (own, values)]
    draw = plain.handed({layer: masks[0]}, {layer: masks[1]})

    inputs = torch.tensor(torch_networks.input_layout(values))
    found = plain._struck_layer(made, draw, layer, inputs)[0].numpy()

    weight = torch_networks.kernel_layout(numpy_codes(own) ^ masks[0])
    codes = torch_networks.input_layout(numpy_codes(values) ^ masks[1])
    whole = np.rint(bias.astype(np.float64) * 2**16).astype(np.int64)
    expected = numpy_layer(codes, weight, whole, kernel.stride)
    assert np.abs(expected).max() < 2**24
    np.testing.assert_array_equal(found, expected / 2**16)
