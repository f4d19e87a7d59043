"""AlexNet in one column (Krizhevsky 2014, arXiv 1404.5997) with torchvision's names."""

from flax import nnx
from jaxtyping import Array, Float

from .pooling import average_to, channels_first, max_pool
from .steps import Steps, refuse_small, scaled

_LEAST = 63  # pixels: three 3x3 pools of stride 2 behind a stride of 4
_SIZE = 6  # rows and columns that the dense layers read
# He et al. 2015 (arXiv 1502.01852): what enters a layer keeps its variance through ReLU.
_HE = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


class AlexNet(nnx.Module):
    """Five convolutions and three dense layers, without local response normalisation.

    Images [B, H, W, 3] of at least 63 x 63 pixels, float32 and normalised -> logits [B, classes].
    `width` multiplies every hidden layer's channels. Dropout (0.5) is active in training only.
    Raises `InputError` for smaller images.
    """

    def __init__(self, *, classes: int, width: float, rngs: nnx.Rngs):
        first, second, third, last = (scaled(each, width) for each in (64, 192, 384, 256))
        hidden = scaled(4096, width)
        self.features = Steps(
            [
                _conv(3, first, 11, stride=4, padding=2, rngs=rngs),
                nnx.relu,
                _pool,
                _conv(first, second, 5, padding=2, rngs=rngs),
                nnx.relu,
                _pool,
                _conv(second, third, 3, padding=1, rngs=rngs),
                nnx.relu,
                _conv(third, last, 3, padding=1, rngs=rngs),
                nnx.relu,
                _conv(last, last, 3, padding=1, rngs=rngs),
                nnx.relu,
                _pool,
            ]
        )
        self.classifier = Steps(
            [
                nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(last * _SIZE**2, hidden, kernel_init=_HE, rngs=rngs),
                nnx.relu,
                nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(hidden, hidden, kernel_init=_HE, rngs=rngs),
                nnx.relu,
                nnx.Linear(hidden, classes, rngs=rngs),
            ]
        )

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        refuse_small("alexnet", images, _LEAST)
        hidden = average_to(self.features(images), _SIZE)
        return self.classifier(channels_first(hidden))


def _conv(
    inputs: int, outputs: int, window: int, *, stride: int = 1, padding: int, rngs: nnx.Rngs
) -> nnx.Conv:
    sides = (window, window)
    return nnx.Conv(
        inputs, outputs, sides, strides=stride, padding=padding, kernel_init=_HE, rngs=rngs
    )


def _pool(images: Float[Array, "B H W C"]) -> Float[Array, "B rows columns C"]:
    return max_pool(images, 3, 2)


def alexnet(*, classes: int, width: float, rngs: nnx.Rngs) -> AlexNet:
    """torchvision's `alexnet`: 61,100,840 parameters at 1000 classes and full width."""
    return AlexNet(classes=classes, width=width, rngs=rngs)
