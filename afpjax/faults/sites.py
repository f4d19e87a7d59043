"""Faults at given places: which bits of which stored words, and what becomes of them."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32

from afpjax.errors import InputError
from afpjax.network.fixed_point import HOW
from afpjax.network.layers import Layer
from afpjax.network.quantized import Quantized

TARGETS = ("weights", "activations")


class Site(NamedTuple):
    """One bit of one stored value: the layer's place, the element, the bit, and of what.

    Elements are row-major in the layer's kernel, or in its read copy of one image's input.
    """

    layer: int
    element: int
    bit: int
    target: str = "weights"

    def __repr__(self) -> str:
        """The same for NumPy's integers: it is shown to people."""
        target = "" if self.target == "weights" else f", target='{self.target}'"
        return (
            f"Site(layer={int(self.layer)}, element={int(self.element)}, "
            f"bit={int(self.bit)}{target})"
        )


class Places(NamedTuple):
    """Struck words of one operand of a layer: `words` says which bits of which elements.

    I is 1, or for activations the number of images where each has places of its own. No element
    stands twice for one image; an element beyond the operand is none (padding).
    """

    layer: int
    target: str
    elements: UInt32[np.ndarray, "I n"]
    words: UInt32[np.ndarray, "I n"]


class Fault(NamedTuple):
    """What one trial is struck by: places in any layers, all flipped, all cleared, or all set."""

    places: tuple[Places, ...]
    how: str = "flip"

    @classmethod
    def at(cls, *sites: Site, how: str = "flip") -> "Fault":
        """The fault of some bits, the same in every image."""
        words: dict[tuple[int, str], dict[int, int]] = {}
        for site in sites:
            of_layer = words.setdefault((int(site.layer), site.target), {})
            element = int(site.element)
            of_layer[element] = of_layer.get(element, 0) | 1 << int(site.bit)
        return cls(
            tuple(
                Places(*operand, _row(struck.keys()), _row(struck.values()))
                for operand, struck in words.items()
            ),
            how,
        )

    @property
    def name(self) -> bytes:
        """What its answer is remembered by: equal for equal faults alone."""
        digest = hashlib.blake2b(self.how.encode(), digest_size=20)
        for layer, target, elements, words in sorted(self.places, key=lambda each: each[:2]):
            digest.update(f"|{layer} {target} {elements.shape}".encode())
            digest.update(elements.tobytes() + words.tobytes())
        return digest.digest()


def _row(values) -> UInt32[np.ndarray, "1 n"]:
    return np.fromiter(values, np.uint32)[None]


def check_sites(sites: Sequence[Site], quantized: Quantized) -> None:
    """Raise `InputError` for the first site that is not in the network."""
    layers, width = quantized.layers, quantized.format.width
    for site in sites:
        if site.target not in TARGETS:
            raise InputError(f"{site}: a target is one of {', '.join(TARGETS)}")
        if not 0 <= site.layer < len(layers):
            raise InputError(f"{site}: the network has the layers 0 to {len(layers) - 1}")
        layer = layers[site.layer]
        last = stored(layer, site.target) - 1
        if not 0 <= site.element <= last:
            raise InputError(f"{site}: layer `{layer.name}` has {site.target} 0 to {last}")
        if not 0 <= site.bit < width:
            raise InputError(f"{site}: the format has the bits 0 to {width - 1}")


def check_fault(fault: Fault, quantized: Quantized, images: int) -> None:
    """Raise `InputError` for a fault that this network, or this many images, cannot have."""
    if fault.how not in HOW:
        raise InputError(f"fault: {fault.how!r} is none of {', '.join(HOW)}")
    for layer, target, elements, words in fault.places:
        check_sites([Site(layer, 0, 0, target)], quantized)
        if elements.shape != words.shape:
            raise InputError(f"fault: {elements.shape} elements, but {words.shape} words")
        allowed = (1,) if target == "weights" else (1, images)
        if len(elements) not in allowed:
            raise InputError(f"fault: {target} of {len(elements)} images, there are {images}")


def stored(layer: Layer, target: str) -> int:
    """How many values of a layer's operand can be struck: weights, or inputs for one image."""
    return layer.weights if target == "weights" else layer.inputs
