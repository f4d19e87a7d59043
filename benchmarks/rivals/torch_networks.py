# pyright: reportMissingImports=false
"""The measured networks in PyTorch, of the same arrays: one topology, any way to run a layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import machine
from benchmarks.networks import RESIDUAL, STEPS, Network, blocks, images

STEP = 2.0**-8  # Q8.8
LAST_EXACT = 2**24  # float32 sums of smaller integers are exact in any order

#: (name of a layer, its input) -> its output
Layer = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Kernel:
    """A layer's arrays, OIHW or [out, in], and a convolution's stride."""

    weight: Tensor
    bias: Tensor
    stride: int = 1


@dataclass(frozen=True)
class Net:
    """A network's kernels in graph order, and the batch that it is measured on."""

    name: str
    kernels: dict[str, Kernel]
    images: Tensor

    def run(self, layer: Layer) -> Tensor:
        """Logits of the batch, with `layer` for every layer."""
        return forward(self.name, layer, self.images)


def forward(name: str, layer: Layer, batch: Tensor) -> Tensor:
    return _residual(name, layer, batch) if name in RESIDUAL else _alexnet(layer, batch)


def make(network: Network, count: int, *, channels_last: bool = False) -> Net:
    """The network and `count` images on PyTorch's device, all threads on, no TF32."""
    torch.set_num_threads(machine.cores())
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def placed(array: np.ndarray) -> Tensor:
        tensor = torch.tensor(array, device=device())
        return tensor.contiguous(memory_format=layout) if array.ndim == 4 else tensor

    kernels = {
        name: Kernel(
            placed(kernel_layout(network.params[f"{name}.kernel"])),
            placed(network.params[f"{name}.bias"]),
            stride,
        )
        for name, stride in _layers(network.name)
    }
    return Net(network.name, kernels, placed(input_layout(images(count))))


def device() -> Any:
    """A CUDA device where JAX computes on one too, else the processor."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def with_tf32(run: Callable[[Sequence[int]], Any]) -> Callable[[Sequence[int]], None]:
    """The same on a GPU's TF32 units, which cut operands to 11 bits."""

    def cut(numbers: Sequence[int]) -> None:
        matmul: Any = torch.backends.cuda.matmul
        cudnn: Any = torch.backends.cudnn
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        try:
            run(numbers)
        finally:
            matmul.allow_tf32 = cudnn.allow_tf32 = False

    return cut


def finish() -> None:
    """Wait for what the device has been given."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def kernel_layout(kernel: np.ndarray) -> np.ndarray:
    """HWIO -> OIHW, [in, out] -> [out, in]."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)


def input_layout(batch: np.ndarray) -> np.ndarray:
    """NHWC -> NCHW; [N, in] as it is."""
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if batch.ndim == 4 else batch


def linear(kernel: Kernel, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A layer on other operands of the same shapes."""
    if weight.ndim == 2:
        return functional.linear(inputs, weight, bias)
    edge = weight.shape[2] // 2
    return functional.conv2d(inputs, weight, bias, stride=kernel.stride, padding=edge)


class Module(nn.Module):
    """A network of `nn.Conv2d` and `nn.Linear`, for tools that look for modules.

    `own_copies`: layers that get a copy of their input, since a tool writes into it and others
    read it too. `before` is applied to what each layer reads.
    """

    def __init__(
        self,
        net: Net,
        own_copies: frozenset[str] = frozenset(),
        before: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.own_copies, self.before = net.name, own_copies, before
        for name, kernel in net.kernels.items():
            self.add_module(module_name(name), _module(kernel))
        self.eval().requires_grad_(False)

    def forward(self, batch: Tensor) -> Tensor:
        def layer(name: str, inputs: Tensor) -> Tensor:
            inputs = inputs.clone() if name in self.own_copies else inputs
            inputs = inputs if self.before is None else self.before(inputs)
            return getattr(self, module_name(name))(inputs)

        return forward(self.network, layer, batch)


def module_name(layer: str) -> str:
    return layer.replace(".", "_")  # PyTorch allows no dots


def read_twice(name: str) -> frozenset[str]:
    """Layers whose input is read again after them, by the caller or on a skip connection."""
    if name not in RESIDUAL:
        return frozenset({"conv1"})
    return frozenset({"stem"}) | {
        f"{block}.{'shortcut' if stride > 1 else 'first'}" for block, _, _, stride in blocks(name)
    }


def _module(kernel: Kernel) -> nn.Module:
    weight = kernel.weight
    if weight.ndim == 2:
        made: Any = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        sizes = (weight.shape[1], weight.shape[0], weight.shape[2])
        made = nn.Conv2d(*sizes, stride=kernel.stride, padding=weight.shape[2] // 2)
    made.weight, made.bias = nn.Parameter(weight.clone()), nn.Parameter(kernel.bias.clone())
    return made


def _layers(name: str) -> list[tuple[str, int]]:
    """Names in graph order, with strides."""
    if name == "alexnet":
        return [(step[0], step[3]) for step in STEPS] + [(f"fc{n}", 1) for n in (1, 2, 3)]
    found = [("stem", RESIDUAL[name].stride)]
    for block, _, _, stride in blocks(name):
        found += [(f"{block}.shortcut", stride)] if stride > 1 else []
        found += [(f"{block}.first", stride), (f"{block}.second", 1)]
    return [*found, ("fc", 1)]


def _residual(name: str, layer: Layer, batch: Tensor) -> Tensor:
    hidden = layer("stem", batch).relu_()
    for block, _, _, stride in blocks(name):
        short = layer(f"{block}.shortcut", hidden) if stride > 1 else hidden
        inside = layer(f"{block}.first", hidden).relu_()
        hidden = layer(f"{block}.second", inside).add_(short).relu_()
    return layer("fc", hidden.mean(dim=(2, 3)))


def _alexnet(layer: Layer, batch: Tensor) -> Tensor:
    hidden = batch
    for name, _, _, _, pooled in STEPS:
        hidden = layer(name, hidden).relu_()
        hidden = functional.max_pool2d(hidden, 2) if pooled else hidden
    hidden = layer("fc1", hidden.flatten(1)).relu_()
    return layer("fc3", layer("fc2", hidden).relu_())
