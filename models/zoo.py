"""The zoo: networks by name, and their weights under torchvision's names."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

from afpjax.errors import InputError
from afpjax.files import read_npz
from afpjax.settings import listed, nearest

from .resnet import resnet18, resnet34

Params = dict[Any, Any]  # nested; attribute names and list indices -> ... -> arrays
ApplyFn = Callable[[Any, Array], Array]

#: Every network of the zoo; a new family is a file beside this one and a line here.
NETWORKS: dict[str, Callable[..., nnx.Module]] = {"resnet18": resnet18, "resnet34": resnet34}

# Flax's names of a layer's arrays -> PyTorch's.
_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of PyTorch's kernels in Flax's order, by number of axes; the inverse is its argsort.
_KERNEL_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_SHOWN = 3  # tensors named for each kind of mismatch


def create(name: str, *, classes: int, width: float = 1.0, seed: int) -> nnx.Module:
    """A new network with random weights, drawn from `seed`.

    It maps float32 images [B, H, W, 3] to logits [B, classes]; `width` multiplies its channels.
    Raises `InputError` for a name that is not in the zoo.
    """
    drawn = _draw(_constructor(name), classes, width, jax.random.key(seed))
    definition, state = nnx.split(_abstract(name, classes, width))
    nnx.replace_by_pure_dict(state, drawn)
    return nnx.merge(definition, state)


def apply_fn_of(name: str, *, classes: int, image_size: int, width: float = 1.0) -> ApplyFn:
    """The network as a pure function for `afpjax.trace`, in inference mode.

    `apply_fn(params, images)`: params as `params_of` gives them, images float32
    [B, image_size, image_size, 3], normalised -> logits [B, classes]. Raises `InputError` for an
    unknown name, and `apply_fn` for images of another shape.
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
    image_size: int,
    width: float = 1.0,
    seed: int = 0,
) -> tuple[ApplyFn, Params]:
    """A network of the zoo as `(apply_fn, params)`, ready for `afpjax.trace`.

    `weights` is an `.npz` file of a torchvision state dict (names and layouts as PyTorch has
    them); without it, weights are drawn from `seed`. Raises `InputError` for an unknown name, and
    for a file that cannot be read or whose tensors are not this network's.
    """
    apply_fn = apply_fn_of(name, classes=classes, image_size=image_size, width=width)
    if weights is None:
        return apply_fn, params_of(create(name, classes=classes, width=width, seed=seed))
    shapes = params_of(_abstract(name, classes, width))
    where = f"model.weights: {weights} does not fit `{name}`, {classes} classes, width {width:g}"
    return apply_fn, from_state_dict(read_npz(Path(weights), "model.weights"), shapes, where)


def params_of(model: nnx.Module) -> Params:
    """A network's arrays, batch statistics included, as nested dictionaries."""
    return nnx.to_pure_dict(nnx.state(model))


def state_dict(params: Params) -> dict[str, np.ndarray]:
    """The arrays under torchvision's names, in PyTorch's layouts (OIHW; outputs x inputs)."""
    found = {}
    for name, leaf, kernel in _named(params):
        array = np.asarray(leaf)
        found[name] = array.transpose(np.argsort(_KERNEL_AXES[array.ndim])) if kernel else array
    return found


def from_state_dict(arrays: Mapping[str, np.ndarray], shapes: Params, where: str) -> Params:
    """Parameters of `shapes`' structure, float32, from tensors in PyTorch's layouts.

    `num_batches_tracked` is passed over: inference has no use for it. Raises one `InputError`,
    opened by `where`, that names missing, unknown and wrongly shaped tensors.
    """
    wanted = {name: (leaf.shape, kernel) for name, leaf, kernel in _named(shapes)}
    given = {n: a for n, a in arrays.items() if not n.endswith("num_batches_tracked")}
    made = {name: given[name] for name in wanted if name in given}
    for name, array in made.items():
        if wanted[name][1] and array.ndim in _KERNEL_AXES:
            made[name] = array.transpose(_KERNEL_AXES[array.ndim])
    problems = [
        ("missing", [f"`{n}`" for n in wanted if n not in given]),
        ("unknown", [f"`{n}`" for n in given if n not in wanted]),
        (
            "wrong shape",
            [_mismatch(n, given[n], wanted[n]) for n in made if made[n].shape != wanted[n][0]],
        ),
        ("no floats", [f"`{n}` ({a.dtype})" for n, a in made.items() if a.dtype.kind != "f"]),
    ]
    told = [f"{kind}: {_some(names)}" for kind, names in problems if names]
    if told:
        raise InputError(f"{where}; {'; '.join(told)}")
    leaves = [jnp.asarray(made[name].astype(np.float32)) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def save(path: Path, params: Params) -> None:
    """Write weights as `load` reads them; whole or not at all, even when killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with made.open("wb") as file:
            np.savez(file, allow_pickle=False, **state_dict(params))
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def refuse_images(name: str, shape: Sequence[int], image_size: int) -> None:
    """Raise `InputError` unless images of this shape are [B, image_size, image_size, 3]."""
    if tuple(shape[1:]) != (image_size, image_size, 3):
        found = " x ".join(map(str, shape[1:]))
        raise InputError(
            f"`{name}` reads images of {image_size} x {image_size} x 3, these are {found}; "
            "set model.image_size, or give images of three channels"
        )


def _constructor(name: str) -> Callable[..., nnx.Module]:
    if name not in NETWORKS:
        hint = nearest(name, NETWORKS) or f"; it has {listed(NETWORKS)}"
        raise InputError(f"model.name: the zoo has no `{name}`{hint}")
    return NETWORKS[name]


# What runs once is compiled without optimisation: 5 times sooner, for ResNet-18's 21 kernels.
@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options={"xla_backend_optimization_level": 0})
def _draw(
    build: Callable[..., nnx.Module], classes: int, width: float, key: PRNGKeyArray
) -> Params:
    return params_of(build(classes=classes, width=width, rngs=nnx.Rngs(key)))


def _abstract(name: str, classes: int, width: float) -> nnx.Module:
    """The network without its arrays: their shapes only."""
    build = _constructor(name)
    return nnx.eval_shape(lambda: build(classes=classes, width=width, rngs=nnx.Rngs(0)))


def _named(params: Params) -> list[tuple[str, Any, bool]]:
    """Each leaf with its name in PyTorch, and whether it is a kernel, in the leaves' order."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *owner, last = (jax.tree_util.keystr((key,), simple=True) for key in path)
        found.append((".".join([*owner, _NAMES[last]]), leaf, last == "kernel"))
    return found


def _mismatch(name: str, array: np.ndarray, wanted: tuple[tuple[int, ...], bool]) -> str:
    shape, kernel = wanted
    if kernel:
        shape = [shape[axis] for axis in np.argsort(_KERNEL_AXES[len(shape)])]
    return f"`{name}` is {list(array.shape)}, not {list(shape)}"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
