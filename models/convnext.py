"""ConvNeXt-Tiny (Liu et al. 2022, arXiv 2201.03545) with torchvision's names."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .steps import Steps, refuse_small, scaled, unchanged

_CHANNELS = (96, 192, 384, 768)
_DEPTHS = (3, 3, 9, 3)
_LEAST = 32  # pixels: the stem divides them by 4, three later convolutions by 2 each
_INIT = nnx.initializers.truncated_normal(0.02)
_LAYER_SCALE = 1e-6  # what a new block's branch counts beside its shortcut


class Block(nnx.Module):
    """A 7x7 convolution of each channel by itself, layer norm, two dense layers; a shortcut.

    Images [B, H, W, C] -> [B, H, W, C], float32. `layer_scale` [C, 1, 1] multiplies what is added
    to the shortcut. Stochastic depth, by which torchvision skips blocks at random in training, is
    left out; inference does not know it.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.layer_scale = nnx.Param(jnp.full((channels, 1, 1), _LAYER_SCALE))
        self.block = Steps(
            [
                _conv(channels, channels, 7, rngs, padding=3, groups=channels),
                unchanged,  # channels are last already
                _norm(channels, rngs),
                nnx.Linear(channels, 4 * channels, kernel_init=_INIT, rngs=rngs),
                _gelu,
                nnx.Linear(4 * channels, channels, kernel_init=_INIT, rngs=rngs),
            ]
        )

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return images + self.block(images) * self.layer_scale[...].reshape(1, 1, 1, -1)


class ConvNeXt(nnx.Module):
    """Four stages of blocks; each begins with a convolution whose windows do not overlap.

    Images [B, H, W, 3] of at least 32 x 32 pixels, float32 and normalised -> logits [B, classes].
    `width` multiplies the channels of every stage. Raises `InputError` for smaller images.
    """

    def __init__(self, *, classes: int, width: float, rngs: nnx.Rngs):
        channels = [scaled(each, width) for each in _CHANNELS]
        stages = [
            Steps([Block(each, rngs=rngs) for _ in range(depth)])
            for each, depth in zip(channels, _DEPTHS, strict=True)
        ]
        stem = [_conv(3, channels[0], 4, rngs, stride=4), _norm(channels[0], rngs)]
        self.features = Steps([Steps(stem), stages[0]])
        for inputs, outputs, stage in zip(channels, channels[1:], stages[1:], strict=False):
            down = [_norm(inputs, rngs), _conv(inputs, outputs, 2, rngs, stride=2)]
            self.features.extend([Steps(down), stage])
        head = nnx.Linear(channels[-1], classes, kernel_init=_INIT, rngs=rngs)
        self.classifier = Steps([_norm(channels[-1], rngs), unchanged, head])

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        refuse_small("convnext_tiny", images, _LEAST)
        return self.classifier(self.features(images).mean((1, 2)))


def _conv(
    inputs: int,
    outputs: int,
    window: int,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (window, window),
        strides=stride,
        padding=padding,
        feature_group_count=groups,
        kernel_init=_INIT,
        rngs=rngs,
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The variance as E[x²] - E[x]² would lose digits where the mean is large.
    return nnx.LayerNorm(channels, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


def _gelu(images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    return nnx.gelu(images, approximate=False)


def convnext_tiny(*, classes: int, width: float, rngs: nnx.Rngs) -> ConvNeXt:
    """torchvision's `convnext_tiny`: 28,589,128 parameters at 1000 classes and full width."""
    return ConvNeXt(classes=classes, width=width, rngs=rngs)
