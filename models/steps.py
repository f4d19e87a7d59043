"""What the families share: steps run one after another, and sizes checked before they run."""

from collections.abc import Iterable
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from afpjax.inputs.errors import InputError


class Steps(nnx.List):
    """Layers and functions run in order, each under its index, as PyTorch's `Sequential` names
    them: `features.3.weight` is the weight of the fourth step.

    Whatever the first step takes -> whatever the last one gives.
    """

    def __init__(self, steps: Iterable[Any]):
        super().__init__(steps)

    def __call__(self, value: Any) -> Any:
        for step in self:
            value = step(value)
        return value


def unchanged(value: Any) -> Any:
    """A step that PyTorch has and this layout does without: it keeps the later steps' indices."""
    return value


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier, at least one."""
    return max(1, round(width * channels))


def refuse_small(name: str, images: Float[Array, "B H W C"], least: int) -> None:
    """Raise `InputError` where images are too small for any pixel to reach the last layers."""
    rows, columns = images.shape[1:3]
    if min(rows, columns) < least:
        raise InputError(
            f"`{name}` reads images of at least {least} x {least} pixels, these are "
            f"{rows} x {columns}; set model.image_size to {least} or more"
        )
