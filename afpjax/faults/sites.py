"""Faults at given sites: which bits of which stored words, and what becomes of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, UInt32

from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import HOW, QFormat, change
from afpjax.network.layers import Layer, stored
from afpjax.network.program import LayerCall
from afpjax.network.quantized import Quantized
from afpjax.network.taps import exchange

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


@partial(jax.tree_util.register_dataclass, data_fields=["elements", "words"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class FaultSites:
    """Faulty bits of one operand: `words` says which bits of which elements.

    uint32 [I, n], where I is 1, or for activations the number of images where each has sites of its
    own; [D, I, n] where devices run a trial each. No element stands twice for one image; `NOWHERE`
    is none (padding).
    """

    elements: Any
    words: Any

    @cached_property
    def key(self) -> bytes:
        """Equal for equal sites, so that a plan can tell them apart."""
        return repr(self.elements.shape).encode() + self.elements.tobytes() + self.words.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FaultSites) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Fault(NamedTuple):
    """The faults of one trial: sites by layer and target, all flipped, all cleared, or all set."""

    sites: Mapping[tuple[int, str], FaultSites]
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
            of_operand = words.setdefault((int(site.layer), site.target), {})
            element = int(site.element)
            of_operand[element] = of_operand.get(element, 0) | 1 << int(site.bit)
        return cls({operand: _sites(by_element) for operand, by_element in words.items()}, how)

    @property
    def name(self) -> bytes:
        """What its outcome is remembered by: equal for equal faults alone, in whatever order."""
        digest = hashlib.blake2b(self.how.encode(), digest_size=20)
        for (layer, target), sites in sorted(self.sites.items(), key=lambda item: item[0]):
            order = np.argsort(sites.elements, axis=1)
            digest.update(f"|{layer} {target} {order.shape}".encode())
            for part in (sites.elements, sites.words):
                digest.update(np.take_along_axis(part, order, axis=1).tobytes())
        return digest.digest()


def _sites(words: Mapping[int, int]) -> FaultSites:
    """Sites that are the same in every image, from each element's word."""
    return FaultSites(*(np.fromiter(e, np.uint32)[None] for e in (words.keys(), words.values())))


def inject_sites(
    how: str, fmt: QFormat, codes: Float[Array, "..."], sites: FaultSites
) -> Float[Array, "..."]:
    """The codes with some bits of some elements [n] flipped, cleared or set.

    An element beyond the tensor is none: sites are padded to a fixed number.
    """
    flat, elements = codes.reshape(-1), sites.elements
    read = flat.at[elements].get(mode="fill", fill_value=0)
    words = lax.bitcast_convert_type(sites.words, jnp.int32)
    return flat.at[elements].set(change(fmt, read, words, how), mode="drop").reshape(codes.shape)


def exchange_sites(
    how: str,
    fmt: QFormat,
    call: LayerCall,
    sites: FaultSites,
    codes: Float[Array, "..."],
    kernel: Float[Array, "..."],
    total: Float[Array, "..."],
) -> Float[Array, "..."]:
    """A layer's sums with some bits of some of its weights [n] flipped, cleared or set.

    What `inject_sites` does to the kernel, done to the sums `total` of `codes` and the kernel as it
    is (`taps.exchange`): many faults are then sums of one kernel.
    """
    there = sites.elements < np.uint32(kernel.size)
    words = jnp.where(there, lax.bitcast_convert_type(sites.words, jnp.int32), jnp.int32(0))
    old = kernel.reshape(-1).at[sites.elements].get(mode="fill", fill_value=0)
    new = change(fmt, old, words, how)
    for site in range(len(words)):
        total = exchange(call, codes, total, sites.elements[site], old[site], new[site])
    return total


def wherever_read(fault: Fault, layers: Sequence[Layer]) -> Fault:
    """The fault with those of a stored kernel in every layer call that reads it.

    Sites that are named in two of the calls are one each, their bits together.
    """
    own = stored(layers)
    if len(set(own)) == len(own):
        return fault
    of_kernel: dict[int, list[FaultSites]] = {}
    spread: dict[tuple[int, str], FaultSites] = {}
    for (layer, target), sites in fault.sites.items():
        if target == "weights" and 0 <= layer < len(layers):
            of_kernel.setdefault(own[layer], []).append(sites)
        else:
            spread[layer, target] = sites  # or weights of no layer, which are refused
    for keeper, several in of_kernel.items():
        for layer in np.flatnonzero(np.equal(own, keeper)).tolist():
            spread[layer, "weights"] = _together(several)
    return fault._replace(sites=spread)


def _together(several: Sequence[FaultSites]) -> FaultSites:
    """Sites of one kernel, named for one call or several, as one."""
    if len(several) == 1:
        return several[0]
    words: dict[int, int] = {}
    for sites in several:
        for element, word in zip(sites.elements.ravel(), sites.words.ravel(), strict=True):
            words[int(element)] = words.get(int(element), 0) | int(word)
    return _sites(words)


def check_site(site: Site, layers: Sequence[Layer], width: int) -> None:
    """Raise `InputError` for a site that layers, with numbers of `width` bits, lack."""
    if site.target not in TARGETS:
        raise InputError(f"{site}: a target is one of {', '.join(TARGETS)}")
    if not 0 <= site.layer < len(layers):
        raise InputError(f"{site}: the network has the layers 0 to {len(layers) - 1}")
    layer = layers[site.layer]
    last = size(layer, site.target) - 1
    if not 0 <= site.element <= last:
        raise InputError(f"{site}: layer `{layer.name}` has {site.target} 0 to {last}")
    if not 0 <= site.bit < width:
        raise InputError(f"{site}: the format has the bits 0 to {width - 1}")


def check_fault(fault: Fault, quantized: Quantized, images: int) -> None:
    """Raise `InputError` for a fault that this network, or this many images, cannot have."""
    if fault.how not in HOW:
        raise InputError(f"fault: {fault.how!r} is none of {', '.join(HOW)}")
    for (layer, target), sites in fault.sites.items():
        check_site(Site(layer, 0, 0, target), quantized.layers, quantized.format.width)
        elements, words = sites.elements, sites.words
        if any(part.dtype != np.uint32 or part.ndim != 2 for part in (elements, words)):
            raise InputError("fault: elements and words are uint32 [images, sites]")
        if elements.shape != words.shape:
            raise InputError(f"fault: {elements.shape} elements, but {words.shape} words")
        if len(elements) not in ((1,) if target == "weights" else (1, images)):
            raise InputError(f"fault: {target} of {len(elements)} images, there are {images}")
        operand = f"fault: layer `{quantized.layers[layer].name}`, {target}"
        last = size(quantized.layers[layer], target) - 1
        _check_elements(operand, np.sort(elements, axis=1), last)
        if (words >> np.uint32(quantized.format.width - 1) > 1).any():
            raise InputError(
                f"{operand}: the format has the bits 0 to {quantized.format.width - 1}"
            )


def _check_elements(operand: str, elements: UInt32[np.ndarray, "I n"], last: int) -> None:
    """Every element of every image at once, in ascending order."""
    beyond = elements[(elements > last) & (elements != NOWHERE)]
    if beyond.size:
        raise InputError(f"{operand}: element {beyond[0]} is none of 0 to {last}")
    twice = elements[:, 1:][(elements[:, 1:] == elements[:, :-1]) & (elements[:, 1:] <= last)]
    if twice.size:
        raise InputError(f"{operand}: element {twice[0]} is faulty twice in one image")


def size(layer: Layer, target: str) -> int:
    """How many values of a layer's operand can be faulty: weights, or inputs for one image."""
    return layer.weights if target == "weights" else layer.inputs
