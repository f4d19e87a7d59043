"""The second half of job `partition`'s report: fault rates, sensitivity, costs, method."""

from collections.abc import Sequence

from afpjax.report import figures
from afpjax.report.costs import cost_tables
from afpjax.report.markup import Html, details, device, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import interval, number, percent

__all__ = ["DETAIL"]

_TITLES = {
    "weights": "Faults in weights",
    "activations": "Faults in activations",
    "both": "Faults in both",
}


def sweep(result: Result) -> Block:
    """The paper's Figures 3 and 4: accuracy of the three mappings as faults grow more frequent."""
    clean = result.get("clean", {}).get("accuracy")
    faults = result.get("faults", {})
    rates = [*faults.get("weight_rate", ()), *faults.get("activation_rate", ())]
    drawn, shown = {}, []
    for scenario, title in _TITLES.items():
        records = [r for r in result["sweep"] if r["scenario"] == scenario]
        if records:
            svg = figures.sweep(records, clean, max(rates, default=None))
            drawn[f"sweep-{scenario}.svg"] = svg
            shown.append(figure(svg, title))
    text = (
        "The same three mappings, with every device's flip rate scaled up or down together. "
        "Bands are 95 % intervals; the dashed line is the rate that the mappings were made for"
        + ("; the dotted line is the network without faults." if clean is not None else ".")
    )
    return Block(join([paragraph(text), Html(f"<div class=grid>{join(shown)}</div>")]), drawn)


def sensitivity(result: Result) -> Block:
    """Which layers must be protected: each struck alone, and each spared alone."""
    records = result["sensitivity"]
    names: Sequence[str] = result.get("devices") or list(
        dict.fromkeys(r["device"] for r in records)
    )
    clean = result.get("clean", {}).get("accuracy")
    views = {
        "alone": ("Only this layer struck", "Low: this layer is fragile by itself."),
        "all_but": ("Every layer struck but this one", "High: sparing this layer saves the rest."),
    }
    drawn, shown = {}, []
    for view, (title, caption) in views.items():
        if any(view in record for record in records):
            svg = figures.sensitivity(records, names, view, clean if view == "alone" else None)
            drawn[f"sensitivity-{view.replace('_', '-')}.svg"] = svg
            shown.append(figure(svg, title, caption))
    rows = [
        (record["layer"], device(names.index(record["device"]), record["device"]),
         *(_estimate(record, view) for view in views))
        for record in records
    ]  # fmt: skip
    head = ("layer", "device", "only it struck", "all struck but it")
    more = details("Sensitivity of every layer on every device", table(head, rows))
    return Block(join([Html(f"<div class=pair>{join(shown)}</div>"), more]), drawn)


def _estimate(record: Result, key: str) -> Html:
    if key not in record:
        return html("–")
    bounds = record.get(f"{key}_interval")
    small = f" <small>{interval(bounds)}</small>" if bounds else ""
    return Html(f"{percent(record[key])}{small}")


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
    shown = figure(svg, "Progress of the search", "Volume that the front dominates.")
    return Block(Html(f"<div class=pair><div>{points}</div>{shown}</div>"), {"history.svg": svg})


def _measured(result: Result) -> list[str]:
    clean, data = result.get("clean", {}), result.get("data", {})
    items = []
    if "images" in clean and "trials" in clean:
        items.append(
            f"The table and the front were measured on {clean['images']:,} held-out images under "
            f"{clean['trials']:,} fresh fault draws, after the search; never on what it chose by."
        )
    if "search_images" in data:
        items.append(
            f"The search itself saw {data['search_images']:,} other images; the layers' fragility "
            "was measured on these."
        )
    if "float_accuracy" in clean and "accuracy" in clean:
        items.append(
            f"Without faults: {percent(clean['accuracy'])} in the chosen number format, "
            f"{percent(clean['float_accuracy'])} in floating point."
        )
    items.append("Square brackets are 95 % intervals. All tools face the same images and draws.")
    return items


def _struck(result: Result) -> list[str]:
    faults = result.get("faults", {})
    if "bits" not in faults:
        return []
    bits = ", ".join(map(str, faults["bits"]))
    each = {
        "platform": "every layer at the rates of the device it runs on",
        "layerwise": "one layer at a time, at the rates of the device it runs on",
    }.get(faults.get("strategy", ""), "")
    return [f"Bits that may flip: {bits} (0 is the lowest){f'; struck: {each}' if each else ''}."]


def _searched(result: Result) -> list[str]:
    search = result.get("search", {})
    if not search:
        return []
    method = search.get("method", "nsga2")
    if method == "enumeration":
        text = f"All {search['evaluations']:,} mappings were tried: there are few enough."
    else:
        text = (
            f"NSGA-II, {search['generations']:,} generations, "
            f"{search['evaluations']:,} mappings evaluated."
        )
    corner = ", ".join(number(value) for value in search.get("reference_point", ()))
    volume = f"Hypervolume of the front: {number(search['hypervolume'])}"
    units = " (reference point: ms, mJ, accuracy drop)"
    return [text, f"{volume}, measured from ({corner}){units}." if corner else f"{volume}."]


DETAIL = (
    Part("When faults get more frequent", ("sweep",), sweep),
    Part("Which layers are fragile", ("sensitivity",), sensitivity),
    Part("What each layer costs", ("costs", "devices"), costs),
    Part("How this was measured", ("model",), method),
)
