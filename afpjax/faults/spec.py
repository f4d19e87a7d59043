"""What a program with faults is compiled for, and the thresholds that it is given as data."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from afpjax.faults import bits, kinds
from afpjax.faults.sites import inject_sites
from afpjax.network.fixed_point import QFormat
from afpjax.network.layers import Layer, stored


class Thresholds(NamedTuple):
    """How often each bit (or value, or packet) of each layer's operands is faulty.

    A bit flips when its 31-bit uniform draw is below its threshold, so the same draw serves every
    device and every rate (common random numbers). A column for each bit, or where there are rare
    rates (`bits.threshold`) two: of the first words, and of the second ones.
    """

    weights: UInt32[Array, "*P L columns"] | UInt32[np.ndarray, "*P L columns"]
    activations: UInt32[Array, "*P L columns"] | UInt32[np.ndarray, "*P L columns"]
    #: Of values on their way to a stage, by `stages.wires`: uint32 [*P, W], of a rare rate
    #: [*P, W, 2]; None where the link does nothing.
    links: Any = None


@dataclass(frozen=True)
class FaultSpec:
    """What of a fault model is part of the compiled program; rates and sites are data."""

    kind: str = "flip"
    bits: tuple[int, ...] = ()
    generator: str = "hash"
    budget: int | None = None
    scope: str = ""
    length: int = 0  # bits of a burst, values of a packet
    sites: int = 0  # of faults at given sites: how many an operand has room for
    # The same of weights whose products are exchanged in the layer's sums; 0: kernels are faulty.
    exchanged: int = field(default=0, repr=False)
    how: str = "flip"  # what these do to their bits
    shared: str = "stored"  # whose draws weights have: `keepers`
    copies: int = 0  # of a layer's inputs, where devices share out its neurons; 0: they do not
    link: str = field(default="", repr=False)  # what happens to values that cross; "": nothing
    packet: int = field(default=0, repr=False)  # values of a packet that the link loses
    # Thresholds, which names have too, are of two words: of the layers, and of what crosses.
    rare: bool = field(default=False, repr=False)
    rare_link: bool = field(default=False, repr=False)

    def name(self, *, linked: bool) -> str:
        """What tells outcomes apart; the link is no part of those that it did nothing to."""
        return f"{self} link={self.link!r} packet={self.packet}" if linked else str(self)

    @property
    def columns(self) -> int:
        """Words of the thresholds of each layer and target."""
        thresholds = len(self.bits) if kinds.named(self.kind).drawn == "bit" else 1
        return 2 * thresholds if self.rare else thresholds

    @property
    def one_kernel(self) -> bool:
        """Whether every call of a layer reads the layer's own kernel, whatever is faulty."""
        lost = self.copies > 0 and not self.bits  # neurons, and nothing else
        return self.scope == "image" or self.exchanged > 0 or lost

    def of_columns(self, columns: int) -> "FaultSpec":
        """The same for thresholds of so many words for each layer, one each or two."""
        return self if columns == self.columns else replace(self, rare=not self.rare)

    @property
    def link_words(self) -> tuple[int, ...]:
        """The shape of the threshold of a value that crosses."""
        return (2,) if self.rare_link else ()

    def stream(
        self, seed: Array, *, trial: Array, layer: Array, target: int, image: Array
    ) -> UInt32[Array, "... 2"]:
        """The stream of a layer's operand, or of a value on a link; `trial`, `image` may be [B]."""
        scope = self.scope or ("trial" if target == bits.WEIGHTS else "image")
        trial = jnp.zeros_like(trial) if scope == "run" else trial
        number = image if scope == "image" else None
        return bits.stream(seed, trial=trial, layer=layer, target=target, image=number)

    def inject(
        self, fmt: QFormat, codes: Float[Array, "..."], stream: Any, thresholds: Any
    ) -> Float[Array, "..."]:
        """The codes with the faults of one stream; or at `FaultSites`, given for thresholds."""
        if self.sites:
            return inject_sites(self.how, fmt, codes, thresholds)
        if not self.bits:
            return codes
        kind = kinds.named(self.kind)
        draws = kinds.FaultDraws(fmt, codes.shape, stream, thresholds, self.generator, self.length)
        return kind.inject(codes, draws, self.bits)


def keepers(shared: str, layers: Sequence[Layer]) -> Int[np.ndarray, "L"]:
    """By layer, the one whose weights' draws it has: its own, or those of what it shares."""
    return np.array(stored(layers) if shared == "stored" else range(len(layers)), np.int32)
