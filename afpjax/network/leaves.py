"""The arrays among a pytree's leaves: what the parameters of a traced function are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from afpjax.inputs.errors import InputError


@dataclass(frozen=True, eq=False)
class Leaves:
    """A pytree without its arrays: what they are called, where they stand, and all the rest."""

    structure: Any
    paths: tuple[str, ...]  # of every leaf, dotted
    places: tuple[int, ...]  # of the arrays among the leaves
    types: tuple[Any, ...]  # of the arrays, as JAX holds them
    rest: dict[int, Any]  # the leaves that are no arrays, by place

    @property
    def names(self) -> list[str]:
        """The arrays' dotted paths; a lone array is called by its place."""
        return [self.paths[place] or str(place) for place in self.places]

    def restore(self, arrays: Sequence[Any]) -> Any:
        """The whole tree with these arrays, and everything else as it was."""
        leaves = self.rest | dict(zip(self.places, arrays, strict=True))
        return jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(self.paths))])

    def arrays_of(self, tree: Any) -> list[Array]:
        """The arrays (or tracers) of another pytree like this one, in the same order.

        Raises `InputError` for a tree of other leaves, or where an array has another shape or
        dtype.
        """
        paths, leaves, _ = _flat(tree)
        if paths != self.paths:
            strange = sorted({*paths} ^ {*self.paths})
            raise InputError(
                f"the parameters: other leaves ({', '.join(strange[:3]) or 'in another order'}) "
                "than the network was traced with; give the same tree with other arrays"
            )
        arrays = [jnp.asarray(leaves[place]) for place in self.places]
        for name, array, wanted in zip(self.names, arrays, self.types, strict=True):
            if (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
                raise InputError(
                    f"the parameters: {name} is {array.dtype}{list(array.shape)}, but the network "
                    f"was traced with {wanted.dtype}{list(wanted.shape)}"
                )
        return arrays


def take_apart(tree: Any) -> tuple[Leaves, list[Any]]:
    """The arrays of a pytree (JAX's and NumPy's, scalars of NumPy too), and what is left of it."""
    paths, leaves, structure = _flat(tree)
    kinds = (jax.Array, np.ndarray, np.generic)
    rest = {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, kinds)}
    places = tuple(i for i in range(len(leaves)) if i not in rest)
    arrays = [leaves[place] for place in places]
    return Leaves(structure, paths, places, tuple(map(jax.typeof, arrays)), rest), arrays


def _flat(tree: Any) -> tuple[tuple[str, ...], list[Any], Any]:
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    return tuple(_dotted(path) for path, _ in paths), [leaf for _, leaf in paths], structure


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(jax.tree_util.keystr((key,), simple=True) for key in path)
