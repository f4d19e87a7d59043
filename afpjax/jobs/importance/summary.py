"""What job `importance` prints: layers with their heaviest neurons, and how far scores agree."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_NAMES = {
    "l1_taylor": "l1 and Taylor",
    "l1_jsd": "l1 and divergence",
    "taylor_jsd": "Taylor and divergence",
    "l1_drop": "l1 and accuracy lost",
    "taylor_drop": "Taylor and accuracy lost",
    "jsd_drop": "divergence and accuracy lost",
}
_HEADS = ("neurons", "l1, mean", "Taylor, mean", "divergence, mean", "largest", "neuron")


def summary(result: Mapping[str, Any]) -> RenderableType:
    """One row for each layer, then the rank correlations and what the scores were made from."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for layer in result["layers"]:
        means = [f"{float(np.mean(layer[name])):.3g}" for name in ("l1", "taylor", "jsd")]
        most = int(np.argmax(layer["jsd"]))
        table.add_row(
            Text(layer["name"]),
            str(len(layer["l1"])),
            *means,
            f"{layer['jsd'][most]:.3g}",
            str(most),
        )
    return Group(table, Text(), *map(Text, _notes(result)))


def _notes(result: Mapping[str, Any]) -> list[str]:
    images, about = result["images"], result["divergence"]
    found = result["correlations"]["all"]
    ranks = [f"{words} {found[name]:+.2f}" for name, words in _NAMES.items() if name in found]
    notes = [
        f"Jensen-Shannon divergence in nats, {images['count']:,} {images['from']} images, "
        f"{100 * float(result['clean']['accuracy']):.1f} % of them right; "
        f"Taylor scores of target {result['target']}."
    ]
    if ranks:
        notes.append(f"Rank correlation over all neurons: {', '.join(ranks)}.")
    if about["method"] == "estimate":
        notes.append(_estimate_note(result))
    return notes


def _estimate_note(result: Mapping[str, Any]) -> str:
    about = result["divergence"]
    orders = [
        float(layer["jsd_rank_correlation"])
        for layer in result["layers"]
        if "jsd_rank_correlation" in layer
    ]
    against = f", rank correlation {np.median(orders):.2f} in the median layer" if orders else ""
    return (
        f"Divergences are estimated: exact ones take {about['exact_passes']:,.0f} passes of an "
        f"image, importance.exact_passes allows {about['limit']:,}. A sample of each layer's "
        f"neurons was left out on {about['sample_images']} images{against}."
    )
