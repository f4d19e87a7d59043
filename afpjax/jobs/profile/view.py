"""The report of job `profile`: what every layer costs on every device."""

from afpjax.report import figures
from afpjax.report.costs import COSTS, cost_tables, totals
from afpjax.report.markup import Html, details, device, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.wording import number, scaled

__all__ = ["STORY"]


def answer(result: Result) -> Html:
    """Which device is quickest and which spends least, the whole network on one."""
    records, names = result.get("costs", ()), result.get("devices", ())
    if not records or not names:
        return html("The layers of the network")
    latency = totals(records, names, "latency_ms")
    energy = totals(records, names, "energy_mj")
    quick, frugal = min(names, key=latency.__getitem__), min(names, key=energy.__getitem__)
    return Html(
        f"Run whole on one device, the network is quickest on <b>{html(quick)}</b> "
        f"({number(latency[quick])}\u00a0ms) and spends the least energy on "
        f"<b>{html(frugal)}</b> ({number(energy[frugal])}\u00a0mJ)."
    )


def lead(result: Result) -> Html:
    layers = result.get("model", {}).get("layers", ())
    if not layers:
        return Html()
    macs = sum(layer["macs"] for layer in layers)
    weights = sum(layer["weights"] for layer in layers if "stored_in" not in layer)
    count = f"{len(layers)} layers" if len(layers) > 1 else "1 layer"
    return paragraph(
        f"{count}, {scaled(macs)} multiply-accumulates (MACs) for an image, "
        f"{scaled(weights)} weights. Costs are the device model's, for one batch; moving data "
        "between devices is not included."
    )


def devices(result: Result) -> Block:
    """The whole network on each device."""
    names = result["devices"]
    shown = {key: COSTS[key] for key in ("latency_ms", "energy_mj")}
    sums = {key: totals(result["costs"], names, key) for key in shown}
    rows = [
        (device(index, name), *(show(sums[key][name]) for key, (_, show) in shown.items()))
        for index, name in enumerate(names)
    ]
    return Block(table(("device", *(title for title, _ in shown.values())), rows))


def bars(result: Result) -> Block:
    """Where the time and the energy go."""
    drawn, shown = {}, []
    for key, title, unit in (
        ("latency_ms", "Latency", "latency (ms)"),
        ("energy_mj", "Energy", "energy (mJ)"),
    ):
        svg = figures.costs(result["costs"], result["devices"], key, unit)
        drawn[f"{title.lower()}.svg"] = svg
        shown.append(figure(svg, title, _costliest(result, key)))
    return Block(
        join(
            [
                Html(f"<div class=pair>{join(shown)}</div>"),
                *cost_tables(result["costs"], result["devices"]),
            ]
        ),
        drawn,
    )


def _costliest(result: Result, key: str) -> str:
    """How many of the layers the figure has, where not all."""
    every = len({record["layer"] for record in result["costs"]})
    some = len(figures.costliest(result["costs"], result["devices"], key))
    return f"The {some} costliest of {every} layers." if some < every else ""


def layers(result: Result) -> Block:
    """The layers as traced."""
    keys = ("macs", "weights", "neurons")
    rows = [
        (layer["name"], layer["kind"], *(scaled(layer[k]) if k in layer else "–" for k in keys))
        for layer in result["model"]["layers"]
    ]
    summary = f"Layer by layer ({len(rows)})"
    head = ("layer", "kind", "MACs", "weights", "neurons")
    return Block(details(summary, table(head, rows, words=(1,))))


STORY = Story(
    answer,
    lead,
    (
        Part("The whole network on each device", ("costs", "devices"), devices),
        Part("Layer by layer", ("costs", "devices"), bars),
        Part("The network", ("model",), layers),
    ),
)
