"""The zoo: networks by name, and their weights under torchvision's names."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from afpjax.data.dataset import Preset
from afpjax.inputs.errors import InputError, listed, nearest
from afpjax.inputs.image_size import ImageSize, pixels, rows_columns

from .alexnet import alexnet
from .convnext import convnext_tiny
from .mobilenet import mobilenet_v2
from .resnet import resnet18, resnet34
from .squeezenet import squeezenet1_0, squeezenet1_1
from .state_dict import Params as Params
from .state_dict import from_state_dict
from .state_dict import state_dict as state_dict
from .vgg import vgg16_bn
from .weight_files import read
from .weight_files import save as save

ApplyFn = Callable[[Any, Array], Array]

#: Every network of the zoo; a new family is a file beside this one and a line here.
NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "alexnet": alexnet,
    "squeezenet1_0": squeezenet1_0,
    "squeezenet1_1": squeezenet1_1,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "vgg16_bn": vgg16_bn,
    "convnext_tiny": convnext_tiny,
    "mobilenet_v2": mobilenet_v2,
}

_IMAGENET = Preset(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: How torchvision reads photographs for its first ImageNet weights of each network.
PRESETS: dict[str, Preset] = {
    **dict.fromkeys(NETWORKS, _IMAGENET),
    "convnext_tiny": _IMAGENET._replace(resize=236),
}


def create(name: str, *, classes: int, width: float = 1.0, seed: int) -> nnx.Module:
    """A new network with random weights, drawn from `seed`.

    It maps float32 images [B, H, W, 3] to logits [B, classes]; `width` multiplies its channels.
    Raises `InputError` for a name that is not in the zoo.
    """
    drawn = _draw(_constructor(name), classes, width, jax.random.key(seed))
    definition, state = nnx.split(_abstract(name, classes, width))
    nnx.replace_by_pure_dict(state, drawn)
    return nnx.merge(definition, state)


def apply_fn_of(name: str, *, classes: int, image_size: ImageSize, width: float = 1.0) -> ApplyFn:
    """The network as a pure function for `afpjax.trace`, in inference mode.

    `apply_fn(params, images)`: params as `params_of` gives them, images float32
    [B, rows, columns, 3] of `image_size`, normalised -> logits [B, classes]. Raises `InputError`
    for an unknown name, and `apply_fn` for images of another shape.
    """
    model = _abstract(name, classes, width)
    model.eval()
    definition, shapes = nnx.split(model)

    def apply_fn(params: Params, images: Array) -> Array:
        refuse_images(name, images.shape, image_size)
        state = jax.tree.map(lambda leaf: leaf, shapes)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(definition, state)(images)

    return apply_fn


def load(
    name: str,
    weights: str | Path | None = None,
    *,
    classes: int,
    image_size: ImageSize,
    width: float = 1.0,
    seed: int = 0,
) -> tuple[ApplyFn, Params]:
    """A network of the zoo as `(apply_fn, params)`, ready for `afpjax.trace`.

    `weights` is a file of a torchvision state dict (names and layouts as PyTorch has them), in
    `.safetensors`, `.npz` or, where torch is installed, `.pth`; without it, weights are drawn from
    `seed`. Raises `InputError` for an unknown name, and for a file that cannot be read or whose
    tensors are not this network's.
    """
    apply_fn = apply_fn_of(name, classes=classes, image_size=image_size, width=width)
    if weights is None:
        return apply_fn, params_of(create(name, classes=classes, width=width, seed=seed))
    shapes = params_of(_abstract(name, classes, width))
    where = f"model.weights: {weights} does not fit `{name}`, {classes} classes, width {width:g}"
    return apply_fn, from_state_dict(read(Path(weights)), shapes, where, classes=classes)


def abstract(
    name: str, *, classes: int, image_size: ImageSize, width: float = 1.0
) -> tuple[ApplyFn, Params]:
    """As `load`, with the shapes of its parameters instead of arrays.

    Raises `InputError` for an unknown name.
    """
    apply_fn = apply_fn_of(name, classes=classes, image_size=image_size, width=width)
    return apply_fn, params_of(_abstract(name, classes, width))


def preset(name: str) -> Preset | None:
    """How the published weights of a network want their images; None for no zoo name."""
    return PRESETS.get(name)


def params_of(model: nnx.Module) -> Params:
    """A network's arrays, batch statistics included, as nested dictionaries.

    The random state of its dropouts is no parameter, and is left out.
    """
    return nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))


def refuse_images(name: str, shape: Sequence[int], image_size: ImageSize) -> None:
    """Raise `InputError` unless images of this shape are [B, rows, columns, 3] of `image_size`."""
    if tuple(shape[1:]) != (*rows_columns(image_size), 3):
        found = " x ".join(map(str, shape[1:]))
        raise InputError(
            f"`{name}` reads images of {pixels(image_size)} x 3, these are {found}; "
            "set model.image_size, or give images of three channels"
        )


def refuse_unknown(name: str) -> None:
    """Raise `InputError` for a name that is not in the zoo."""
    if name not in NETWORKS:
        hint = nearest(name, NETWORKS) or f"; it has {listed(NETWORKS)}"
        raise InputError(f"model.name: the zoo has no `{name}`{hint}")


def _constructor(name: str) -> Callable[..., nnx.Module]:
    refuse_unknown(name)
    return NETWORKS[name]


# What runs once is compiled without optimisation: 5 times sooner, for ResNet-18's 21 kernels.
@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options={"xla_backend_optimization_level": 0})
def _draw(
    build: Callable[..., nnx.Module], classes: int, width: float, key: PRNGKeyArray
) -> Params:
    # The random state of dropouts too: a network to train needs it.
    return nnx.to_pure_dict(nnx.state(build(classes=classes, width=width, rngs=nnx.Rngs(key))))


def _abstract(name: str, classes: int, width: float) -> nnx.Module:
    """The network without its arrays: their shapes only."""
    build = _constructor(name)
    return nnx.eval_shape(lambda: build(classes=classes, width=width, rngs=nnx.Rngs(0)))
