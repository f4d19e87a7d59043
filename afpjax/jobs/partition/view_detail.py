"""The second half of job `partition`'s report: fault rates, sensitivity, costs, method."""

from collections.abc import Sequence

from afpjax.report import figures
from afpjax.report.costs import cost_tables
from afpjax.report.markup import (
    Html,
    details,
    device,
    estimate,
    figure,
    html,
    join,
    paragraph,
    table,
)
from afpjax.report.story import Block, Part, Result
from afpjax.report.tools import SCENARIOS, worst_rate
from afpjax.report.wording import number, percent

__all__ = ["DETAIL"]


def sweep(result: Result) -> Block:
    """The paper's Figures 3 and 4: accuracy of the three mappings as faults grow more frequent."""
    clean = result.get("clean", {}).get("accuracy")
    drawn, shown = {}, []
    for scenario, title in SCENARIOS.items():
        records = [r for r in result["sweep"] if r["scenario"] == scenario]
        if records:
            svg = figures.sweep(records, clean, worst_rate(result, scenario))
            drawn[f"sweep-{scenario}.svg"] = svg
            shown.append(figure(svg, title))
    text = "The mappings of the table above, with all devices' flip rates scaled together. "
    text += "Bands are 95 % intervals"
    text += "; the upright line is the rate that AFarePart searched at" * bool(result.get("faults"))
    text += "; the dotted line is the network without faults." if clean is not None else "."
    return Block(join([paragraph(text), Html(f"<div class=grid>{join(shown)}</div>")]), drawn)


def sensitivity(result: Result) -> Block:
    """Which layers must be protected: each struck alone, and each spared alone."""
    records = result["sensitivity"]
    names: Sequence[str] = result.get("devices") or list(
        dict.fromkeys(r["device"] for r in records)
    )
    clean = result.get("clean", {}).get("search_accuracy")
    views = {
        "alone": ("Only this layer struck", "Low: this layer is fragile by itself."),
        "all_but": ("Every layer struck but this one", "High: this layer does much of the harm."),
    }
    drawn, shown = {}, []
    for view, (title, caption) in views.items():
        if any(view in record for record in records):
            svg = figures.sensitivity(records, names, view, clean)
            drawn[f"sensitivity-{view.replace('_', '-')}.svg"] = svg
            shown.append(figure(svg, title, caption))
    rows = [
        (record["layer"], device(names.index(record["device"]), record["device"]),
         *(estimate(record, view) for view in views))
        for record in records
    ]  # fmt: skip
    head = ("layer", "device", "only it struck", "all struck but it")
    more = details("Every layer on every device", table(head, rows, words=(1,)))
    text = "At each device's flip rates, faults in weights and activations; uprights or bands are "
    text += "95 % intervals"
    text += "; the dotted line is the network without faults." if clean is not None else "."
    pair = Html(f"<div class=pair>{join(shown)}</div>")
    return Block(join([paragraph(text), pair, more]), drawn)


def costs(result: Result) -> Block:
    """What every layer costs on every device; closed, since the totals stand above."""
    return Block(join([_COST_TEXT, *cost_tables(result["costs"], result["devices"])]))


_COST_TEXT = paragraph("From the device model: one layer, one batch, links not included.")


def method(result: Result) -> Block:
    """How the figures were measured."""
    items = [*_measured(result), *_struck(result), *_searched(result)]
    points = Html("<ul>") + "".join(f"<li>{html(item)}</li>" for item in items) + "</ul>"
    history = result.get("search", {}).get("history", ())
    if len(history) < 2:
        return Block(Html(points))
    svg = figures.history(history)
    shown = figure(svg, "Progress of the search", "Hypervolume; higher is better.")
    return Block(Html(f"<div class=pair><div>{points}</div>{shown}</div>"), {"history.svg": svg})


def _measured(result: Result) -> list[str]:
    clean, data = result.get("clean", {}), result.get("data", {})
    items = []
    if "images" in clean and "trials" in clean:
        items.append(
            f"The table and the front were measured after the search, on {clean['images']:,} "
            f"images and {clean['trials']:,} fault draws that it never saw; the curves over flip "
            "rates on the same images and the first half of these draws."
        )
    if "search_images" in data:
        items.append(
            f"Searching, choosing and looking for fragile layers used {data['search_images']:,} "
            "other images."
        )
    if "float_accuracy" in clean and "accuracy" in clean:
        items.append(
            f"Without faults: {percent(clean['accuracy'])} in the chosen number format, "
            f"{percent(clean['float_accuracy'])} in floating point."
        )
    items.append(
        "Intervals are for new images and new fault draws."
        " All tools face the same images and draws."
    )
    return items


def _struck(result: Result) -> list[str]:
    faults = result.get("faults", {})
    if "bits" not in faults:
        return []
    bits = ", ".join(map(str, faults["bits"]))
    items = [
        f"Bits that may flip: {bits} (0 is the lowest), at the rates of the device that a layer "
        "runs on. New faults strike the weights in every draw, the activations for every image."
    ]
    if faults.get("strategy") == "layerwise":
        items.append(
            "The search summed the losses of layers struck one at a time, which do not add up; in "
            "every figure but the layers' own, all are struck together."
        )
    return items


def _searched(result: Result) -> list[str]:
    search = result.get("search", {})
    if not search:
        return []
    method = search.get("method", "nsga2")
    if method == "enumeration":
        text = f"All {search['evaluations']:,} mappings were tried: there are few enough."
    else:
        text = (
            f"The search is genetic (NSGA-II): {search['generations']:,} generations, "
            f"{search['evaluations']:,} different mappings tried."
        )
    corner = search.get("reference_point", ())
    volume = (
        "Hypervolume (what the front leaves behind it in latency × energy × accuracy lost, as the "
        f"search saw it): {number(search['hypervolume'])}"
    )
    if len(corner) == 3:
        latency, energy, drop = map(number, corner)
        volume += f", up to {latency} ms, {energy} mJ and {drop} of accuracy lost"
    return [text, *_effort(search.get("effort", {})), f"{volume}."]


def _effort(effort: Result) -> list[str]:
    draws = [row["draws"] for row in effort.get("draws", ())]
    if not draws:
        return []
    limit = f" of the {effort['total']:,} it was given" if "total" in effort else ""
    least, most = min(draws), max(draws)
    met = (
        f"{most:,}" if least == most else f"{least:,} to {most:,}, more where the ranking was open"
    )
    return [
        f"It took {effort['spent']:,} passes of an image under faults{limit}; fault draws that a "
        f"mapping met: {met}."
    ]


DETAIL = (
    Part("When faults get more frequent", ("sweep",), sweep),
    Part("Which layers are fragile", ("sensitivity",), sensitivity),
    Part("What each layer costs", ("costs", "devices"), costs),
    Part("How this was measured", ("clean",), method),
)
