"""The built-in cost model: a roofline per layer and device, and the link per tensor.

latency = max(MACs / active lanes / clock, DRAM bytes / bandwidth)
energy  = MACs and accesses per level x energy per access
Active lanes come from `lanes.py`, accesses from `memory_traffic.py`. What is no layer (ReLU,
pooling, sums) costs nothing, as with CNNParted, whose published tables this model is tested
against.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from afpjax.hardware.importers import read_layer_table, replace_column
from afpjax.hardware.lanes import active_lanes
from afpjax.hardware.memory_traffic import Sizes, dram_bytes, energy_pj, layer_traffic
from afpjax.hardware.platform import Device, Platform
from afpjax.hardware.tables import CostTables, Shared
from afpjax.inputs.toml_tables import need
from afpjax.network.layers import Layer, LayerGraph


def layer_cost(
    layer: Layer, device: Device, sizes: Sizes | None = None, *, lanes: int = 0
) -> tuple[float, float]:
    """(latency in ms, energy in mJ) of one layer for one batch.

    `lanes` > 0 sets the multiply-accumulates per cycle, where a mapper's own choice is known;
    0 takes the model's. The energy stays that of the model's mapping.
    """
    sizes = sizes or Sizes()
    traffic = layer_traffic(layer, device, sizes)
    cycles = sizes.batch * layer.macs / (lanes or active_lanes(layer, device.array))
    compute_ms = cycles / (device.clock_mhz * 1e3)
    memory_ms = dram_bytes(traffic, sizes) / (device.dram_gb_s * 1e6)
    return max(compute_ms, memory_ms), energy_pj(traffic, layer, device, sizes) * 1e-9


def cost_tables(
    graph: LayerGraph,
    platform: Platform,
    *,
    weight_bits: int = 16,
    activation_bits: int = 16,
    batch: int = 1,
) -> CostTables:
    """What every layer costs on every device, for one batch of `batch` images.

    A device with a `layer_table` takes its column from there (figures of one image, so x batch).
    InputError: no layers, sizes below 1.
    """
    need(len(graph.layers) > 0, "the network has no layers: there is nothing to place")
    sizes = Sizes(weight_bits, activation_bits, batch)
    for name, value in sizes._asdict().items():
        need(value >= 1, f"{name} is {value}: give 1 or more")
    devices = platform.devices
    costs = np.array([[layer_cost(layer, d, sizes) for d in devices] for layer in graph.layers])
    _refuse_overflow(graph, platform, costs)
    tables = _assemble(graph, platform, sizes, costs)
    for column, device in enumerate(devices):
        if device.layer_table:
            rows = read_layer_table(Path(device.layer_table))
            tables = replace_column(tables, column, graph, rows, batch=batch)
    return tables


def _refuse_overflow(graph: LayerGraph, platform: Platform, costs: np.ndarray) -> None:
    """Figures that are finite, each by itself, may still multiply to what is no number."""
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(costs.astype(np.float32)))
    if len(bad):
        layer, device, which = bad[0]
        what = ("latency in ms", "energy in mJ")[which]
        need(
            False,
            f"device `{platform.names[device]}`: the {what} of layer {graph.names[layer]} is no "
            "finite number; mend its clock, bandwidth or energies",
        )
    link = platform.link
    most = max((tensor.elements for tensor in graph.tensors), default=1) * 8
    finite = np.isfinite(np.array([link.transfer_ms(most), link.transfer_mj(most)])).all()
    need(bool(finite), f"link `{link.name}`: a transfer takes no finite time or energy; mend it")


def _assemble(graph: LayerGraph, platform: Platform, sizes: Sizes, costs: np.ndarray) -> CostTables:
    layers, tensors, link = graph.layers, graph.tensors, platform.link

    def activation_bytes(elements: int) -> int:
        return -(-sizes.batch * elements * sizes.activation_bits // 8)

    sent = [activation_bytes(tensor.elements) for tensor in tensors]
    consumers = np.zeros((len(tensors), len(layers)), bool)
    for row, tensor in enumerate(tensors):
        consumers[row, list(tensor.consumers)] = True
    weights = [-(-(layer.weights + layer.biases) * sizes.weight_bits // 8) for layer in layers]
    held = [activation_bytes(layer.inputs + layer.outputs) for layer in layers]
    return CostTables(
        latency_ms=jnp.asarray(costs[:, :, 0], jnp.float32),
        energy_mj=jnp.asarray(costs[:, :, 1], jnp.float32),
        weight_bytes=jnp.asarray(weights, jnp.float32),
        activation_bytes=jnp.asarray(held, jnp.float32),
        capacity_bytes=jnp.asarray([d.memory_bytes for d in platform.devices], jnp.float32),
        producers=jnp.asarray([tensor.producer for tensor in tensors], jnp.int32),
        consumers=jnp.asarray(consumers),
        link_latency_ms=jnp.asarray([link.transfer_ms(size) for size in sent], jnp.float32),
        link_energy_mj=jnp.asarray([link.transfer_mj(size) for size in sent], jnp.float32),
        shared=_shared(graph, sizes),
    )


def _shared(graph: LayerGraph, sizes: Sizes) -> Shared | None:
    own, places = np.array(graph.stored), np.arange(len(graph.layers))
    if (own == places).all():
        return None
    kernels = [-(-layer.weights * sizes.weight_bits // 8) for layer in graph.layers]
    return Shared(
        jnp.asarray(np.equal.outer(own, own) & (places[None] < places[:, None])),
        jnp.asarray(np.where(own < places, kernels, 0), jnp.float32),
    )
