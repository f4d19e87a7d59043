"""Networks' arrays under torchvision's names and in PyTorch's layouts, in and out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afpjax.inputs.errors import InputError

Params = dict[Any, Any]  # nested; attribute names and list indices -> ... -> arrays

# Flax's names of a layer's arrays -> PyTorch's.
_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "layer_scale": "layer_scale",
}
# Axes of PyTorch's kernels in Flax's order, by number of axes; the inverse is its argsort.
_KERNEL_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_SHOWN = 3  # tensors named for each kind of mismatch


class _Leaf(NamedTuple):
    """One array of a network, as PyTorch has it."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]  # PyTorch's axes in Flax's order

    def fits(self, array: np.ndarray) -> bool:
        return array.shape == self.shape


def state_dict(params: Params) -> dict[str, np.ndarray]:
    """The arrays under torchvision's names, in PyTorch's layouts (OIHW; outputs x inputs)."""
    leaves = zip(_named(params).items(), jax.tree.leaves(params), strict=True)
    return {
        name: np.asarray(array).transpose(np.argsort(leaf.axes)) for (name, leaf), array in leaves
    }


def from_state_dict(
    arrays: Mapping[str, np.ndarray], shapes: Params, where: str, *, classes: int
) -> Params:
    """Parameters of `shapes`' structure, float32, from tensors in PyTorch's layouts.

    Floats of any width are taken; `num_batches_tracked` is passed over: inference has no use for
    it. Raises one `InputError`, opened by `where`, that names missing, unknown and wrongly shaped
    tensors, or says how many classes the tensors are for where that is all that differs from a
    network of `classes` classes.
    """
    wanted = _named(shapes)
    given = {n: a for n, a in arrays.items() if not n.endswith("num_batches_tracked")}
    problems = _problems(given, wanted)
    other = _other_classes(given, wanted, classes) if set(problems) == {"wrong shape"} else None
    if other is not None:
        raise InputError(
            f"{where}: the file is for {other} classes ({problems['wrong shape'][0]}); set "
            f"model.classes = {other}, or take weights for {classes} classes"
        )
    if problems:
        told = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items())
        raise InputError(f"{where}; {told}; mend model.name or model.width, or the file")
    leaves = [
        jnp.asarray(given[name].transpose(leaf.axes).astype(np.float32))
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(params: Params) -> dict[str, _Leaf]:
    """Each leaf under its name in PyTorch, in the leaves' order."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        *owner, last = (jax.tree_util.keystr((key,), simple=True) for key in path)
        axes = _KERNEL_AXES[leaf.ndim] if last == "kernel" else tuple(range(leaf.ndim))
        shape = tuple(leaf.shape[axis] for axis in np.argsort(axes))
        found[".".join([*owner, _NAMES[last]])] = _Leaf(shape, axes)
    return found


def _problems(given: Mapping[str, np.ndarray], wanted: Mapping[str, _Leaf]) -> dict[str, list[str]]:
    """What keeps tensors from being a network's: kind of problem -> the tensors, in words."""
    both = {n: (given[n], leaf) for n, leaf in wanted.items() if n in given}
    found = {
        "missing": [f"`{n}`" for n in wanted if n not in given],
        "unknown": [f"`{n}`" for n in given if n not in wanted],
        "wrong shape": [
            f"`{n}` is {list(array.shape)}, not {list(leaf.shape)}"
            for n, (array, leaf) in both.items()
            if not leaf.fits(array)
        ],
        "no floats": [
            f"`{n}` ({array.dtype})"
            for n, (array, _) in both.items()
            if not jnp.issubdtype(array.dtype, jnp.floating)
        ],
    }
    return {kind: tensors for kind, tensors in found.items() if tensors}


def _other_classes(
    given: Mapping[str, np.ndarray], wanted: Mapping[str, _Leaf], classes: int
) -> int | None:
    """How many classes tensors are for that fit but for this, the first size of the last ones."""
    different = [
        (given[n].shape, leaf.shape) for n, leaf in wanted.items() if not leaf.fits(given[n])
    ]
    found = {shape[:1] for shape, _ in different}
    same = all(shape[1:] == leaf[1:] and leaf[:1] == (classes,) for shape, leaf in different)
    return next(iter(found))[0] if same and len(found) == 1 and () not in found else None


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
