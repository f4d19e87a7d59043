"""Job `distribute`: thresholds searched for each layer against the best constant one."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from afpjax.jobs.distribute.view_words import Record, compared, lost, one_of, share
from afpjax.report.charts import bounds, draw, legend, reference
from afpjax.report.markup import Html, details, estimate, figure, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.style import METHODS, TOOLS
from afpjax.report.wording import GAP, Real, number, percent, points

__all__ = ["SEARCH", "fronts"]

_LOOKS = {
    "front": ("searched", TOOLS["fault-unaware"], "*", "-"),
    "constant": ("the same for all layers", METHODS["robustdice"], "o", "--"),
}


def part(result: Result) -> Block:
    """Both fronts, what is gained at equal memory, and the thresholds."""
    found, clean = result["search"], result.get("clean", {}).get("accuracy")
    series = {key: found[key] for key in _LOOKS if found.get(key)}
    if not series:
        return Block(Html())
    svg = fronts(series, clean)
    setting = (found["devices"], found["failed"])
    dotted = "; dotted: no device lost" if clean is not None else ""
    shown = figure(svg, lost(setting), f"Bands are 95{GAP}% intervals{dotted}.")
    gain = found.get("gain", ())
    left = join([paragraph(_how(result)), _said(gain), _gain(gain, clean)])
    tables = [
        details(f"Thresholds {_LOOKS[key][0]} ({len(rows)})", _table(rows))
        for key, rows in series.items()
    ]
    pair = Html(f"<div class=pair><div>{left}</div>{shown}</div>")
    return Block(join([pair, *tables]), {"search.svg": svg})


def fronts(series: dict[str, Sequence[Record]], clean: Real | None = None) -> bytes:
    """Accuracy (%) over memory (%) of searched and of constant thresholds, in their bands."""

    def paint(single: Sequence[Axes]) -> None:
        (axes,) = single
        for key, records in series.items():
            name, colour, marker, line = _LOOKS[key]
            rows = sorted(records, key=lambda record: record["memory"])
            where = [100 * record["memory"] for record in rows]
            low, high = zip(*(bounds(record, "accuracy") for record in rows), strict=True)
            axes.fill_between(where, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                where, [100 * record["accuracy"] for record in rows], color=colour, marker=marker,
                linestyle=line, linewidth=1.3, markersize=6 if marker == "*" else 3.6, label=name,
                clip_on=False, zorder=3,
            )  # fmt: skip
        reference(axes, clean)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("weights on the fullest device (% of the network's)")
        axes.set_ylabel("images right (%)")
        legend(axes)

    return draw(paint, height=2.75)


def _how(result: Result) -> str:
    found = result["search"]
    groups = found.get("groups")
    count = len(groups) if isinstance(groups, list) else groups
    layers = len(result.get("placement", ()))
    each = f"each of {count} groups of layers" if count and count != layers else "each layer"
    runs = found.get("evaluations")
    tried = f", {runs:,} times a placement with a set of devices lost" if runs else ""
    return (
        f"A threshold for {each}, searched for {one_of((found['devices'], found['failed']))} "
        f"lost{tried}. What the search found was measured again on images that it never saw."
    )


def _said(gain: Sequence[Record]) -> Html:
    """The widest gain in words, and at how many memories it is settled."""
    if not gain:
        return Html()
    best = max(gain, key=lambda record: record["difference"])
    above = sum(record["difference_interval"][0] > 0 for record in gain)
    below = sum(record["difference_interval"][1] < 0 for record in gain)
    return paragraph(
        f"The widest gain at no more memory, {share(best['memory'])} of the weights: "
        f"{compared(best, 'a constant threshold')}. Of {len(gain)} memories compared, the "
        f"difference's interval lies above zero at {above} and below it at {below}."
    )


def _gain(gain: Sequence[Record], clean: Real | None) -> Html:
    if not gain:
        return Html()
    rows = []
    for record in gain:
        low, high = record["difference_interval"]
        small = f"[{points(low)},{GAP}{points(high)}]"
        cells: list[object] = [percent(record["memory"]), percent(record["searched"])]
        cells += [percent(record["constant"])]
        cells += [Html(f"{points(record['difference'])}<br><small class=nobr>{small}</small>")]
        cells += [_regained(record, clean)] * (clean is not None)
        rows.append(cells)
    head = ["memory", "searched", "constant", "gain, points"]
    return table([*head, "of the loss"] if clean is not None else head, rows)


def _regained(record: Record, clean: Real | None) -> str:
    """How much of what the constant threshold loses is not lost."""
    gone = (clean or 0) - record["constant"]
    return f"{100 * record['difference'] / gone:.0f}{GAP}%".replace("-", "−") if gone > 0 else "–"


def _table(records: Sequence[Record]) -> Html:
    costs = [key for key in ("energy_j", "fps") if any(key in record for record in records)]
    rows = [
        (
            percent(record["memory"]),
            estimate(record, "accuracy"),
            *(number(record[key]) if key in record else "–" for key in costs),
            _thresholds(record),
        )
        for record in sorted(records, key=lambda record: record["memory"])
    ]
    heads = {"energy_j": "energy, J/image", "fps": "images a second"}
    head = ("memory", "images right", *(heads[key] for key in costs), "thresholds")
    return table(head, rows, words=(len(head) - 1,))


def _thresholds(record: Record) -> Html:
    """All of them in order; one where they are the same."""
    each = record["thresholds"] if "threshold" not in record else [record["threshold"]]
    return Html(f"<span class=sites>{' '.join(f'{value:.3g}' for value in each)}</span>")


SEARCH = (Part("Thresholds chosen by search", ("search",), part),)
