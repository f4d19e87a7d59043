# pyright: reportMissingImports=false
"""Several trials at once in PyTorch: `torch.func.vmap` over their masks, compiled as one program.

The masks are those of the loop over bits, drawn in the same program for all trials. A convolution
whose kernels differ from trial to trial becomes one with groups.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.rivals import plain
from benchmarks.rivals.plain import INPUTS, WEIGHTS, Draw, Fixed
from benchmarks.rivals.torch_networks import STEP, linear

#: By (layer, WEIGHTS or INPUTS), int16; of several trials with an axis before the others.
Masks = Mapping[tuple[str, str], Tensor]


def struck(made: Fixed, masks: Masks) -> Tensor:
    """Logits of one trial with these masks: nothing is written in place that trials share."""

    def layer(name: str, inputs: Tensor) -> Tensor:
        codes = _encode(inputs) ^ masks[name, INPUTS]
        weight = plain.decode(made.codes[name] ^ masks[name, WEIGHTS])
        return linear(made.net.kernels[name], plain.decode(codes), weight, made.biases[name])

    return made.net.run(layer)


class Vmapped:
    """A network that runs `trials` trials at once; `draw` gives all trials' masks in one tensor."""

    def __init__(self, made: Fixed, draw: Draw, trials: int, *, compiled: bool = True) -> None:
        like = _codes(made)

        def run() -> Tensor:
            masks = {key: draw(*key, codes.expand(trials, *codes.shape)) for key, codes in like}
            return torch.func.vmap(lambda own: struck(made, own))(masks)

        self.run = torch.compile(run) if compiled else run


def _encode(values: Tensor) -> Tensor:
    """`plain.encode` without its operations in place, for which `vmap` has no rule of their own."""
    return (values * (1 / STEP)).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


def _codes(made: Fixed) -> list[tuple[tuple[str, str], Tensor]]:
    """Codes as every mask is shaped."""
    found: dict[tuple[str, str], Tensor] = {}

    def shaped(name: str, target: str, codes: Tensor) -> Tensor:
        found[name, target] = torch.zeros_like(codes)
        return found[name, target]

    plain.struck(made, shaped)
    return list(found.items())
