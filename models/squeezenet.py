"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016, arXiv 1602.07360) with torchvision's names."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .pooling import max_pool
from .steps import Steps, refuse_small, scaled

# He et al. 2015 (arXiv 1502.01852): what enters a layer keeps its variance through ReLU.
_HE = nnx.initializers.variance_scaling(2.0, "fan_in", "uniform")
_POOL = 0  # in a table of fires: a pool between two of them

# A fire's squeezed channels; it expands to four times as many through each of its windows.
_FIRES_1_0 = (16, 16, 32, _POOL, 32, 48, 48, 64, _POOL, 64)
_FIRES_1_1 = (16, 16, _POOL, 32, 32, _POOL, 48, 48, 64, 64)


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, and from there a 1x1 beside a 3x3, concatenated.

    Images [B, H, W, inputs] -> [B, H, W, 2 expanded], float32.
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int, *, rngs: nnx.Rngs):
        self.squeeze = _conv(inputs, squeezed, 1, rngs)
        self.expand1x1 = _conv(squeezed, expanded, 1, rngs)
        self.expand3x3 = _conv(squeezed, expanded, 3, rngs)

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W channels"]:
        few = nnx.relu(self.squeeze(images))
        return jnp.concatenate([nnx.relu(self.expand1x1(few)), nnx.relu(self.expand3x3(few))], -1)


class SqueezeNet(nnx.Module):
    """A convolution and eight fires between three pools; the classes are a convolution's channels.

    Images [B, H, W, 3], float32 and normalised -> logits [B, classes], never negative. `first` is
    the first convolution's channels and `window` its extent; `fires` the fires' squeezed channels
    and the pools between them. `width` multiplies every hidden layer's channels. Dropout (0.5) is
    active in training only. Raises `InputError` for images of less than `least` pixels a side.
    """

    def __init__(
        self,
        first: int,
        window: int,
        fires: Sequence[int],
        *,
        name: str,
        least: int,
        classes: int,
        width: float,
        rngs: nnx.Rngs,
    ):
        self.name, self.least = name, least
        channels = scaled(first, width)
        stem = nnx.Conv(
            3, channels, (window, window), strides=2, padding="VALID", kernel_init=_HE, rngs=rngs
        )
        steps = [stem, nnx.relu, _pool]
        for squeezed in fires:
            if squeezed == _POOL:
                steps.append(_pool)
                continue
            expanded = scaled(4 * squeezed, width)
            steps.append(Fire(channels, scaled(squeezed, width), expanded, rngs=rngs))
            channels = 2 * expanded
        self.features = Steps(steps)
        small = nnx.initializers.normal(0.01)
        last = nnx.Conv(channels, classes, (1, 1), kernel_init=small, rngs=rngs)
        self.classifier = Steps([nnx.Dropout(0.5, rngs=rngs), last, nnx.relu])

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        refuse_small(self.name, images, self.least)
        return self.classifier(self.features(images)).mean((1, 2))


def _conv(inputs: int, outputs: int, window: int, rngs: nnx.Rngs) -> nnx.Conv:
    sides, padding = (window, window), window // 2
    return nnx.Conv(inputs, outputs, sides, padding=padding, kernel_init=_HE, rngs=rngs)


def _pool(images: Float[Array, "B H W C"]) -> Float[Array, "B rows columns C"]:
    return max_pool(images, 3, 2, ceil=True)


def squeezenet1_0(*, classes: int, width: float, rngs: nnx.Rngs) -> SqueezeNet:
    """torchvision's `squeezenet1_0`: 1,248,424 parameters at 1000 classes and full width."""
    return SqueezeNet(
        96,
        7,
        _FIRES_1_0,
        name="squeezenet1_0",
        least=21,
        classes=classes,
        width=width,
        rngs=rngs,
    )


def squeezenet1_1(*, classes: int, width: float, rngs: nnx.Rngs) -> SqueezeNet:
    """torchvision's `squeezenet1_1`: 1,235,496 parameters at 1000 classes and full width."""
    return SqueezeNet(
        64,
        3,
        _FIRES_1_1,
        name="squeezenet1_1",
        least=17,
        classes=classes,
        width=width,
        rngs=rngs,
    )
