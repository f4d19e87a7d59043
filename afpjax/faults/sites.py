"""Single faults: one bit of one weight, named by where it is."""

from collections.abc import Sequence
from typing import NamedTuple

from afpjax.errors import InputError
from afpjax.network.quantized import Quantized


class Site(NamedTuple):
    """One bit of one weight: the layer's place, the element (row-major in its kernel), the bit."""

    layer: int
    element: int
    bit: int

    def __repr__(self) -> str:
        """The same for NumPy's integers: it is what an answer is remembered by."""
        return f"Site(layer={int(self.layer)}, element={int(self.element)}, bit={int(self.bit)})"


def check_sites(sites: Sequence[Site], quantized: Quantized) -> None:
    """Raise `InputError` for the first site that is not in the network."""
    layers, width = quantized.layers, quantized.format.width
    for site in sites:
        if not 0 <= site.layer < len(layers):
            raise InputError(f"{site}: the network has the layers 0 to {len(layers) - 1}")
        if not 0 <= site.element < layers[site.layer].weights:
            last = layers[site.layer].weights - 1
            raise InputError(f"{site}: layer `{layers[site.layer].name}` has weights 0 to {last}")
        if not 0 <= site.bit < width:
            raise InputError(f"{site}: the format has the bits 0 to {width - 1}")
