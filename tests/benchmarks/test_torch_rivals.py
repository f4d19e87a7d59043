# pyright: reportMissingImports=false
"""The PyTorch rivals' arithmetic and masks against NumPy; skipped without PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import afpjax  # noqa: E402  (before JAX is used: it sets flags)
from benchmarks import networks  # noqa: E402
from benchmarks.agreement import check_rate  # noqa: E402
from benchmarks.rivals import passes, plain, sliced, torch_networks, vmapped  # noqa: E402


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


def test_masks_are_fresh_every_time_and_have_the_codes_layout():
    codes = torch.zeros((4, 6, 5, 5), dtype=torch.int16).contiguous(
        memory_format=torch.channels_last
    )
    for draw in (plain.loop, sliced.sliced):
        one, other = (draw("", plain.INPUTS, codes) for _ in range(2))
        assert one.shape == codes.shape and one.stride() == codes.stride()
        assert (one != other).any()


def test_coins_are_the_ladder_of_their_words(monkeypatch):
    """The probability is that of a number of 8 random bits below 51, lane by lane."""
    drawn = []

    def random_(self, *limits):
        words = np.random.default_rng(len(drawn)).integers(-(2**63), 2**63, len(self))
        drawn.append(words)
        return torch.tensor(words)

    monkeypatch.setattr(torch.Tensor, "random_", random_)
    found = sliced.coins(5, torch.device("cpu")).numpy()
    lanes = np.arange(64)
    digits = [(words[:, None] >> lanes) & 1 for words in drawn]  # the last one weighs most
    # OR takes a 1 and AND a 0 as decided, so a lane is heads where its inverted number is below.
    number = sum((1 - digit) << level for level, digit in enumerate(digits))
    heads = np.where(number < 51, 1, 0)
    np.testing.assert_array_equal((found[:, None] >> lanes) & 1, heads)


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


def test_the_largest_sum_is_seen():
    """An AlexNet whose first layer reads huge images is not exact, one that reads small ones is."""
    net = torch_networks.make(networks.alexnet(), 1)
    for factor, exact in ((0.01, True), (50.0, False)):
        scaled = torch_networks.Net(net.name, net.kernels, net.images * factor)
        made = plain.fixed(scaled)
        assert plain.is_exact(made, plain.none) is exact


def test_layers_are_in_graph_order_with_the_traced_kernels_sizes():
    for network in (networks.resnet18(), networks.alexnet()):
        traced = afpjax.trace(network.apply, network.params, networks.images(1))
        net = torch_networks.make(network, 1)
        for layer, (name, kernel) in zip(traced.layers, net.kernels.items(), strict=True):
            assert layer.name == name and layer.weights == kernel.weight.numel()


def test_every_way_runs_every_pass_once_without_gradients():
    done: list[tuple[int, bool]] = []

    def once(number):
        done.append((number, torch.is_inference_mode_enabled()))

    for way in passes.ways("x", once, 1, side_by_side=True):
        done.clear()
        way.run(range(12))
        assert sorted(done) == [(number, True) for number in range(12)]


def test_trials_under_vmap_are_those_one_by_one():
    made = plain.fixed(torch_networks.make(networks.residual("digits"), 2))
    drawn = {}

    def draw(name, target, codes):
        masks = torch.randint(0, 16, codes.shape, dtype=torch.int16)
        drawn[name, target] = masks
        return masks

    together = vmapped.Vmapped(made, draw, 3, compiled=False).run()
    for trial, logits in enumerate(together):
        own = plain.struck(made, lambda *key: drawn[key[:2]][trial])  # noqa: B023
        torch.testing.assert_close(logits, own, rtol=0, atol=1e-4)
    assert (together[0] != together[1]).any()


def test_tf32_is_on_within_and_off_after():
    seen = []
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    torch_networks.with_tf32(lambda numbers: seen.append((matmul.allow_tf32, cudnn.allow_tf32)))(
        [1]
    )
    assert seen == [(True, True)] and not matmul.allow_tf32 and not cudnn.allow_tf32


def test_mrfi_writes_only_where_nobody_else_reads():
    pytest.importorskip("mrfi")
    from benchmarks.rivals.mrfi_rival import Injected

    net = torch_networks.make(networks.resnet18(), 1)
    before = net.images.clone()
    Injected(net, plain.loop).struck()
    assert torch.equal(net.images, before)


def test_pytorchfis_places_are_those_of_row_major_elements():
    pytest.importorskip("pytorchfi")
    from benchmarks.rivals.pytorchfi_rival import place_of

    for shape in ((3, 3, 4, 5), (6, 7)):
        kernel = np.arange(np.prod(shape)).reshape(shape)
        layout = torch_networks.kernel_layout(kernel)
        for element in range(kernel.size):
            place = [each for each in place_of(element, shape) if each is not None]
            assert layout[tuple(place)] == element
