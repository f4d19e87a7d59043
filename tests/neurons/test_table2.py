"""The shipped board against Table II of RobustDiCE: what is calibrated, foretold, and missed."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from afpjax.hardware import load_link
from afpjax.network.layers import LayerGraph
from afpjax.neurons.resources import Resources, patches, resources

from .table2 import (
    BOARD,
    ETHERNET,
    GRAPHS,
    TABLE,
    Row,
    coded,
    even,
    loads_of,
    neurons,
    share_of_memory,
)

#: Rows out of the 15 %, all of frame rate and energy: more is sent than a gigabit carries.
OUT = {row for row in TABLE if row.network == "convnext_tiny" and row.method != "full"}
OTHERS = [row for row in TABLE if row.method != "full"]
FULL = [row for row in TABLE if row.method == "full"]


@cache
def found(row: Row) -> Resources:
    return resources(GRAPHS[row.network], loads_of(row), BOARD, ETHERNET)


def test_the_constants_are_the_solution_of_the_three_full_replication_rows():
    """Solved here from the layers alone: what a device holds, and what makes a frame's time."""
    base_mb, rows, frames_ms = [], [], []
    for row in FULL:
        layers = GRAPHS[row.network].layers
        weights = 2 * sum(layer.weights + layer.neurons for layer in layers)
        work = max(4 * patches(each) + 2 * (each.inputs + each.outputs) for each in layers)
        base_mb.append(TABLE[row].memory_mb - (weights + work) / 1e6)
        moved = weights + 2 * sum(each.inputs + each.outputs for each in layers)
        unfolded = sum(each.macs / each.neurons for each in layers if each.groups == 1)
        rows.append([1.0, len(layers), (moved + 8 * unfolded) / 1e6])
        frames_ms.append(1e3 / TABLE[row].fps)
    np.testing.assert_allclose(base_mb, BOARD.base_mb, atol=0.3)
    image_ms, launch_ms, ms_per_mb = np.linalg.solve(rows, frames_ms)
    assert image_ms == pytest.approx(BOARD.image_ms, rel=2e-3)
    assert launch_ms == pytest.approx(BOARD.launch_ms, rel=2e-3)
    assert 1 / ms_per_mb == pytest.approx(BOARD.bandwidth_gb_s, rel=2e-3)


def test_the_time_of_a_message_is_the_least_squares_of_alexnets_frame_rates():
    def squares(message_ms: float) -> float:
        board = dataclasses.replace(BOARD, message_ms=message_ms)
        rows = [row for row in OTHERS if row.network == "alexnet"]
        runs = [resources(GRAPHS["alexnet"], loads_of(row), board, ETHERNET) for row in rows]
        return sum((run.fps / TABLE[row].fps - 1) ** 2 for row, run in zip(rows, runs, strict=True))

    assert squares(BOARD.message_ms) < min(squares(0.31), squares(0.35))


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_rows_are_calibrated_or_foretold_or_listed_as_a_miss(row):
    measured, got = TABLE[row], found(row)
    memory = got.peak_memory_mb / measured.memory_mb - 1
    fps, energy = got.fps / measured.fps - 1, got.peak_energy_j / measured.energy_j - 1
    if row.method == "full":
        assert abs(memory) < 0.005 and abs(fps) < 0.002 and abs(energy) < 0.005  # asked: 0.02
        assert got.link_ms == 0.0
    else:
        missed = row in OUT
        assert (abs(fps) < 0.15, abs(energy) < 0.15) == (not missed, not missed)
        # Without a fitted number, bits over bandwidth: each device must get what it lacks.
        lacking = 1 - loads_of(row).max(axis=1) / neurons(row.network)
        sent = [(t.producer, t.elements) for t in GRAPHS[row.network].tensors if t.producer >= 0]
        link_ms = sum(lacking[producer] * elements for producer, elements in sent) * 16 / 1e6
        assert (link_ms > 1.05e3 / measured.fps) == missed, "more than a gigabit carries"
    if row.method == "cdc":  # nothing of these rows went into a constant, and loads are known
        assert -0.15 < memory < 0
    # Of all rows: the power of waiting and computing is right to 3 % at the paper's frame rate.
    computing = BOARD.compute_w * got.busy_ms.max() / 1e3
    assert BOARD.base_w / measured.fps + computing == pytest.approx(measured.energy_j, rel=0.03)


@pytest.mark.parametrize("network", GRAPHS)
def test_memory_of_robustdice_is_foretold_from_its_two_devices(network):
    """One threshold gives the same clusters for any number of devices; let sizes be geometric.

    A device then computes sum ceil(size / D) neurons of all: (1 - q) / (1 - q^D).
    """
    half = share_of_memory(Row(network, "robust", 2))
    q = 1 / half - 1
    ratios = []
    for devices in (3, 4):
        loads = even(network, (1 - q) / (1 - q**devices), devices)
        got = resources(GRAPHS[network], loads, BOARD, ETHERNET).peak_memory_mb
        ratios.append(got / TABLE[Row(network, "robust", devices)].memory_mb)
    missed = network == "convnext_tiny"  # by 25 % with four devices: no one threshold explains it
    assert ratios[0] == pytest.approx(1, abs=0.15)
    assert (abs(ratios[1] - 1) > 0.15) == missed


def test_slower_links_cost_frames_and_energy_but_no_memory():
    names = ("ethernet-10g", "ethernet-1g", "wifi-ac", "wifi-n")
    loads = coded("alexnet", 4)
    runs = [resources(GRAPHS["alexnet"], loads, BOARD, load_link(name)) for name in names]
    assert [run.fps for run in runs] == sorted((run.fps for run in runs), reverse=True)
    assert [run.peak_energy_j for run in runs] == sorted(run.peak_energy_j for run in runs)
    assert len({run.peak_memory_mb for run in runs}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("network", GRAPHS)
def test_the_layers_written_out_are_those_of_the_traced_networks(network):
    import jax

    import afpjax
    from afpjax import models

    apply_fn, params = models.load(network, classes=1000, image_size=224)
    traced = afpjax.trace(apply_fn, params, jax.ShapeDtypeStruct((1, 224, 224, 3), "float32"))
    assert traced.graph.layers == GRAPHS[network].layers

    def sent(graph: LayerGraph) -> dict[int, int]:
        return {tensor.producer: tensor.elements for tensor in graph.tensors if tensor.consumers}

    assert sent(traced.graph) == sent(GRAPHS[network])
