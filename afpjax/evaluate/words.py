"""What calls are told of their nodes, and of faulty kernels: one row of words of 32 bits for each.

A *layout* is a pytree of shapes, which `pack` and `unpack` agree on: all of a call's arrays go to
the device as one.
"""

from dataclasses import replace
from math import gcd, prod
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, UInt32

from afpjax.faults.sites import FaultSites
from afpjax.faults.spec import FaultSpec
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized
from afpjax.network.stages import Stage


class CallSizes(NamedTuple):
    """What calls have room for. With one slot, every node is a call."""

    images: int
    rows: int  # of a chunk, where there are several slots
    slots: int  # of a table
    nodes: int  # of a tile at most
    kernel_bytes: int = 0  # of the faulty kernels that are made in one step, if several

    @property
    def kernels(self) -> int:
        """Faulty kernels that are made in one call, behind the layer's own if there are several."""
        return 1 if self.slots == 1 else self.rows

    def kernels_of(self, codes: Array) -> int:
        """How many of one layer's are made in one step; a power of two that divides them all."""
        fitting = min(self.kernels, max(1, self.kernel_bytes // (4 * codes.size)))
        return gcd(self.kernels, 1 << (fitting.bit_length() - 1))


class NodeWords(NamedTuple):
    """What a call is told of each node; words of 32 bits, one row for each."""

    parents: Any  # places in the parents' tables [parents]
    trial: Any  # its place among the chunk's trials
    kernel: Any  # its place among the call's kernels
    thresholds: Any = None  # of the layer's inputs, or `FaultSites`
    #: Of its weights: thresholds, where every image has a kernel of its own, or `FaultSites`, where
    #: products are exchanged.
    weights: Any = None
    answering: Any = None  # by neuron, the read copy that it is computed from
    links: Any = None  # thresholds of what it reads


class KernelWords(NamedTuple):
    """What is told of a faulty kernel."""

    trial: Any  # its number
    faults: Any  # thresholds, or `FaultSites`


def node_layout(spec: FaultSpec, quantized: Quantized, stage: Stage, sizes: CallSizes) -> NodeWords:
    """The shapes of a node's words; within a budget every image has thresholds of its own."""
    words = NodeWords((len(stage.inputs),), (), ())
    if stage.layer is not None:
        layer = quantized.layers[stage.layer]
        copies = (spec.copies,) if spec.copies else ()
        of_image = (sizes.images,) if spec.budget is not None else ()
        thresholds: Any = (*of_image, *copies, spec.columns)
        if spec.sites:
            thresholds = FaultSites((sizes.images, spec.sites), (sizes.images, spec.sites))
        neurons = (layer.neurons,) if spec.copies else ()
        weights: Any = None
        if spec.exchanged:
            weights = sites_layout(spec.exchanged)
        elif spec.scope == "image" and spec.bits:
            weights = (*neurons, spec.columns)
        words = words._replace(
            thresholds=thresholds,
            weights=weights,
            answering=neurons or None,
        )
    if spec.link and stage.parents:
        words = words._replace(links=(len(stage.inputs), *spec.link_words))
    return words


def kernel_layout(spec: FaultSpec, call: LayerCall) -> KernelWords:
    """The shapes of the words of a faulty kernel at rates."""
    neurons = (call.layer.neurons,) if spec.copies else ()
    return KernelWords((), (*neurons, replace(spec, sites=0).columns))


def _is_shape(layout: Any) -> bool:
    return layout is None or (type(layout) is tuple and all(isinstance(n, int) for n in layout))


def width(layout: Any) -> int:
    """How many words a row has."""
    return sum(
        prod(shape) for shape in jax.tree.leaves(layout, is_leaf=_is_shape) if shape is not None
    )


def pack(
    layout: Any, arrays: Any, rows: int, places: Any = slice(None)
) -> UInt32[np.ndarray, "rows W"]:
    """Arrays [n, …] as rows of words, at their places among so many rows."""
    shapes = [s for s in jax.tree.leaves(layout, is_leaf=_is_shape) if s is not None]
    leaves = jax.tree.leaves(arrays)
    words = np.zeros((rows, width(layout)), np.uint32)
    start = 0
    for shape, leaf in zip(shapes, leaves, strict=True):
        size = prod(shape)
        own = np.asarray(leaf)
        own = own.astype(np.int32).view(np.uint32) if own.dtype != np.uint32 else own
        words[places, start : start + size] = own.reshape(len(own), size)
        start += size
    return words


def unpack(layout: Any, words: UInt32[Array, "n W"]) -> Any:
    """What `pack` was given, as arrays of words."""
    leaves, tree = jax.tree.flatten(layout, is_leaf=_is_shape)
    arrays, start = [], 0
    for shape in leaves:
        size = 0 if shape is None else prod(shape)
        own = words[:, start : start + size]
        arrays.append(None if shape is None else own.reshape(len(words), *shape))
        start += size
    return jax.tree.unflatten(tree, arrays)


def sites_layout(sites: int) -> FaultSites:
    """The shapes of the words of a kernel with so many sites."""
    return FaultSites((sites,), (sites,))
