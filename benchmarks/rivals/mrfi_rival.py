# pyright: reportMissingImports=false
"""MRFI 2.1.0 with AFarePart's fault model as a custom error mode, in every layer.

Two of its habits need care. It writes into the tensors that a layer reads, so layers whose input is
read again get a copy. Its own fixed-point format has 2^15 - 1 codes for 128, not two's complement's
2^15, so it gets a quantisation of Q8.8, by the same interface.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mrfi
import torch
from torch import Tensor

from benchmarks.rivals.plain import INPUTS, STEP, WEIGHTS, Draw
from benchmarks.rivals.torch_networks import Module, Net, module_name, read_twice


class Q88:
    """Two's complement with 8 fraction bits, in place, as MRFI wants its quantisations."""

    @staticmethod
    def quantize(x: Tensor) -> None:
        x.mul_(1 / STEP).round_().clamp_(-(2**15), 2**15 - 1)

    @staticmethod
    def dequantize(x: Tensor) -> None:
        x.mul_(STEP)


class Injected:
    """A network under MRFI whose masks come from `draw`, which may be changed."""

    def __init__(self, net: Net, draw: Draw) -> None:
        self.draw, self.images = draw, net.images
        method = f"afpjax-{id(self)}"  # MRFI keeps error modes in one table for the process
        mrfi.add_function(method, self._strike)
        mrfi.add_function("afpjax-q88", Q88)
        entries = [
            _entry(method, layer, target) for layer in net.kernels for target in (WEIGHTS, INPUTS)
        ]
        model = Module(net, own_copies=read_twice(net.name))
        with torch.no_grad():
            for name, kernel in net.kernels.items():  # the accumulator's grid, for agreement
                grid = (kernel.bias / STEP**2).round() * STEP**2
                getattr(model, module_name(name)).bias.copy_(grid)
        self.model = mrfi.MRFI(model, mrfi.EasyConfig({"faultinject": entries}))

    def struck(self) -> Tensor:
        return self.model(self.images)

    def clean_fixed(self) -> Tensor:
        with self.model.golden_run():
            return self.model(self.images)

    @contextmanager
    def drawing(self, draw: Draw) -> Iterator[None]:
        """Masks from another draw inside `with`."""
        own, self.draw = self.draw, draw
        yield
        self.draw = own

    def _strike(self, values: Tensor, layer: str, target: str) -> Tensor:
        codes = values.to(torch.int16)  # flat: MRFI selects all values of the tensor
        mask = self.draw(layer, target, codes).reshape(-1)
        return codes.bitwise_xor_(mask).to(values.dtype)


def _entry(method: str, layer: str, target: str) -> dict:
    return {
        "type": "weight" if target == WEIGHTS else "activation",
        "quantization": {"method": "afpjax-q88", "layerwise": True},
        "error_mode": {"method": method, "layer": layer, "target": target},
        "module_fullname": module_name(layer),
    }
