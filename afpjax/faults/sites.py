"""Faults at given places: which bits of which stored words, and what becomes of them."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32

from afpjax.faults.model import keepers
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import HOW
from afpjax.network.layers import Layer
from afpjax.network.quantized import Quantized

TARGETS = ("weights", "activations")
NOWHERE = 2**32 - 1  # an element beyond every operand


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
    stands twice for one image; `NOWHERE` is none (padding).
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
        """The fault of some bits, the same in every image.

        Raises `InputError` for elements and bits that no operand and no format has.
        """
        words: dict[tuple[int, str], dict[int, int]] = {}
        for site in sites:
            if not (0 <= site.element < NOWHERE and 0 <= site.bit < 32):
                raise InputError(f"{site}: elements and bits are counted from 0, bits to 31")
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
        """What its answer is remembered by: equal for equal faults alone, in whatever order."""
        digest = hashlib.blake2b(self.how.encode(), digest_size=20)
        for layer, target, *places in sorted(self.places, key=lambda each: each[:2]):
            order = np.argsort(places[0], axis=1)
            digest.update(f"|{layer} {target} {order.shape}".encode())
            for each in places:
                digest.update(np.take_along_axis(each, order, axis=1).tobytes())
        return digest.digest()


def _row(values) -> UInt32[np.ndarray, "1 n"]:
    return np.fromiter(values, np.uint32)[None]


def wherever_read(fault: Fault, layers: Sequence[Layer]) -> Fault:
    """The fault with those of a stored kernel in every layer call that reads it.

    Places that are named in two of the calls are one place each, its bits together.
    """
    own = keepers("stored", layers)
    if len(set(own.tolist())) == len(own):
        return fault
    of_kernel: dict[int, list[Places]] = {}
    others = [places for places in fault.places if places.target != "weights"]
    for places in fault.places:
        if places.target == "weights" and 0 <= places.layer < len(layers):
            of_kernel.setdefault(int(own[places.layer]), []).append(places)
        elif places.target == "weights":
            others.append(places)  # which is refused, by its layer
    struck = [
        _together(each)._replace(layer=layer)
        for number, each in of_kernel.items()
        for layer in np.flatnonzero(own == number).tolist()
    ]
    return fault._replace(places=(*struck, *others))


def _together(each: Sequence[Places]) -> Places:
    """Places of one kernel, named for one call or several, as one."""
    if len(each) == 1:
        return each[0]
    words: dict[int, int] = {}
    for places in each:
        for element, word in zip(places.elements.ravel(), places.words.ravel(), strict=True):
            words[int(element)] = words.get(int(element), 0) | int(word)
    return each[0]._replace(elements=_row(words.keys()), words=_row(words.values()))


def check_sites(sites: Sequence[Site], layers: Sequence[Layer], width: int) -> None:
    """Raise `InputError` for the first site that layers, with numbers of `width` bits, lack."""
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
    operands = [(places.layer, places.target) for places in fault.places]
    if len(set(operands)) < len(operands):
        raise InputError("fault: an operand is named twice; give all of its places together")
    for places in fault.places:
        site = Site(places.layer, 0, 0, places.target)
        check_sites([site], quantized.layers, quantized.format.width)
        _check_shapes(places, images)
        _check_places(places, quantized)


def _check_shapes(places: Places, images: int) -> None:
    elements, words = places.elements, places.words
    if any(each.dtype != np.uint32 or each.ndim != 2 for each in (elements, words)):
        raise InputError("fault: elements and words are uint32 [images, places]")
    if elements.shape != words.shape:
        raise InputError(f"fault: {elements.shape} elements, but {words.shape} words")
    if len(elements) not in ((1,) if places.target == "weights" else (1, images)):
        raise InputError(f"fault: {places.target} of {len(elements)} images, there are {images}")


def _check_places(places: Places, quantized: Quantized) -> None:
    """Every element of every image at once."""
    layer, width = quantized.layers[places.layer], quantized.format.width
    operand = f"fault: layer `{layer.name}`, {places.target}"
    elements, last = np.sort(places.elements, axis=1), stored(layer, places.target) - 1
    beyond = elements[(elements > last) & (elements != NOWHERE)]
    if beyond.size:
        raise InputError(f"{operand}: element {beyond[0]} is none of 0 to {last}")
    twice = elements[:, 1:][(elements[:, 1:] == elements[:, :-1]) & (elements[:, 1:] <= last)]
    if twice.size:
        raise InputError(f"{operand}: element {twice[0]} is struck twice in one image")
    if (places.words >> np.uint32(width - 1) > 1).any():
        raise InputError(f"{operand}: the format has the bits 0 to {width - 1}")


def stored(layer: Layer, target: str) -> int:
    """How many values of a layer's operand can be struck: weights, or inputs for one image."""
    return layer.weights if target == "weights" else layer.inputs
