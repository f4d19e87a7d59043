"""Small results of job `distribute`, made by hand."""

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]

CLEAN = 0.915
#: Method -> what is left with one device lost, and the share of the weights on its fullest device;
#: None: one part of as many as there are devices, or workers.
METHODS = {
    "robustdice": (0.823, 0.594),
    "topk": (0.541, 0.594),
    "random": (0.269, 0.594),
    "lop": (0.141, None),
    "cdc": (0.915, None),
    "cdc-safe-spare": (0.915, None),
    "replication": (0.915, 1.0),
}
SUBSETS = ("l1", "taylor", "jsd", "l1+taylor", "l1+jsd", "taylor+jsd", "l1+taylor+jsd")
CURVE = ((0.4, 0.312), (0.2, 0.445), (0.1, 0.594), (0.0, 1.0))  # threshold, memory
OPTIONAL = ("expected", "flips", "search")


def near(value: float, wide: float = 0.02) -> list[float]:
    return [max(value - wide, 0.0), min(value + wide, 1.0)]


def estimate(value: float) -> Result:
    return {"accuracy": value, "accuracy_interval": near(value)}


def kept(method: str, devices: int, failed: int) -> float:
    """Half as much for each further device lost; CDC bears one, replication all but one."""
    first, _ = METHODS[method]
    if method == "replication":
        return first
    return first * 0.5 ** (failed - 1) if not method.startswith("cdc") or failed == 1 else 0.1


def methods_of(devices: int) -> list[str]:
    """CDC with two devices, one of them the spare, would be replication."""
    return [name for name in METHODS if devices > 2 or not name.startswith("cdc")]


def memory_of(method: str, devices: int) -> float:
    own = METHODS[method][1]
    return 1 / (devices - method.startswith("cdc")) if own is None else own


def distribution(
    devices: Sequence[int] = (4, 3, 2), layers: int = 3, neurons: int = 16, optional: bool = True
) -> Result:
    """A result of job `distribute` that has every key, or every key but the optional ones."""
    names = [f"block{index}.conv" for index in range(layers)]
    first = devices[0]
    result = {
        "job": "distribute",
        "version": "0.5.0",
        "seed": 0,
        "model": {"name": "toy", "layers": [_layer(name, neurons) for name in names]},
        "data": {"name": "digits", "images": 384},
        "format": {"kind": "fixed", "bits": 16},
        "clean": estimate(CLEAN),
        "scores": {"names": ["l1", "taylor", "jsd"], "normalise": "minmax", "images": 1256}
        | {"from": "training", "divergence": "exact", "target": "winner"},
        "substitute": "zero",
        "classifier": "distributed",
        "thresholds": [0.1] * layers,
        "methods": [
            _method(name, count, failed)
            for count in devices
            for failed in range(1, count)
            for name in methods_of(count)
        ],
        "substitutes": [
            _substitute(name, first, more)
            for name, more in (("zero", 0.0), ("mean", 0.05), ("bias", -0.01))
        ],
        "ablation": [
            {"scores": name, "devices": first, "failed": 1, "threshold": 0.1, "memory": 0.594}
            | estimate(0.7 + 0.02 * place)
            for place, name in enumerate(SUBSETS)
        ],
        "normalisations": [
            {"normalise": name, "devices": first, "failed": 1, "threshold": 0.1 * (place + 1)}
            | {"memory": 0.594 - 0.001 * place, **estimate(0.823 - 0.1 * place)}
            for place, name in enumerate(("minmax", "zscore", "rank", "raw"))
        ],
        "curve": [row for failed in range(1, first) for row in _curve(first, failed)],
        "resources": [
            _resources(name, count) for count in devices for name in ("replication", "robustdice")
        ],
        "board": {"name": "jetson-xavier-nx", "link": "gigabit", "images": 1000, "batch": 1},
        "placement": [_placed(name, neurons, first, place) for place, name in enumerate(names)],
        "expected": [_expected(name, first) for name in ("robustdice", "lop", "replication")],
        "flips": [
            _flipped(name, first, failed)
            for failed in (0, 1, 2)
            for name in ("robustdice", "lop", "replication")
        ],
        "search": _search(first, layers),
        "throughput": {
            "inferences_per_second": 9312.4,
            "clean_inferences_per_second": 7281.9,
            "passes": 153600,
        },
        "seconds": 99.0,
    }
    return result if optional else {k: v for k, v in result.items() if k not in OPTIONAL}


def row_of(result: Result, method: str, devices: int = 4, failed: int = 1) -> Result:
    (row,) = [
        row
        for row in result["methods"]
        if (row["method"], row["devices"], row["failed"]) == (method, devices, failed)
    ]
    return row


def _layer(name: str, neurons: int) -> Result:
    return {"name": name, "kind": "conv", "macs": 1000, "weights": 90, "neurons": neurons}


def _method(name: str, devices: int, failed: int) -> Result:
    mean = kept(name, devices, failed)
    row = {"method": name, "devices": devices, "failed": failed, **estimate(mean)}
    row |= {"accuracy_worst": max(mean - 0.1, 0.0), "accuracy_best": min(mean + 0.05, 1.0)}
    row |= {"worst_failed": list(range(failed)), "best_failed": list(range(devices))[-failed:]}
    row |= {"sets": 6, "sampled": False, "memory": memory_of(name, devices)}
    if name == "lop":
        row["optimistic"] = mean + 0.03
    if name != "robustdice":
        gap = kept("robustdice", devices, failed) - mean
        row |= {"difference": gap, "difference_interval": [gap - 0.025, gap + 0.025]}
    return row


def _substitute(name: str, devices: int, more: float) -> Result:
    row = {"substitute": name, "devices": devices, "failed": 1, "memory": 0.594}
    row |= estimate(0.823 + more)
    if name != "zero":
        row |= {"difference": more, "difference_interval": [more - 0.02, more + 0.02]}
    return row


def _curve(devices: int, failed: int) -> list[Result]:
    """At threshold 0 all are full replication."""
    rows = []
    for threshold, memory in CURVE:
        for name in ("robustdice", "topk", "random"):
            means = [
                CLEAN if memory == 1 else kept(each, devices, failed) * memory / 0.594
                for each in ("robustdice", name)
            ]
            row = {"method": name, "devices": devices, "failed": failed, "threshold": threshold}
            row |= {"memory": memory, **estimate(means[1])}
            if name != "robustdice":
                gap = means[0] - means[1]
                row |= {"difference": gap, "difference_interval": [gap - 0.025, gap + 0.025]}
            rows.append(row)
    return rows + [
        {"method": name, "devices": devices, "failed": failed, "memory": memory_of(name, devices)}
        | estimate(kept(name, devices, failed))
        for name in ("lop", "replication")
    ]


def _resources(name: str, devices: int) -> Result:
    share = memory_of(name, devices)
    row = {"method": name, "devices": devices, "memory_mb": 29 + 122 * share, "memory": share}
    return row | {"energy_j": 0.12 + 0.06 * share, "fps": 52 - 6 * share}


def _placed(name: str, neurons: int, devices: int, place: int) -> Result:
    """The first half of the neurons in one copy, a quarter in two, the others on every device."""
    everywhere, held = 2**devices - 1, []
    for neuron in range(neurons):
        first, next_ = 1 << neuron % devices, 1 << (neuron + 1) % devices
        copies = (first, first, first | next_, everywhere)
        held.append(copies[4 * neuron // neurons])
    return {
        "layer": name,
        "neurons": neurons,
        "threshold": 0.1,
        "clusters": 1 + place,
        "copies": sum(mask.bit_count() for mask in held) / neurons,
        "held": held,
    }


def _expected(name: str, devices: int) -> Result:
    mean = 0.9 * kept(name, devices, 1)
    steps = {"5%": -0.2, "25%": -0.1, "50%": 0.01, "75%": 0.02, "95%": 0.05}
    return {
        "method": name,
        "devices": devices,
        "failure": [0.1] * devices,
        "memory": memory_of(name, devices),
        **estimate(mean),
        "deviation_run": 0.0625,
        "deviation_image": 0.0125,
        "quantiles": {level: max(mean + step, 0) for level, step in steps.items()},
        "sets": 2**devices,
        "sampled": False,
    }


def _flipped(name: str, devices: int, failed: int) -> Result:
    mean = max((kept(name, devices, failed) if failed else CLEAN) - 0.0625, 0.0)
    row = {"method": name, "devices": devices, "failed": failed, "trials": 8, **estimate(mean)}
    row |= {"memory": memory_of(name, devices)}
    row |= {"accuracy_worst": max(mean - 0.05, 0.0), "accuracy_best": mean + 0.05}
    rates = [0.001 * (device + 1) for device in range(devices)]
    return row | {"weight_rate": rates, "activation_rate": [0.0] * devices}


def _search(devices: int, layers: int) -> Result:
    groups = min(layers, 4)
    front = [
        {"thresholds": [0.05 * (place + 1)] * groups, "memory": 0.9 - 0.15 * place}
        | estimate(0.9 - 0.04 * place)
        | {"energy_j": 0.17 - 0.01 * place, "fps": 46 + place}
        for place in range(4)
    ]
    constant = [
        {"threshold": 0.05 * (place + 1), "thresholds": [0.05 * (place + 1)] * groups}
        | {"memory": 0.9 - 0.15 * place, **estimate(0.88 - 0.08 * place)}
        | {"energy_j": 0.17 - 0.01 * place, "fps": 46 + place}
        for place in range(4)
    ]
    gain = [
        {"memory": one["memory"], "searched": one["accuracy"], "constant": other["accuracy"]}
        | {"difference": one["accuracy"] - other["accuracy"]}
        for one, other in zip(front, constant, strict=True)
    ]
    for row in gain:
        row["difference_interval"] = [row["difference"] - 0.03, row["difference"] + 0.03]
    found = {"front": front, "constant": constant, "gain": gain, "evaluations": 600}
    return found | {"devices": devices, "failed": 1, "groups": groups}
