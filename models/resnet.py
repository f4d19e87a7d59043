"""ResNet-18 and -34 (He et al. 2016, arXiv 1512.03385) with torchvision's names and paddings."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

# He et al. 2015 (arXiv 1502.01852): what leaves a convolution keeps its variance backwards.
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def _conv(inputs: int, outputs: int, window: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    # Symmetric padding, as torch has it: with a stride, SAME would shift the image by a pixel.
    return nnx.Conv(
        inputs,
        outputs,
        (window, window),
        strides=stride,
        padding=window // 2,
        use_bias=False,
        kernel_init=_HE,
        rngs=rngs,
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut, which is 1x1 where the shape changes.

    Images [B, H, W, inputs] -> [B, ceil(H / stride), ceil(W / stride), outputs], float32.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = _conv(inputs, outputs, 3, stride, rngs)
        self.bn1 = _norm(outputs, rngs)
        self.conv2 = _conv(outputs, outputs, 3, 1, rngs)
        self.bn2 = _norm(outputs, rngs)
        changes = stride != 1 or inputs != outputs
        shortcut = [_conv(inputs, outputs, 1, stride, rngs), _norm(outputs, rngs)]
        self.downsample = nnx.List(shortcut if changes else [])

    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B rows columns channels"]:
        hidden = nnx.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        shortcut = images
        for step in self.downsample:
            shortcut = step(shortcut)
        return nnx.relu(hidden + shortcut)


class ResNet(nnx.Module):
    """A residual network of basic blocks: `depths` blocks in each of four stages.

    Images [B, H, W, 3] of any size, float32 and normalised -> logits [B, classes]. `width`
    multiplies the channels of every stage (64, 128, 256 and 512).
    """

    def __init__(self, depths: Sequence[int], *, classes: int, width: float, rngs: nnx.Rngs):
        channels = [max(1, round(width * 64 * 2**stage)) for stage in range(4)]
        self.conv1 = _conv(3, channels[0], 7, 2, rngs)
        self.bn1 = _norm(channels[0], rngs)
        entering = [channels[0], *channels[:-1]]
        stages = [
            _stage(*sizes, stride=1 if number == 0 else 2, rngs=rngs)
            for number, sizes in enumerate(zip(entering, channels, depths, strict=True))
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = map(nnx.List, stages)
        self.fc = nnx.Linear(channels[-1], classes, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B classes"]:
        hidden = nnx.relu(self.bn1(self.conv1(images)))
        around = ((1, 1), (1, 1))  # Flax declares a name only, and takes pairs
        hidden = nnx.max_pool(hidden, (3, 3), (2, 2), around)  # pyright: ignore[reportArgumentType]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                hidden = block(hidden)
        return self.fc(hidden.mean((1, 2)))


def _stage(
    inputs: int, outputs: int, blocks: int, *, stride: int, rngs: nnx.Rngs
) -> list[BasicBlock]:
    first = BasicBlock(inputs, outputs, stride, rngs=rngs)
    rest = [BasicBlock(outputs, outputs, 1, rngs=rngs) for _ in range(blocks - 1)]
    return [first, *rest]


def resnet18(*, classes: int, width: float, rngs: nnx.Rngs) -> ResNet:
    """torchvision's `resnet18`: 11,689,512 parameters at 1000 classes and full width."""
    return ResNet((2, 2, 2, 2), classes=classes, width=width, rngs=rngs)


def resnet34(*, classes: int, width: float, rngs: nnx.Rngs) -> ResNet:
    """torchvision's `resnet34`: 21,797,672 parameters at 1000 classes and full width."""
    return ResNet((3, 4, 6, 3), classes=classes, width=width, rngs=rngs)
