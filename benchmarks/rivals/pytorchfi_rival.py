# pyright: reportMissingImports=false
"""PyTorchFI 0.6.0: one weight bit at a time, each on a copy of the network that it makes."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.rivals import plain
from benchmarks.rivals.torch_networks import Kernel, Module, Net

# PyTorchFI sets a format for the whole process's log that nobody else's lines fit; not so where
# logging has been set up before.
logging.basicConfig()
from pytorchfi.core import fault_injection  # noqa: E402


class Injector:
    """Weights in Q8.8; what layers read is float32, as PyTorchFI leaves it, or rounded to Q8.8.

    Unrounded is faster, and is what is timed; rounded is what we compute, to see that both agree.
    """

    def __init__(self, net: Net, *, rounded: bool) -> None:
        fixed = plain.fixed(net)
        kernels = {
            name: Kernel(fixed.weights[name], fixed.biases[name], kernel.stride)
            for name, kernel in net.kernels.items()
        }
        self.images = net.images
        before = plain.rounded if rounded else None
        module = Module(Net(net.name, kernels, net.images), before=before)
        self.injector = fault_injection(
            module,
            len(net.images),
            input_shape=list(net.images.shape[1:]),
            layer_types=[nn.Conv2d, nn.Linear],
            use_cuda=net.images.is_cuda,
        )

    def struck(self, layer: int, place: Sequence[int | None], bit: int) -> Tensor:
        """Logits with one bit of one weight flipped; `place` as `place_of` gives it."""
        channel, *dims = ([each] for each in place)
        corrupted = self.injector.declare_weight_fi(
            function=lambda weights, where: _flipped(weights[where], bit),
            layer_num=[layer],
            k=channel,
            **{f"dim{number}": dim for number, dim in enumerate(dims, start=1)},
        )
        return corrupted(self.images)


def place_of(element: int, shape: Sequence[int]) -> tuple[int | None, ...]:
    """Where PyTorchFI has the row-major `element` of an HWIO or [in, out] kernel."""
    index = [int(each) for each in np.unravel_index(element, tuple(shape))]
    if len(index) == 4:
        return index[3], index[2], index[0], index[1]
    return index[1], index[0], None, None


def _flipped(weight: Tensor, bit: int) -> Tensor:
    mask = 1 << bit if bit < 15 else -(2**15)
    return plain.decode(plain.encode(weight) ^ torch.tensor(mask, dtype=torch.int16))
