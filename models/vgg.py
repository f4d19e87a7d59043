"""VGG16 with batch norm (Simonyan and Zisserman 2015, arXiv 1409.1556), torchvision's names."""

from flax import nnx
from jaxtyping import Array, Float

from .pooling import average_to, channels_first, max_pool
from .steps import Steps, refuse_small, scaled

# Channels of the 3x3 convolutions in each of five stages; a pool follows each stage.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_LEAST = 32  # pixels: each stage halves them
_SIZE = 7  # rows and columns that the dense layers read
# He et al. 2015 (arXiv 1502.01852): the variance stays, in convolutions backwards, in dense layers
# forwards.
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
_HE_DENSE = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class VGG(nnx.Module):
    """Thirteen convolutions with batch norm and three dense layers.

    Images [B, H, W, 3] of at least 32 x 32 pixels, float32 and normalised -> logits [B, classes].
    `width` multiplies every hidden layer's channels. Dropout (0.5) is active in training only.
    Raises `InputError` for smaller images.
    """

    def __init__(self, *, classes: int, width: float, rngs: nnx.Rngs):
        steps, inputs = [], 3
        for stage in _STAGES:
            for outputs in (scaled(channels, width) for channels in stage):
                steps += [_conv(inputs, outputs, rngs), _norm(outputs, rngs), nnx.relu]
                inputs = outputs
            steps.append(_pool)
        self.features = Steps(steps)
        hidden = scaled(4096, width)
        self.classifier = Steps(
            [
                nnx.Linear(inputs * _SIZE**2, hidden, kernel_init=_HE_DENSE, rngs=rngs),
                nnx.relu,
                nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(hidden, hidden, kernel_init=_HE_DENSE, rngs=rngs),
                nnx.relu,
                nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(hidden, classes, rngs=rngs),
            ]
        )

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        refuse_small("vgg16_bn", images, _LEAST)
        hidden = average_to(self.features(images), _SIZE)
        return self.classifier(channels_first(hidden))


def _conv(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (3, 3), padding=1, kernel_init=_HE, rngs=rngs)


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


def _pool(images: Float[Array, "B H W C"]) -> Float[Array, "B rows columns C"]:
    return max_pool(images, 2, 2)


def vgg16_bn(*, classes: int, width: float, rngs: nnx.Rngs) -> VGG:
    """torchvision's `vgg16_bn`: 138,365,992 parameters at 1000 classes and full width."""
    return VGG(classes=classes, width=width, rngs=rngs)
