"""How many faults an experiment expects in all its trials: rates × sites × draws, nothing drawn.

Where that is less than one, what comes out is most likely the network without faults, however
narrow its interval. A bit that sticks at the value it has counts as a fault here.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from afpjax.campaigns.masks import Cell, rates_of
from afpjax.faults import kinds
from afpjax.faults.model import FaultModel, layer_mask
from afpjax.faults.sites import size
from afpjax.faults.spec import keepers
from afpjax.network.layers import Layer, LayerGraph, Tensor
from afpjax.network.quantized import Quantized

WEIGHTS, ACTIVATIONS = "weights", "activations"


def under_mapping(
    faults: FaultModel,
    quantized: Quantized,
    mapping: Int[np.ndarray, "L"],
    *,
    trials: int,
    images: int,
) -> float:
    """Faults in layers and links, with every layer on its device, in all trials and images.

    A budget caps what one inference meets.
    """
    layers, faulty = quantized.layers, layer_mask(faults, quantized.graph)
    total = 0.0
    for target in (WEIGHTS, ACTIVATIONS):
        rates = faults.rates(target.removesuffix("s"))
        of_layer = rates.sum(axis=1)[np.minimum(mapping, len(rates) - 1)] * faulty
        if target == WEIGHTS:
            of_layer = _once(of_layer, keepers(faults.shared, layers))
        of_draw = float((of_layer * sites(faults, layers, target)).sum())
        total += of_draw * draws(faults, target, trials, images)
    cap = np.inf if faults.budget is None else faults.budget * trials * images
    crossing = _on_links(faults, quantized, mapping)
    return min(total, cap) + crossing * draws(faults, ACTIVATIONS, trials, images)


def _once(rates: Float[np.ndarray, "L"], keepers: Int[np.ndarray, "L"]) -> Float[np.ndarray, "L"]:
    """Rates of kernels that layers share at the first of these, the highest of theirs."""
    highest = np.zeros_like(rates)
    np.maximum.at(highest, keepers, rates)
    return highest


def in_cell(
    faults: FaultModel, cell: Cell, layers: Sequence[Layer], *, trials: int, images: int
) -> float:
    """Faults of a campaign's cell in all its masks and images."""
    rate = rates_of(faults, cell)[list(cell.columns)].sum()
    exposed = sites(faults, layers, cell.target)[list(cell.layers)].sum()
    return float(rate * exposed) * draws(faults, cell.target, trials, images)


def sites(faults: FaultModel, layers: Sequence[Layer], target: str) -> Float[np.ndarray, "L"]:
    """What has a draw for each bit, or one draw: elements of each layer's operand, or packets."""
    lost = kinds.named(faults.kind).drawn == "packet"
    counts = [size(layer, target) for layer in layers]
    return np.array([_packets(faults, count, lost) for count in counts])


def draws(faults: FaultModel, target: str, trials: int, images: int) -> int:
    """How often one operand is drawn anew in so many trials of so many images."""
    scope = faults.scope or ("trial" if target == WEIGHTS else "image")
    return {"run": 1, "trial": trials, "image": trials * images}[scope]


def _packets(faults: FaultModel, elements: int, lost: bool) -> float:
    return float(-(-elements // faults.packet) if lost else elements)


def _on_links(faults: FaultModel, quantized: Quantized, mapping: Int[np.ndarray, "L"]) -> float:
    """Faults of one image in what crosses from device to device."""
    if not faults.corrupts_link:
        return 0.0
    bits = faults.link_kind == "bits"
    sent = (tensor.elements for tensor in _crossing(quantized.graph, mapping))
    exposed = sum(_packets(faults, elements, lost=not bits) for elements in sent)
    return exposed * faults.link_rate * (quantized.format.width if bits else 1)


def _crossing(graph: LayerGraph, mapping: Int[np.ndarray, "L"]) -> list[Tensor]:
    return [
        tensor
        for tensor in graph.tensors
        if tensor.producer >= 0
        and any(mapping[reader] != mapping[tensor.producer] for reader in tensor.consumers)
    ]
