"""Job `distribute`: the paper's Table I, scales of the scores, and what lost neurons give."""

from collections.abc import Callable, Mapping, Sequence

from afpjax.jobs.distribute.view_paper import ABLATION, of_model
from afpjax.jobs.distribute.view_rows import Row, dots
from afpjax.jobs.distribute.view_words import (
    SCALES,
    Record,
    at,
    compared,
    is_apart,
    lost,
    scores_words,
    settings,
    share,
)
from afpjax.report.markup import Html, details, estimate, figure, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.style import METHODS
from afpjax.report.wording import Real, percent, rate

__all__ = ["SCORES"]

_HEADS = {"scores": "scores", "normalise": "scale", "substitute": "a lost neuron gives"}
_COLOUR = METHODS["robustdice"]
_GIVES = {"zero": "zero", "mean": "its mean", "bias": "its layer's bias"}


def ablation(result: Result) -> Block:
    """Which scores the clusters need."""
    paper = ABLATION.get(of_model(result), {})
    text = (
        "RobustDiCE with each choice of importance scores (JSD: Jensen-Shannon divergence); the "
        "threshold is set for each so that memory is about the same."
    )
    note = (
        "Paper: top-1 on ImageNet-1K with one of four devices lost, thresholds and memory not "
        "given." * bool(paper)
    )
    more = [("paper", lambda row: _paper(paper, row))] * bool(paper)
    block = _compared(result, "ablation", "scores", scores_words, more)
    return Block(join([paragraph(text, f" {note}" * bool(note)), block.html]), block.figures)


def _paper(paper: Mapping[str, Real], record: Record) -> str:
    return percent(paper[record["scores"]]) if record["scores"] in paper else "–"


def normalisations(result: Result) -> Block:
    """What bringing the scores to one scale does."""
    text = (
        "The paper does not say how scores of different units are made comparable. Here they are "
        "scaled within each layer: to between 0 and 1 (min-max), to mean 0 and deviation 1 "
        "(z-score), to their ranks, or not at all (raw); thresholds are set so that memory is "
        "about the same."
    )
    block = _compared(result, "normalisations", "normalise", lambda key: SCALES.get(key, key))
    return Block(join([paragraph(text), block.html]), block.figures)


def substitutes(result: Result) -> Block:
    """What stands in for lost neurons; the placement is the same."""
    text = (
        "What a neuron without a living copy gives, after its layer's folded bias and before the "
        "activation: zero as in the paper, its mean over calibration images, or its layer's bias "
        "alone. All else is as above."
    )
    block = _compared(
        result, "substitutes", "substitute", lambda key: _GIVES.get(key, key), said=_beside_zero
    )
    return Block(join([paragraph(text), block.html]), block.figures)


def _compared(
    result: Result,
    key: str,
    what: str,
    name: Callable[[str], str],
    more: Sequence[tuple[str, Callable[[Record], object]]] = (),
    said: Callable[[Sequence[Record], str, Callable[[str], str], str], str] | None = None,
) -> Block:
    """A figure of the records under `key`, what it says in words, and its numbers."""
    records = result[key]
    groups = {
        lost(each): [
            Row(name(row[what]), row, _COLOUR, share(row["memory"]) if "memory" in row else "")
            for row in at(records, each)
        ]
        for each in settings(records)
    }
    clean = result.get("clean", {}).get("accuracy")
    memory = any("memory" in record for record in records)
    svg = dots(groups, clean, "memory" if memory else "")
    say = said or _best
    told = [say(at(records, each), what, name, lost(each)) for each in settings(records)]
    words = join([paragraph(each) for each in told if each])
    numbers = details(f"All numbers ({len(records)})", _table(records, what, name, more))
    dashed = "; dashed: no device lost" if clean is not None else ""
    shown = figure(svg, "RobustDiCE's accuracy", f"Bars are 95\u00a0% intervals{dashed}.")
    pair = Html(f"<div class=pair><div>{words}{numbers}</div>{shown}</div>")
    return Block(pair, {f"{key}.svg": svg})


def _beside_zero(
    records: Sequence[Record], what: str, name: Callable[[str], str], where: str
) -> str:
    """What the others keep more than zero does, on the same images."""
    differ = [
        f"{name(record[what])} keeps {compared(record, 'zero')}"
        for record in records
        if "difference_interval" in record
    ]
    return f"{where}: {'; '.join(differ)}." if differ else _best(records, what, name, where)


def _best(records: Sequence[Record], what: str, name: Callable[[str], str], where: str) -> str:
    """The highest accuracy, and whether its interval lies apart from the others'."""
    best = max(records, key=lambda record: record["accuracy"])
    others = [record for record in records if record is not best]
    if not others:
        return ""
    if all(record["accuracy"] == best["accuracy"] for record in others):
        return f"{where}: all have {percent(best['accuracy'])} right."
    near = [name(record[what]) for record in others if not is_apart(best, record)]
    if not near:
        told = "its interval is apart from all others"
    elif len(near) == len(others):
        told = "its interval meets all others'" if len(others) > 1 else "the intervals meet"
    else:
        told = f"its interval meets that of {'; '.join(near)}"
    return f"{where}: highest with {name(best[what])}, {percent(best['accuracy'])}; {told}."


def _table(
    records: Sequence[Record],
    what: str,
    name: Callable[[str], str],
    more: Sequence[tuple[str, Callable[[Record], object]]],
) -> Html:
    """Columns that no record has, and what is lost where it is always the same, are left out."""
    columns: list[tuple[str, Callable[[Record], object]]] = [
        (_HEADS[what], lambda record: name(record[what]))
    ]
    if len(settings(records)) > 1:
        columns.append(("lost", lambda r: f"{r['failed']} of {r['devices']}"))
    if any("threshold" in record for record in records):
        columns.append(("threshold", lambda r: rate(r["threshold"]) if "threshold" in r else "–"))
    if any("memory" in record for record in records):
        columns.append(("memory", lambda r: percent(r["memory"]) if "memory" in r else "–"))
    columns += [("images right", lambda record: estimate(record, "accuracy")), *more]
    rows = [[show(record) for _, show in columns] for record in records]
    return table([head for head, _ in columns], rows)


SCORES = (
    Part("What each importance score is worth", ("ablation",), ablation),
    Part("Scores on one scale", ("normalisations",), normalisations),
    Part("What stands in for a lost neuron", ("substitutes",), substitutes),
)
