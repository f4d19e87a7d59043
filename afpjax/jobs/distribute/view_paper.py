"""What the paper measured, shown beside a network of the same name and nowhere else.

Guo et al., RobustDiCE: Robust and Distributed CNN Inference at the Edge, Tables I and II. Top-1
accuracy on ImageNet-1K with one of four devices lost; the thresholds are not given.
"""

import os
from collections.abc import Mapping

from afpjax.report.story import Result
from afpjax.report.wording import Real

__all__ = ["ABLATION", "RESOURCES", "of_model"]

_SUBSETS = ("l1", "taylor", "jsd", "l1+taylor", "l1+jsd", "taylor+jsd", "l1+taylor+jsd")


def _by_subset(*accuracies: Real) -> Mapping[str, Real]:
    return dict(zip(_SUBSETS, accuracies, strict=True))


#: Network -> scores -> top-1 accuracy, a fraction of 1 (Table I).
ABLATION: Mapping[str, Mapping[str, Real]] = {
    "alexnet": _by_subset(0.43718, 0.43642, 0.43432, 0.51268, 0.51658, 0.51250, 0.52396),
    "vgg16_bn": _by_subset(0.60426, 0.58920, 0.59942, 0.69152, 0.71736, 0.67360, 0.72500),
    "convnext_tiny": _by_subset(0.76618, 0.75904, 0.76134, 0.76678, 0.76580, 0.76572, 0.76820),
}

_Figures = tuple[Real, Real, Real]  # J an image, images a second, MB
_ROWS = (("replication", 0), ("cdc", 3), ("cdc", 4), *(("robustdice", n) for n in (2, 3, 4)))


def _by_system(*figures: _Figures) -> Mapping[tuple[str, int], _Figures]:
    return dict(zip(_ROWS, figures, strict=True))


#: Network -> (method, devices) -> energy, throughput, memory of a device (Table II). Full
#: replication's is the same for any number of devices: 0.
RESOURCES: Mapping[str, Mapping[tuple[str, int], _Figures]] = {
    "alexnet": _by_system(
        (0.179, 46.255, 150.914), (0.165, 43.670, 94.117), (0.157, 45.587, 78.852),
        (0.159, 48.214, 99.254), (0.148, 50.045, 80.777), (0.142, 51.219, 72.801),
    ),
    "vgg16_bn": _by_system(
        (0.850, 10.744, 429.215), (0.809, 10.634, 313.688), (0.799, 10.485, 272.293),
        (0.826, 10.761, 328.426), (0.799, 10.993, 295.086), (0.779, 11.078, 267.395),
    ),
    "convnext_tiny": _by_system(
        (0.308, 28.223, 88.895), (0.307, 27.107, 69.129), (0.297, 28.248, 59.961),
        (0.301, 28.044, 76.465), (0.296, 28.415, 65.203), (0.288, 29.034, 58.090),
    ),
}  # fmt: skip


def of_model(result: Result) -> str:
    """The paper's network that this one is named like, or none."""
    name = os.path.basename(result.get("model", {}).get("name", ""))
    stem = os.path.splitext(name)[0].lower().replace("-", "_")
    return stem if stem in ABLATION else ""
