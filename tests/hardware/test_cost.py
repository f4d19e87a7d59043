"""Tables of layer and device: what goes into them, and what is refused."""

import dataclasses

import numpy as np
import pytest

from afpjax.hardware import Platform, Sizes, cost_tables, layer_cost, load_device, load_link
from afpjax.inputs.errors import InputError
from afpjax.network.layers import LayerGraph, Tensor

SHAPES = (
    ("stem", 3, 9, 3, 5, 9, 1),
    ("body", 5, 9, 3, 5, 9, 1),
    ("head", 405, 0, 0, 7, 0, 1),
)


@pytest.fixture
def graph(chain_of) -> LayerGraph:
    """Three layers, the last with a bias; the head reads the stem too."""
    first, second, last = chain_of(SHAPES).layers
    tensors = (Tensor(-1, (0,), 243), Tensor(0, (1, 2), 405), Tensor(1, (2,), 405))
    return LayerGraph((first, second, dataclasses.replace(last, biases=7)), tensors)


@pytest.fixture
def platform() -> Platform:
    devices = tuple(load_device(name) for name in ("simba", "eyeriss"))
    return Platform(devices, load_link("ethernet-100m"))


def test_every_cell_is_its_layers_cost_on_its_device(graph, platform):
    tables = cost_tables(graph, platform, weight_bits=8, activation_bits=12, batch=3)
    for row, layer in enumerate(graph.layers):
        for column, device in enumerate(platform.devices):
            expected = layer_cost(layer, device, Sizes(8, 12, 3))
            got = tables.latency_ms[row, column], tables.energy_mj[row, column]
            assert got == pytest.approx(expected, rel=1e-6)


def test_bytes_are_rounded_up_and_batched(graph, platform):
    tables = cost_tables(graph, platform, weight_bits=3, activation_bits=5, batch=3)
    elements = np.array([3 * 9 * 5, 5 * 9 * 5, 405 * 7 + 7])
    assert tables.weight_bytes.tolist() == np.ceil(elements * 3 / 8).tolist()
    held = 3 * np.array([243 + 405, 405 + 405, 405 + 7])
    assert tables.activation_bytes.tolist() == np.ceil(held * 5 / 8).tolist()
    assert tables.capacity_bytes.tolist() == [2.0**29, 2.0**29]


def test_tensors_know_who_makes_and_who_needs_them_and_what_a_transfer_costs(graph, platform):
    tables = cost_tables(graph, platform, activation_bits=5, batch=3)
    assert tables.producers.tolist() == [-1, 0, 1]
    assert tables.consumers.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    link = platform.link
    sizes = [int(np.ceil(3 * elements * 5 / 8)) for elements in (243, 405, 405)]
    assert tables.link_latency_ms == pytest.approx([link.transfer_ms(size) for size in sizes])
    assert tables.link_energy_mj == pytest.approx([link.transfer_mj(size) for size in sizes])


def test_a_layer_table_replaces_its_devices_column(graph, platform, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "No.;Layer;Latency [ms];Energy [mJ]\n1;stem;1.5;0.5\n2;body;2;3\n3;head;0;0.25\n"
    )
    measured = dataclasses.replace(platform.devices[1], layer_table=str(path))
    own = cost_tables(graph, platform, batch=2)
    tables = cost_tables(graph, Platform((platform.devices[0], measured), platform.link), batch=2)
    assert tables.latency_ms[:, 1].tolist() == [3.0, 4.0, 0.0]
    assert tables.energy_mj[:, 1].tolist() == [1.0, 6.0, 0.5]
    assert tables.latency_ms[:, 0].tolist() == own.latency_ms[:, 0].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 0}, "weight_bits is 0: give 1 or more"),
        ({"activation_bits": -1}, "activation_bits is -1"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_sizes_and_lanes_that_cannot_be_are_refused(graph, platform, options, message):
    with pytest.raises(InputError, match=message):
        cost_tables(graph, platform, **options)
