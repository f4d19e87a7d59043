"""Small results made by hand, and a reader that sees a page as a browser's tree does."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ..conftest import Reader

Result = dict[str, Any]

DEVICES = ("eyeriss", "simba", "simba-ecc", "fourth", "fifth", "sixth", "seventh", "eighth")
#: (tool, scenario) -> accuracy, latency, energy of the example
TABLE = {
    ("cnnparted", "weights"): (0.411, 1.30, 2.10),
    ("fault-unaware", "weights"): (0.422, 1.25, 2.00),
    ("afarepart", "weights"): (0.833, 1.30, 2.02),
    ("cnnparted", "activations"): (0.944, 1.30, 2.10),
    ("fault-unaware", "activations"): (0.955, 1.25, 2.00),
    ("afarepart", "activations"): (0.966, 1.26, 2.01),
    ("cnnparted", "both"): (0.377, 1.30, 2.10),
    ("fault-unaware", "both"): (0.388, 1.25, 2.00),
    ("afarepart", "both"): (0.799, 1.35, 2.06),
}


def near(accuracy: float) -> list[float]:
    return [max(accuracy - 0.05, 0.0), min(accuracy + 0.04, 1.0)]


def partition(layers: int = 4, devices: int = 3, points: int = 3) -> Result:
    """A result of job `partition` that has every key, a wave of numbers in each."""
    names = [f"layer{index // 4}.{index % 4}.conv" for index in range(layers)]
    kit = DEVICES[:devices]
    front = [_point(index, layers, devices) for index in range(points)]
    cells = [(name, device) for name in names for device in kit]
    return {
        "job": "partition",
        "version": "0.1.0",
        "seed": 0,
        "model": {"name": "toy", "layers": [_layer(name, i) for i, name in enumerate(names)]},
        "data": {"name": "digits", "search_images": 64, "held_out_images": 384},
        "devices": list(kit),
        "faults": {
            "strategy": "platform",
            "bits": [0, 1],
            "weight_rate": [0.02 * index for index in range(devices)],
            "activation_rate": [0.01 * index for index in range(devices)],
        },
        "clean": {
            "accuracy": 0.977,
            "search_accuracy": 0.981,
            "float_accuracy": 0.979,
            "images": 384,
            "trials": 8,
        },
        "selected": front[-1] | {"flips": [_flips(name, i) for i, name in enumerate(names)]},
        "table": [
            _row(tool, scenario, layers, devices, front[-1]["mapping"]) for tool, scenario in TABLE
        ],
        "front": front,
        "search": {
            "method": "nsga2",
            "generations": 30,
            "evaluations": 1021,
            "hypervolume": 0.75,
            "reference_point": [3.5, 4.5, 1.0],
            "history": [0.5, 0.7, 0.75],
        },
        "sensitivity": _sensitivity(cells),
        "sweep": [
            {"tool": tool, "scenario": scenario, "rate": rate}
            | _estimate("accuracy", TABLE[tool, scenario][0] * (1 - rate))
            for tool, scenario in TABLE
            for rate in (0.01, 0.02, 0.04, 0.08)
        ],
        "costs": [
            {
                "layer": name,
                "device": device,
                "latency_ms": 0.5 + 0.25 * index,
                "energy_mj": 1.5 + 0.5 * index,
                "bytes": 1000 + index,
            }
            for index, (name, device) in enumerate(cells)
        ],
        "seconds": 12.5,
    }


def _sensitivity(cells: Sequence[tuple[str, str]]) -> list[Result]:
    return [
        {"layer": name, "device": device}
        | _estimate("alone", 0.9 + 0.05 * math.sin(index))
        | _estimate("all_but", 0.4 + 0.05 * math.cos(index))
        for index, (name, device) in enumerate(cells)
    ]


def _layer(name: str, index: int) -> Result:
    return {
        "name": name,
        "kind": "conv",
        "macs": 1000 * (index + 1),
        "weights": 10 * (index + 1),
        "neurons": 4,
    }


def _flips(name: str, index: int) -> Result:
    return {"layer": name, "weights": 12345.0 + index, "activations": 0.5 + index}


def _point(index: int, layers: int, devices: int) -> Result:
    mapping = [(index + layer) % devices for layer in range(layers)]
    point = {"mapping": mapping, "latency_ms": 1.0 + 0.125 * index, "energy_mj": 3.0 - 0.25 * index}
    return point | _estimate("accuracy", 0.6 + 0.02 * index) | {"accuracy_drop": 0.3}


def _row(tool: str, scenario: str, layers: int, devices: int, chosen: Sequence[int]) -> Result:
    accuracy, latency, energy = TABLE[tool, scenario]
    one = {"cnnparted": 0, "fault-unaware": devices - 1}
    mapping = [one[tool]] * layers if tool in one else list(chosen)
    row = {"tool": tool, "scenario": scenario} | _estimate("accuracy", accuracy)
    return row | {"latency_ms": latency, "energy_mj": energy, "mapping": mapping}


def _estimate(name: str, accuracy: float) -> Result:
    return {name: accuracy, f"{name}_interval": near(accuracy)}


def row_of(result: Result, tool: str, scenario: str = "both") -> Result:
    (row,) = [r for r in result["table"] if (r["tool"], r["scenario"]) == (tool, scenario)]
    return row


def plain(html: str) -> str:
    return " ".join(Reader(html).text.split())


@pytest.fixture
def make() -> Callable[..., Result]:
    return partition


@pytest.fixture
def read() -> Callable[[Result], Reader]:
    """Render and read."""

    def page(result: Result) -> Reader:
        from afpjax.report.page import render

        return Reader(render(result, {}).html)

    return page
