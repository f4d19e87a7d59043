"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with torchvision's names."""

from flax import nnx
from jaxtyping import Array, Float

from .steps import Steps

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_DIVISOR = 8
# He et al. 2015 (arXiv 1502.01852): what leaves a convolution keeps its variance backwards.
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class InvertedResidual(nnx.Module):
    """1x1 to `expansion` times the channels, 3x3 on each by itself, 1x1 back; a shortcut where the
    shape stays.

    Images [B, H, W, inputs] -> [B, ceil(H / stride), ceil(W / stride), outputs], float32.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, *, rngs: nnx.Rngs):
        hidden = inputs * expansion
        steps = [_unit(inputs, hidden, 1, rngs=rngs)] if expansion > 1 else []
        steps += [
            _unit(hidden, hidden, 3, stride=stride, groups=hidden, rngs=rngs),
            _conv(hidden, outputs, 1, rngs=rngs),
            _norm(outputs, rngs),
        ]
        self.conv = Steps(steps)
        self.shortcut = stride == 1 and inputs == outputs

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B rows columns channels"]:
        hidden = self.conv(images)
        return images + hidden if self.shortcut else hidden


class MobileNetV2(nnx.Module):
    """A convolution, seventeen inverted residuals and a 1x1 convolution to 1280 channels.

    Images [B, H, W, 3] of any size, float32 and normalised -> logits [B, classes]. `width`
    multiplies channels as torchvision's does: to multiples of 8, the last 1280 never to fewer.
    Dropout (0.2) is active in training only.
    """

    def __init__(self, *, classes: int, width: float, rngs: nnx.Rngs):
        inputs = _divisible(32 * width)
        steps: list[nnx.Module] = [_unit(3, inputs, 3, stride=2, rngs=rngs)]
        for expansion, channels, blocks, first in _STAGES:
            outputs = _divisible(channels * width)
            for stride in (first, *[1] * (blocks - 1)):
                steps.append(InvertedResidual(inputs, outputs, stride, expansion, rngs=rngs))
                inputs = outputs
        last = _divisible(1280 * max(1.0, width))
        self.features = Steps([*steps, _unit(inputs, last, 1, rngs=rngs)])
        head = nnx.Linear(last, classes, rngs=rngs)
        self.classifier = Steps([nnx.Dropout(0.2, rngs=rngs), head])

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        return self.classifier(self.features(images).mean((1, 2)))


def _divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and the next one where that loses over a tenth."""
    nearest = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * channels else nearest


def _unit(
    inputs: int, outputs: int, window: int, *, stride: int = 1, groups: int = 1, rngs: nnx.Rngs
) -> nnx.Module:
    conv = _conv(inputs, outputs, window, stride=stride, groups=groups, rngs=rngs)
    return Steps([conv, _norm(outputs, rngs), nnx.relu6])


def _conv(
    inputs: int, outputs: int, window: int, *, stride: int = 1, groups: int = 1, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (window, window),
        strides=stride,
        padding=window // 2,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=_HE,
        rngs=rngs,
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


def mobilenet_v2(*, classes: int, width: float, rngs: nnx.Rngs) -> MobileNetV2:
    """torchvision's `mobilenet_v2`: 3,504,872 parameters at 1000 classes and full width."""
    return MobileNetV2(classes=classes, width=width, rngs=rngs)
