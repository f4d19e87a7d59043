# pyright: reportMissingImports=false
"""Plain PyTorch: AFarePart's fault model by hand, one `torch.rand` for each faulty bit.

int16 codes of the weights and of what every layer reads, XORed with masks that are drawn afresh in
every forward pass, dequantised, and convolved in float32 (the straightforward way to do it).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals.torch_networks import (
    LAST_EXACT,
    STEP,
    Kernel,
    Net,
    device,
    input_layout,
    kernel_layout,
    linear,
)

BITS, RATE = 4, 0.2
WEIGHTS, INPUTS = "weights", "inputs"

#: (layer, WEIGHTS or INPUTS, codes) -> a mask of their shape, int16
Draw = Callable[[str, str, Tensor], Tensor]


@dataclass(frozen=True)
class Fixed:
    """A network's constants in Q8.8; biases are on the accumulator's grid of 2^-16."""

    net: Net
    codes: dict[str, Tensor]  # int16
    weights: dict[str, Tensor]  # the same, dequantised
    biases: dict[str, Tensor]


def fixed(net: Net) -> Fixed:
    codes = {name: encode(kernel.weight) for name, kernel in net.kernels.items()}
    weights = {name: decode(code) for name, code in codes.items()}
    biases = {name: (k.bias / STEP**2).round() * STEP**2 for name, k in net.kernels.items()}
    return Fixed(net, codes, weights, biases)


def encode(values: Tensor) -> Tensor:
    """int16 codes: rounded half to even, saturating."""
    return (values * (1 / STEP)).round_().clamp_(-(2**15), 2**15 - 1).to(torch.int16)


def decode(codes: Tensor) -> Tensor:
    return codes.to(torch.float32).mul_(STEP)


def rounded(values: Tensor) -> Tensor:
    """What `decode(encode(values))` is, without the detour by way of integers."""
    return (values * (1 / STEP)).round_().clamp_(-(2**15), 2**15 - 1).mul_(STEP)


def clean_float(net: Net) -> Tensor:
    def layer(name: str, inputs: Tensor) -> Tensor:
        kernel = net.kernels[name]
        return linear(kernel, inputs, kernel.weight, kernel.bias)

    return net.run(layer)


def clean_fixed(made: Fixed) -> Tensor:
    def layer(name: str, inputs: Tensor) -> Tensor:
        kernel = made.net.kernels[name]
        return linear(kernel, rounded(inputs), made.weights[name], made.biases[name])

    return made.net.run(layer)


def struck(made: Fixed, draw: Draw) -> Tensor:
    """Logits with every layer's weights and inputs struck."""
    return made.net.run(lambda name, inputs: _struck_layer(made, draw, name, inputs)[0])


def largest_sum(made: Fixed, draw: Draw) -> float:
    """The largest Σ|x·w| + |bias| of any output, in codes: below 2^24 a struck pass is exact."""
    largest = 0.0

    def layer(name: str, inputs: Tensor) -> Tensor:
        nonlocal largest
        output, reads, weight = _struck_layer(made, draw, name, inputs)
        sums = linear(made.net.kernels[name], reads.abs(), weight.abs(), made.biases[name].abs())
        largest = max(largest, float(sums.max()) / STEP**2)
        return output

    made.net.run(layer)
    return largest


def is_exact(made: Fixed, draw: Draw) -> bool:
    """Whether float32 holds every sum of a struck pass exactly.

    The sums looked at are rounded themselves, hence the margin. On a GPU convolutions may go by way
    of transforms (Winograd) that round.
    """
    return device().type == "cpu" and largest_sum(made, draw) < LAST_EXACT * 0.99


def _struck_layer(
    made: Fixed, draw: Draw, name: str, inputs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    codes, kernel = encode(inputs), made.codes[name]
    reads = decode(codes.bitwise_xor_(draw(name, INPUTS, codes)))
    weight = decode(kernel ^ draw(name, WEIGHTS, kernel))
    layer: Kernel = made.net.kernels[name]
    return linear(layer, reads, weight, made.biases[name]), reads, weight


def loop(name: str, target: str, codes: Tensor) -> Tensor:
    """The mask bit by bit, each from a uniform draw of its own; a `Draw`."""
    mask = torch.zeros_like(codes)
    for bit in range(BITS):
        mask |= (torch.rand_like(codes, dtype=torch.float32) < RATE).to(torch.int16) << bit
    return mask


def none(name: str, target: str, codes: Tensor) -> Tensor:
    """A `Draw` that flips nothing."""
    return torch.zeros_like(codes)


def handed(weights: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> Draw:
    """A `Draw` that gives the masks of somebody else: HWIO and NHWC, or [in, out] and [B, in]."""
    tables = {WEIGHTS: (weights, kernel_layout), INPUTS: (inputs, input_layout)}

    def draw(name: str, target: str, codes: Tensor) -> Tensor:
        table, layout = tables[target]
        return torch.tensor(layout(table[name]), device=codes.device)

    return draw


def flips(draw: Draw, elements: int = 1_000_003) -> tuple[int, int, bool]:
    """How many bits a draw flips, of how many that it may, and whether it flips no other."""
    codes = torch.zeros(elements, dtype=torch.int16, device=device())
    mask = draw("", WEIGHTS, codes).cpu().numpy().view(np.uint16)
    count = int(np.bitwise_count(mask).sum())
    return count, elements * BITS, not (mask >> BITS).any()
