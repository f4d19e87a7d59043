"""The cost of a mapping against plain loops over layers, tensors and devices."""

import dataclasses
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.hardware import (
    CostTables,
    Platform,
    check_capacity,
    cost_tables,
    load_device,
    load_link,
    mapping_cost,
)
from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph, Tensor
from afpjax.network.trace import trace


class Expected(NamedTuple):
    latency_ms: float
    energy_mj: float
    link_latency_ms: float
    link_energy_mj: float
    violation: float


def by_loops(tables: CostTables, mapping: list[int]) -> Expected:
    """The docstring of `mapping_cost`, step by step."""
    t = SimpleNamespace(**{k: np.asarray(v, np.float64) for k, v in tables._asdict().items()})
    latency = energy = link_latency = link_energy = violation = 0.0
    for layer, device in enumerate(mapping):
        latency += t.latency_ms[layer, device]
        energy += t.energy_mj[layer, device]
    for tensor, producer in enumerate(t.producers.astype(int)):
        if producer < 0:
            continue
        readers = {mapping[layer] for layer in np.flatnonzero(t.consumers[tensor])}
        for _ in readers - {mapping[producer]}:
            link_latency += t.link_latency_ms[tensor]
            link_energy += t.link_energy_mj[tensor]
    for device, capacity in enumerate(t.capacity_bytes):
        mine = [layer for layer, where in enumerate(mapping) if where == device]
        used = sum(t.weight_bytes[layer] for layer in mine)
        used += max((t.activation_bytes[layer] for layer in mine), default=0.0)
        violation += max(0.0, used - capacity) / capacity
    return Expected(
        latency + link_latency, energy + link_energy, link_latency, link_energy, violation
    )


def random_tables(rng: np.random.Generator, layers: int, devices: int) -> CostTables:
    """A graph in which values are read by several later layers, and layers read several values."""
    producers, consumers = [-1], [[layer == 0 for layer in range(layers)]]
    for producer in (*range(-1, layers - 1), *rng.integers(-1, layers - 1, 3)):
        reads = rng.random(layers) < 0.4
        reads[: producer + 1] = False
        reads[producer + 1] = True
        producers.append(int(producer))
        consumers.append(reads.tolist())
    tensors = len(producers)

    def drawn(*shape: int) -> jnp.ndarray:
        return jnp.asarray(rng.uniform(0.1, 3.0, shape), jnp.float32)

    return CostTables(
        latency_ms=drawn(layers, devices),
        energy_mj=drawn(layers, devices),
        weight_bytes=drawn(layers),
        activation_bytes=drawn(layers),
        capacity_bytes=drawn(devices),
        producers=jnp.asarray(producers, jnp.int32),
        consumers=jnp.asarray(consumers),
        link_latency_ms=drawn(tensors),
        link_energy_mj=drawn(tensors),
    )


@pytest.mark.parametrize(("layers", "devices", "dtype"), [(9, 3, jnp.int32), (6, 5, jnp.int8)])
def test_any_mapping_of_any_graph_costs_what_loops_say(layers, devices, dtype):
    """The link once, each value once per device that reads it, and memory that is too small."""
    rng = np.random.default_rng(layers * 10 + devices)
    tables = random_tables(rng, layers, devices)
    mappings = rng.integers(0, devices, (50, layers))
    costs = jax.jit(jax.vmap(mapping_cost, (None, 0)))(tables, jnp.asarray(mappings, dtype))
    for row, mapping in enumerate(mappings.tolist()):
        expected = by_loops(tables, mapping)
        for name in Expected._fields:
            got = float(getattr(costs, name)[row])
            assert got == pytest.approx(getattr(expected, name), rel=1e-5, abs=1e-6), name


def platform(*names: str, **changes) -> Platform:
    devices = (dataclasses.replace(load_device(name), **changes) for name in names)
    return Platform(tuple(devices), load_link("ethernet-1g"))


def branched(params, images):
    """stem -> left, right; their concatenation -> join; stem + join -> head."""
    stem = images @ params["stem"]
    both = jnp.concatenate([stem @ params["left"], stem @ params["right"]], axis=1)
    return (stem + both @ params["join"]) @ params["head"]


def test_residual_and_concatenated_inputs_cross_once_per_device():
    """A traced network of five layers with every value of 16 bits; sizes tell the tensors apart."""
    widths = dict(stem=(4, 100), left=(100, 30), right=(100, 7), join=(37, 100), head=(100, 3))
    params = {name: jnp.ones(shape) for name, shape in widths.items()}
    network = trace(branched, params, jnp.ones((1, 4)))
    assert network.graph.names == ("stem", "left", "right", "join", "head")
    wire = dataclasses.replace(
        load_link("ucie"), bandwidth_gbit_s=1e-3, latency_us=0.0
    )  # a bit per microsecond
    devices = platform("eyeriss", "simba", "simba-ecc").devices
    tables = cost_tables(network.graph, Platform(devices, wire))

    def sent_values(*mapping: int) -> float:
        cost = mapping_cost(tables, jnp.asarray(mapping, jnp.int32))
        return float(cost.link_latency_ms) * 1e3 / 16

    assert sent_values(0, 0, 0, 0, 0) == 0
    assert sent_values(0, 1, 1, 0, 0) == pytest.approx(100 + 30 + 7)  # stem there, both back
    assert sent_values(0, 1, 2, 0, 0) == pytest.approx(100 + 30 + 100 + 30 + 7)  # joined on 2
    assert sent_values(0, 0, 0, 1, 1) == pytest.approx(37 + 100)  # stem waits where it is added
    assert sent_values(0, 0, 0, 0, 1) == pytest.approx(100)


# Networks that no mapping has room for.


def limited(graph: LayerGraph, *capacities: int) -> CostTables:
    names = ("eyeriss", "simba", "simba-ecc")[: len(capacities)]
    devices = tuple(
        dataclasses.replace(load_device(name), memory_bytes=size)
        for name, size in zip(names, capacities, strict=True)
    )
    here = Platform(devices, load_link("ucie"))
    tables = cost_tables(graph, here)
    check_capacity(tables, here.names, graph)
    return tables


def test_a_layer_that_fits_nowhere_is_named_with_the_largest_device(networks):
    message = "`classifier.1` fits on no device: it needs 72 MiB.* `simba`, the largest, has 70 MiB"
    with pytest.raises(InputError, match=message):
        limited(networks["alexnet"], 10**6, 70 * 2**20)


def test_weights_that_fit_only_one_by_one_name_the_first_without_room(networks):
    """Either 73 or 42 MiB hold any layer of AlexNet, both together not all of its weights."""
    with pytest.raises(InputError, match=r"need 117 MiB, .* have 115 MiB") as told:
        limited(networks["alexnet"], 73 * 2**20, 42 * 2**20)
    message = str(told.value)
    assert "layer `classifier.1`" in message and "device `eyeriss`, the largest" in message


def test_a_graph_without_crossings_costs_its_layers(chain_of):
    layers = chain_of((("only", 3, 5, 3, 4, 5, 1),)).layers
    for tensors in ((), (Tensor(-1, (0,), 75),)):
        graph = LayerGraph(layers, tensors)
        tables = cost_tables(graph, platform("eyeriss", "simba"))
        got = mapping_cost(tables, jnp.asarray([1], jnp.int32))
        assert float(got.latency_ms) == float(tables.latency_ms[0, 1])
        assert float(got.link_energy_mj) == 0.0
