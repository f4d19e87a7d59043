"""Job `distribute`: which neurons live on which devices, layer by layer."""

from collections.abc import Sequence

import numpy as np

from afpjax.jobs.distribute.view_layers import copies, lanes
from afpjax.jobs.distribute.view_words import Record
from afpjax.report.markup import Html, details, device, figure, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import number, percent, rate

__all__ = ["WHERE", "loads"]

_LAYERS = 12  # of which one figure has room for every device's lane


def placement(result: Result) -> Block:
    """Lanes of devices for a few layers at a time; of many layers the copies at one glance."""
    layers = result["placement"]
    devices = max(max(layer["held"]).bit_length() for layer in layers)
    pages = [layers[start : start + _LAYERS] for start in range(0, len(layers), _LAYERS)]
    drawn = {f"placement-{n + 1}.svg": lanes(page, devices) for n, page in enumerate(pages)}
    titles = _titles(len(layers), len(pages))
    shown = [figure(svg, title) for svg, title in zip(drawn.values(), titles, strict=True)]
    legend = paragraph("Lanes from the top: ", join(device(each) for each in range(devices)))
    parts: list[object] = [paragraph(_how(layers, devices))]
    if len(pages) == 1:
        parts += [legend, *shown]
    else:
        drawn["copies.svg"] = copies(layers, devices)
        overview = "How many devices hold the neurons of each layer"
        grid = Html(f"<div class=grid>{join(shown)}</div>")
        parts += [figure(drawn["copies.svg"], overview)]
        parts += [details(f"Which devices, layer by layer ({len(layers)})", legend, grid)]
    parts.append(details(f"Neurons, clusters and loads ({len(layers)})", _table(layers, devices)))
    return Block(join(parts), drawn)


def _titles(layers: int, pages: int) -> list[str]:
    if pages == 1:
        return ["Neurons on their devices"]
    ends = [(1 + _LAYERS * page, min(_LAYERS * (page + 1), layers)) for page in range(pages)]
    return [
        f"Layers {first} to {last}" if first < last else f"Layer {last}" for first, last in ends
    ]


def _how(layers: Sequence[Record], devices: int) -> str:
    """What the picture says, and how many neurons are in danger."""
    every = [mask.bit_count() for layer in layers for mask in layer["held"]]
    single, whole = every.count(1) / len(every), every.count(devices) / len(every)
    return (
        f"RobustDiCE on {devices} devices. Of all {len(every):,} neurons {percent(single)} have "
        f"one copy and are lost with their device; {percent(whole)} live on every device. In the "
        "lanes, neurons with the fewest copies stand on the left; a thick line is an only copy, "
        "a thin one a replica: one of several that stand above each other."
    )


def loads(layer: Record, devices: int) -> list[int]:
    """Neurons of the layer that each device computes."""
    held = np.asarray(layer["held"], np.int64)
    return [int((held >> each & 1).sum()) for each in range(devices)]


def _table(layers: Sequence[Record], devices: int) -> Html:
    rows = []
    for layer in layers:
        each = loads(layer, devices)
        same = len(set(each)) == 1
        rows.append(
            (
                layer["layer"],
                f"{layer['neurons']:,}",
                rate(layer["threshold"]),
                f"{layer['clusters']:,}",
                number(layer["copies"]),
                percent(sum(mask.bit_count() == 1 for mask in layer["held"]) / layer["neurons"]),
                f"{each[0]:,}" if same else ", ".join(f"{load:,}" for load in each),
            )
        )
    head = ("layer", "neurons", "threshold", "clusters", "copies, mean", "in one copy")
    return join([table((*head, "on each device"), rows), paragraph(_NOTE, kind="note")])


_NOTE = (
    "Every device gets as many neurons of a cluster as any other. The CSV file placement.csv has "
    "every neuron's devices in the order of the neurons: the sum of 2 to the power of each, "
    "counted from 0."
)

WHERE = (Part("Which neurons live where", ("placement",), placement),)
