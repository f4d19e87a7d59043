"""The networks that everything is measured on: CIFAR ResNet-18 and AlexNet, 32x32, random weights.

On a GPU two small ones too: ResNet-20, and one of the default experiment's size (`digits`). All
are plain functions of plain arrays, so that every rival runs the same numbers. Batch norm is folded
into the convolutions beforehand, for the rivals too: nobody pays for it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from jaxtyping import Array

Arrays = dict[str, np.ndarray]
CLASSES, SIDE = 10, 32


@dataclass(frozen=True)
class Network:
    """A function of (params, images [B, 32, 32, 3]) -> logits, and its arrays by name."""

    name: str
    apply: Callable[[Any, Array], Array]
    params: Arrays

    @property
    def parameters(self) -> int:
        return sum(array.size for array in self.params.values())


class Residual(NamedTuple):
    """Basic blocks behind a 3x3 stem: channels of each stage, blocks in it, the stem's stride."""

    channels: tuple[int, ...]
    blocks: int
    stride: int = 1


#: Residual networks for CIFAR (He et al. 2016) with 1x1 shortcuts. `digits` has the 21 layers and
#: channels of the default experiment's network, and about its multiply-accumulates.
RESIDUAL = {
    "resnet18": Residual((64, 128, 256, 512), 2),
    "resnet20": Residual((16, 32, 64), 3),
    "digits": Residual((16, 32, 64, 128), 2, 4),
}


def resnet18(seed: int = 0) -> Network:
    """ResNet-18 for CIFAR (He et al. 2016 with a 3x3 stem): 11.17 M parameters, 21 layers."""
    return residual("resnet18", seed)


def residual(name: str, seed: int = 0) -> Network:
    """One of `RESIDUAL`."""
    channels = RESIDUAL[name].channels
    shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, 3, channels[0])}
    for block, inputs, outputs, stride in blocks(name):
        shapes[f"{block}.first"] = (3, 3, inputs, outputs)
        shapes[f"{block}.second"] = (3, 3, outputs, outputs)
        if stride > 1:
            shapes[f"{block}.shortcut"] = (1, 1, inputs, outputs)
    shapes["fc"] = (channels[-1], CLASSES)
    return Network(name, partial(_residual, name), _draw(shapes, seed))


def alexnet(seed: int = 0) -> Network:
    """AlexNet for CIFAR, five 3x3 convolutions and three dense layers: 23.27 M parameters."""
    shapes: dict[str, tuple[int, ...]] = {
        name: (3, 3, inputs, outputs) for name, inputs, outputs, _, _ in STEPS
    }
    shapes |= {"fc1": (1024, 4096), "fc2": (4096, 4096), "fc3": (4096, CLASSES)}
    return Network("alexnet", _alexnet, _draw(shapes, seed))


NETWORKS = {"resnet18": resnet18, "alexnet": alexnet}
#: Too small to be worth a figure on a CPU's cores.
SMALL = {name: partial(residual, name) for name in ("digits", "resnet20")}

# name, channels in, channels out, stride, whether a 2x2 max pool follows
STEPS = (
    ("conv1", 3, 64, 2, True),
    ("conv2", 64, 192, 1, True),
    ("conv3", 192, 384, 1, False),
    ("conv4", 384, 256, 1, False),
    ("conv5", 256, 256, 1, True),
)


def blocks(name: str = "resnet18") -> Iterator[tuple[str, int, int, int]]:
    """Name, channels in and out, and stride of each residual block."""
    shape = RESIDUAL[name]
    inputs = shape.channels[0]
    for stage, outputs in enumerate(shape.channels):
        for block in range(shape.blocks):
            yield f"{stage}.{block}", inputs, outputs, 2 if stage and not block else 1
            inputs = outputs


def _draw(shapes: dict[str, tuple[int, ...]], seed: int) -> Arrays:
    """He-normal kernels and small biases; a block's second is weak, so that sums stay small."""
    random, arrays = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        gain = 0.3 if name.endswith("second") else 1.0
        spread = gain * np.sqrt(2 / np.prod(shape[:-1]))
        arrays[f"{name}.kernel"] = (random.standard_normal(shape) * spread).astype(np.float32)
        arrays[f"{name}.bias"] = (random.standard_normal(shape[-1]) * 0.05).astype(np.float32)
    return arrays


def _conv(params: Any, name: str, images: Array, stride: int = 1) -> Array:
    kernel = params[f"{name}.kernel"]
    edge = kernel.shape[0] // 2
    made = lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((edge, edge), (edge, edge)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return made + params[f"{name}.bias"][None, None, None]


def _dense(params: Any, name: str, values: Array) -> Array:
    return values @ params[f"{name}.kernel"] + params[f"{name}.bias"][None]


def _residual(network: str, params: Any, images: Array) -> Array:
    hidden = nn.relu(_conv(params, "stem", images, RESIDUAL[network].stride))
    for name, _, _, stride in blocks(network):
        short = _conv(params, f"{name}.shortcut", hidden, stride) if stride > 1 else hidden
        inside = nn.relu(_conv(params, f"{name}.first", hidden, stride))
        hidden = nn.relu(_conv(params, f"{name}.second", inside) + short)
    return _dense(params, "fc", hidden.mean(axis=(1, 2)))


def _alexnet(params: Any, images: Array) -> Array:
    hidden = images
    for name, _, _, stride, pooled in STEPS:
        hidden = nn.relu(_conv(params, name, hidden, stride))
        if pooled:
            hidden = _pool(hidden)
    # Channels first, as torch flattens: the rivals share the dense kernels.
    hidden = jnp.transpose(hidden, (0, 3, 1, 2)).reshape(len(images), -1)
    for name in ("fc1", "fc2"):
        hidden = nn.relu(_dense(params, name, hidden))
    return _dense(params, "fc3", hidden)


def _pool(images: Array) -> Array:
    return lax.reduce_window(images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def images(count: int, seed: int = 0) -> np.ndarray:
    """Random images, float32 [count, 32, 32, 3], normalised as real ones would be."""
    return np.random.default_rng(seed).standard_normal((count, SIDE, SIDE, 3)).astype(np.float32)
