"""The report of job `importance`: which neurons matter, and whether cheap scores know them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from afpjax.jobs.importance.view_figures import SHOWN, spread
from afpjax.report.markup import Html, details, figure, html, join, paragraph, table
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.wording import number, percent, points, short

__all__ = ["STORY"]

#: Score -> what the page calls it, and its axis.
SCORES = {
    "jsd": ("Jensen-Shannon divergence", "divergence without the neuron (nats)"),
    "taylor": ("Taylor score", "Σ |∂y/∂w · w| of the neuron"),
    "l1": ("l1 norm", "Σ |w| of the neuron"),
}
TARGETS = {
    "winner": "the winning logit",
    "label": "the label's logit",
    "loss": "the cross-entropy loss",
}
PAIRS = {
    "l1_taylor": "l1 and Taylor",
    "l1_jsd": "l1 and divergence",
    "taylor_jsd": "Taylor and divergence",
    "l1_drop": "l1 and accuracy lost",
    "taylor_drop": "Taylor and accuracy lost",
    "jsd_drop": "divergence and accuracy lost",
}
LISTED = 20  # neurons that are listed
SHARE = 0.1  # of all neurons that count as the most important


def answer(result: Result) -> Html:
    """Which layer holds the neuron that matters most, and whether the weights' size tells."""
    rows = result.get("neurons", ())
    if not rows:
        return html("How much each neuron matters")
    most = max(rows, key=lambda row: row["jsd"])
    first = (
        f"The neuron that matters most is number {most['neuron']} of "
        f"<b>{html(short(most['layer'], 40))}</b>: without it the network's answer moves by "
        f"{number(most['jsd'])}\u00a0of at most {number(math.log(2))}\u00a0nats"
    )
    found = result.get("correlations", {}).get("all", {})
    if "l1_jsd" not in found:
        return Html(f"{first}.")
    return Html(
        f"{first}; the size of the weights orders all {len(rows):,} neurons as this divergence "
        f"does with a rank correlation of {_signed(found['l1_jsd'])}."
    )


def lead(result: Result) -> Html:
    images, about = result.get("images", {}), result.get("divergence", {})
    if not images or not about:
        return Html()
    clean = result.get("clean", {}).get("accuracy")
    right = "" if clean is None else f", {percent(clean)} of which the network has right"
    how = (
        "every neuron was left out in turn"
        if about["method"] == "exact"
        else "divergences are estimated from the first-order change of the logits"
    )
    target = TARGETS.get(result.get("target", ""), "")
    return paragraph(
        f"Scores of the network in floating point on {images['count']:,} {images['from']} images"
        f"{right}; {how}.",
        f" The Taylor score is that of {target}, averaged over the images." if target else "",
    )


def spreads(result: Result) -> Block:
    """One figure for each score."""
    layers = result["layers"]
    drawn = {f"{key}.svg": spread(layers, key, axis) for key, (_, axis) in SCORES.items()}
    some = f" The {SHOWN} layers with the highest of {len(layers)}." if len(layers) > SHOWN else ""
    caption = "Line: all neurons; bar: the middle half; dot: median; tick: the highest."
    shown = [
        figure(drawn[f"{key}.svg"], title, f"{caption}{some}" if key == "jsd" else some.strip())
        for key, (title, _) in SCORES.items()
    ]
    return Block(join([Html(f"<div class=pair>{join(shown)}</div>"), _layers(layers)]), drawn)


def _layers(layers: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        (layer["name"], len(layer["jsd"]), *(_mean(layer[key]) for key in SCORES))
        for layer in layers
    ]
    head = ("layer", "neurons", "divergence", "Taylor", "l1")
    return details(f"Means, layer by layer ({len(rows)})", table(head, rows))


def heaviest(result: Result) -> Block:
    """The layers that hold the most important neurons, and these neurons."""
    rows = sorted(result["neurons"], key=lambda row: -row["jsd"])
    count = max(1, round(SHARE * len(rows)))
    layers = [layer["name"] for layer in result.get("layers", ())]
    sizes = {name: sum(row["layer"] == name for row in rows) for name in layers}
    held = {name: sum(row["layer"] == name for row in rows[:count]) for name in layers}
    listed = [
        (name, f"{held[name]:,}", percent(held[name] / sizes[name]))
        for name in sorted(held, key=lambda name: -held[name])
        if held[name]
    ]
    keys = (*SCORES, "drop") if any("drop" in row for row in rows) else tuple(SCORES)
    heads = {"jsd": "divergence", "taylor": "Taylor", "l1": "l1", "drop": "accuracy lost, points"}
    best = [
        (f"{row['layer']} · {row['neuron']}", *(_cell(row, key) for key in keys))
        for row in rows[:LISTED]
    ]
    return Block(
        join(
            [
                paragraph(
                    f"The tenth of all {len(rows):,} neurons with the highest divergence "
                    f"({count:,}), by layer:"
                ),
                table(("layer", "of these", "share of the layer"), listed),
                details(
                    f"The {len(best)} neurons with the highest divergence",
                    table(("neuron", *(heads[key] for key in keys)), best),
                ),
            ]
        )
    )


def agreement(result: Result) -> Block:
    """Spearman's rank correlations, over all neurons and within layers."""
    found = result["correlations"]
    rows = [
        (words, _dash(found["all"].get(key)), *_within(found["layers"], key))
        for key, words in PAIRS.items()
        if key in found["all"] or any(key in layer for layer in found["layers"])
    ]
    if not rows:
        return Block(paragraph("No two scores could be ranked: each is the same for all neurons."))
    each = [
        (layer["layer"], *(_dash(layer.get(key)) for key in PAIRS)) for layer in found["layers"]
    ]
    note = paragraph(
        "Spearman's rank correlation: 1 where both order the neurons alike, 0 where one says "
        "nothing of the other. Accuracy lost is that of neurons that were left out for real.",
        kind="note",
    )
    head = ("", "all neurons", "median layer", "lowest", "highest")
    inside = table(("layer", *PAIRS.values()), each)
    return Block(join([table(head, rows), note, details("Within each layer", inside)]))


def _within(layers: Sequence[Mapping[str, Any]], key: str) -> Iterator[str]:
    values = [layer[key] for layer in layers if key in layer]
    for pick in (median, min, max):
        yield _signed(pick(values)) if values else "–"


def checked(result: Result) -> Block:
    """Exact, or how far the estimate is from neurons left out for real."""
    about = result["divergence"]
    passes = f"{about['exact_passes']:,.0f}"
    if about["method"] == "exact":
        return Block(
            paragraph(
                "Every neuron's output was set to zero in turn, after its bias and before the "
                f"activation, and what follows ran again: the work of {passes} images."
            )
        )
    text = (
        f"Leaving out every neuron would be the work of {passes} images, and the experiment allows "
        f"{about['limit']:,} (importance.exact_passes). Estimates follow the "
        f"{about['classes']} likeliest classes; the others hold {percent(about['neglected'])} of "
        f"the probability. Some neurons of each layer were left out on {about['sample_images']:,} "
        "images to check them."
    )
    rows = [
        (
            layer["name"],
            layer["jsd_sampled"],
            number(layer["jsd_sample_mean"]),
            number(layer["jsd_error"]),
            _dash(layer.get("jsd_rank_correlation")),
        )
        for layer in result.get("layers", ())
        if layer.get("jsd_method") == "estimate"
    ]
    head = ("layer", "left out", "divergence, mean", "error, rms", "rank correlation")
    return Block(join([paragraph(text), details("Layer by layer", table(head, rows))]))


def _mean(values: Sequence[float]) -> str:
    return number(sum(values) / len(values))


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "–"
    return points(row[key]) if key == "drop" else number(row[key])


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _dash(value: float | None) -> str:
    return "–" if value is None else _signed(value)


STORY = Story(
    answer,
    lead,
    (
        Part("The neurons of each layer", ("layers",), spreads),
        Part("Where the most important neurons are", ("neurons", "layers"), heaviest),
        Part("Do the scores agree?", ("correlations",), agreement),
        Part("How the divergence was measured", ("divergence",), checked),
    ),
)
