"""What job `importance` says: which neurons matter, and whether cheap scores know them."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from afpjax.jobs.importance import charts
from afpjax.jobs.importance.result import ImportanceResult, LayerScores, Neuron
from afpjax.jobs.shared import view as shared
from afpjax.report.view import Beside, Block, Chart, Column, Details, Paragraph, Part, Table, View
from afpjax.report.wording import number, percent, points, short

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


def view(result: ImportanceResult) -> View:
    """The neurons of each layer, the heaviest of all, and how far the scores agree."""
    layers = layer_table(result.layers)
    return View(
        headline=headline(result),
        lead=[lead(result)],
        parts=[
            Part("The neurons of each layer", spreads(result, layers)),
            Part("Where the most important neurons are", heaviest(result)),
            Part("Do the scores agree?", agreement(result)),
            Part("How the divergence was measured", checked(result)),
        ],
        summary=[layers, *summary(result)],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: ImportanceResult) -> Markup:
    """Which layer holds the neuron that matters most, and whether the weights' size tells."""
    most = max(result.neurons, key=lambda neuron: neuron.jsd)
    text = Markup(
        "The neuron that matters most is number {} of <b>{}</b>: without it the network's answer "
        "moves by {}\u00a0of at most {}\u00a0nats"
    ).format(most.neuron, short(most.layer, 40), number(most.jsd), number(math.log(2)))
    if (rank := result.correlations.all.get("l1_jsd")) is not None:
        text += (
            f"; the size of the weights orders all {len(result.neurons):,} neurons as this "
            f"divergence does with a rank correlation of {_signed(rank)}"
        )
    return text + "."


def lead(result: ImportanceResult) -> str:
    """What was scored on which images."""
    how = (
        "every neuron was left out in turn"
        if result.divergence.method == "exact"
        else "divergences are estimated from the first-order change of the logits"
    )
    return (
        f"Scores of the network in floating point on {result.images.count:,} "
        f"{result.images.source} images, {percent(result.clean.accuracy)} of which the network has "
        f"right; {how}. The Taylor score is that of {TARGETS[result.target]}, averaged over the "
        "images."
    )


def layer_table(layers: Sequence[LayerScores]) -> Table[LayerScores]:
    """Means of each layer, and its heaviest neuron."""
    columns = [
        Column("layer", lambda layer: layer.name),
        Column("neurons", lambda layer: f"{len(layer.jsd):,}"),
        Column("l1, mean", lambda layer: number(float(layer.l1.mean()))),
        Column("Taylor, mean", lambda layer: number(float(layer.taylor.mean()))),
        Column("divergence, mean", lambda layer: number(float(layer.jsd.mean()))),
        Column("largest", lambda layer: number(float(layer.jsd.max()))),
        Column("neuron", lambda layer: int(layer.jsd.argmax())),
    ]
    return Table(columns, layers)


def summary(result: ImportanceResult) -> list[str]:
    """What the command prints below the table."""
    found = result.correlations.all
    ranks = [f"{words} {_signed(found[name])}" for name, words in PAIRS.items() if name in found]
    said = [lead(result)]
    if ranks:
        said.append(f"Rank correlation over all neurons: {', '.join(ranks)}.")
    if result.divergence.method == "estimate":
        said.append(how_estimated(result))
    return said


def spreads(result: ImportanceResult, means: Table[LayerScores]) -> list[Block]:
    """One figure for each score, and the means."""
    layers, most = result.layers, charts.SHOWN
    some = f" The {most} layers with the highest of {len(layers)}." if len(layers) > most else ""
    caption = f"Line: all neurons; bar: the middle half; dot: median; tick: the highest.{some}"
    drawn = [
        Chart(key, charts.spread(layers, key, axis), title, caption if key == "jsd" else some)
        for key, (title, axis) in SCORES.items()
    ]
    return [Beside(drawn), Details(f"Means, layer by layer ({len(layers)})", [means])]


def heaviest(result: ImportanceResult) -> list[Block]:
    """The layers that hold the most important neurons, and these neurons."""
    ranked = sorted(result.neurons, key=lambda neuron: -neuron.jsd)
    count = max(1, round(SHARE * len(ranked)))
    sizes = {layer.name: len(layer.jsd) for layer in result.layers}
    held = Counter(neuron.layer for neuron in ranked[:count])
    by_layer = [
        Column("layer", lambda name: name),
        Column("of these", lambda name: f"{held[name]:,}"),
        Column("share of the layer", lambda name: percent(held[name] / sizes[name])),
    ]
    order = {name: index for index, name in enumerate(sizes)}
    homes = sorted(held, key=lambda name: (-held[name], order[name]))

    def lost(neuron: Neuron) -> str | None:
        return None if neuron.drop is None else points(neuron.drop)

    columns = [
        Column("neuron", lambda neuron: f"{neuron.layer} · {neuron.neuron}"),
        Column("divergence", lambda neuron: number(neuron.jsd)),
        Column("Taylor", lambda neuron: number(neuron.taylor)),
        Column("l1", lambda neuron: number(neuron.l1)),
        Column("accuracy lost, points", lost),
    ]
    listed = ranked[:LISTED]
    text = (
        f"The tenth of all {len(ranked):,} neurons with the highest divergence ({count:,}), by "
        "layer:"
    )
    title = f"The {len(listed)} neurons with the highest divergence"
    return [Paragraph(text), Table(by_layer, homes), Details(title, [Table(columns, listed)])]


def agreement(result: ImportanceResult) -> list[Block]:
    """Spearman's rank correlations, over all neurons and within layers."""
    found = result.correlations

    def within(key: str, pick: Any) -> str | None:
        values = [layer.pairs[key] for layer in found.layers if key in layer.pairs]
        return _signed(pick(values)) if values else None

    rows = [k for k in PAIRS if k in found.all or any(k in layer.pairs for layer in found.layers)]
    if not rows:
        return [Paragraph("No two scores could be ranked: each is the same for all neurons.")]
    columns = [
        Column("scores", lambda key: PAIRS[key]),
        Column("all neurons", lambda key: _signed(found.all.get(key))),
        Column("median layer", lambda key: within(key, median)),
        Column("lowest", lambda key: within(key, min)),
        Column("highest", lambda key: within(key, max)),
    ]
    inside = [Column("layer", lambda layer: layer.layer)]
    for key, words in PAIRS.items():
        inside.append(Column(words, lambda layer, key=key: _signed(layer.pairs.get(key))))
    note = (
        "Spearman's rank correlation: 1 where both order the neurons alike, 0 where one says "
        "nothing of the other. Accuracy lost is that of neurons that were left out for real."
    )
    return [
        Table(columns, rows),
        Paragraph(note, "note"),
        Details("Within each layer", [Table(inside, found.layers)]),
    ]


def checked(result: ImportanceResult) -> list[Block]:
    """Exact, or how far the estimate is from neurons left out for real."""
    if result.divergence.method == "exact":
        return [
            Paragraph(
                "Every neuron's output was set to zero in turn, after its bias and before the "
                "activation, and what follows ran again: the work of "
                f"{result.divergence.exact_passes:,.0f} images."
            )
        ]
    columns = [
        Column("layer", lambda layer: layer.name),
        Column("left out", lambda layer: layer.jsd_sampled),
        Column("divergence, mean", lambda layer: number(layer.jsd_sample_mean)),
        Column("error, rms", lambda layer: number(layer.jsd_error)),
        Column("rank correlation", lambda layer: _signed(layer.jsd_rank_correlation)),
    ]
    return [
        Paragraph(how_estimated(result)),
        Details("Layer by layer", [Table(columns, result.layers)]),
    ]


def how_estimated(result: ImportanceResult) -> str:
    """Why divergences are estimates, and what they were checked with."""
    about = result.divergence
    ranks = [layer.jsd_rank_correlation for layer in result.layers]
    known = [rank for rank in ranks if rank is not None]
    against = f"; rank correlation {_signed(median(known))} in the median layer" if known else ""
    return (
        f"Divergences are estimated: leaving out every neuron would be the work of "
        f"{about.exact_passes:,.0f} images, and importance.exact_passes allows {about.limit:,}. "
        f"Estimates follow the {about.classes} likeliest classes; the others hold "
        f"{percent(about.neglected or 0.0)} of the probability. Some neurons of each layer were "
        f"left out on {about.sample_images} images to check them{against}."
    )


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}".replace("-", "−")
