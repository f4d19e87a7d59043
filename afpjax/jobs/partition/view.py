"""The report of job `partition`: what the fault-aware mapping is worth, and what it looks like."""

from collections.abc import Mapping
from typing import Any

from afpjax.jobs.partition.view_detail import DETAIL
from afpjax.jobs.partition.view_mapping import front, mapping
from afpjax.report.markup import (
    Html,
    device,
    estimate,
    html,
    join,
    paragraph,
    range_bar,
    scroll,
    table,
)
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.tools import SCENARIOS, TOOL_NAMES, find_row
from afpjax.report.wording import (
    Real,
    change,
    costs_words,
    number,
    percent,
    rate,
)
from afpjax.report.wording import join as listed

__all__ = ["STORY"]

_COSTS = ("latency_ms", "energy_mj")
_OWNERS = {"fault-unaware": "the fault-unaware mapping", "cnnparted": "CNNParted's"}


def answer(result: Result) -> Html:
    """The whole result in a sentence, true whichever tool is ahead."""
    ours, other = find_row(result, "afarepart"), find_row(result, "fault-unaware")
    if ours is None or other is None:
        return html("Where each layer of the network should run")
    costs = costs_words(
        [ours[key] for key in _COSTS], [other[key] for key in _COSTS], ("latency", "energy")
    )
    return Html(
        f"When bits flip in weights and activations, AFarePart's mapping gets {_bold(ours)} of "
        f"images right and the fault-unaware mapping {_bold(other)}; "
        f"AFarePart's costs <b>{costs}</b>."
    )


def _bold(row: Mapping[str, Any]) -> Html:
    return Html(f"<b>{estimate(row, 'accuracy')}</b>")


def lead(result: Result) -> Html:
    """What a newcomer must know to read the rest."""
    devices = len(result.get("devices", ()))
    text = (
        "A mapping says which layer of the network runs on which of "
        f"{devices or 'several'} accelerators; each flips bits at its own rate. CNNParted "
        "(neighbouring layers together) and the fault-unaware search look for little latency and "
        "energy, AFarePart also for accuracy under faults. "
    )
    clean = result.get("clean", {}).get("accuracy")
    without = f"Without faults the network gets {percent(clean)} right. " if clean else ""
    return paragraph(text, without, _on_links(result), _verdict(result))


def _on_links(result: Result) -> str:
    """What happens to values that cross from one device to another, where anything does."""
    link = result.get("faults", {}).get("link")
    if not link:
        return ""
    what = {
        "bits": "of the bits flip",
        "zero": "of the packets are lost, and read as zeros",
        "last": "of the packets are lost, and read as the last value that arrived",
        "resent": "of the packets are lost, and sent again",
    }[link["kind"]]
    return f"On the way from one device to another a share of {rate(link['rate'])} {what}. "


def _verdict(result: Result) -> str:
    """Whether the intervals tell AFarePart from the baselines."""
    ours = find_row(result, "afarepart")
    if ours is None:
        return ""
    words: dict[str, list[str]] = {}
    for tool, owner in _OWNERS.items():
        if row := find_row(result, tool):
            words.setdefault(_standing(ours, row), []).append(owner)
    said = {
        "above": "gets more images right than {} (the 95 % intervals are apart)",
        "below": "gets fewer images right than {} (the 95 % intervals are apart)",
        "level": "may differ from {} by chance alone (the 95 % intervals overlap)",
        "same": "is the same as {}",
    }
    parts = [text.format(listed(words[key])) for key, text in said.items() if key in words]
    return f"AFarePart's mapping {'; it '.join(parts)}." if parts else ""


def _standing(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if "mapping" in ours and ours["mapping"] == other.get("mapping"):
        return "same"
    (low, high), (start, end) = ours["accuracy_interval"], other["accuracy_interval"]
    return "above" if low > end else "below" if high < start else "level"


def comparison(result: Result) -> Block:
    """Three tools, three scenarios: accuracy with its interval, and what it costs."""
    clean = result.get("clean", {}).get("accuracy")
    body = ""
    for scenario, title in SCENARIOS.items():
        rows = [row for tool in TOOL_NAMES if (row := find_row(result, tool, scenario))]
        if rows:
            body += f"<tr class=group><th colspan=4 scope=rowgroup>{html(title)}</th></tr>"
            body += "".join(_comparison_row(row, result, clean) for row in rows)
    head = (
        "<th scope=col>mapping by<th scope=col class=acc>images right"
        "<th scope=col>latency<br>ms<th scope=col>energy<br>mJ"
    )
    note = (
        "Brackets and bars: 95 % interval, bars from 0 to 100 %"
        + ("; the grey mark is the network without faults" if clean is not None else "")
        + ". Small figures: change from the fault-unaware mapping. "
        "AFarePart searched anew for each kind of fault."
    )
    grid = (
        f'<table class="compare wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    return Block(join([scroll(Html(grid)), paragraph(note, kind="note")]))


def _comparison_row(row: Mapping[str, Any], result: Result, clean: Real | None) -> str:
    other = find_row(result, "fault-unaware", row["scenario"])
    bar = range_bar(row["accuracy_interval"], row["accuracy"], row["tool"], clean)

    def cost(key: str) -> str:
        apart = change(row[key], other[key]) if other and other is not row else ""
        return f"<td>{number(row[key])}{f'<br><small>{apart}</small>' if apart else ''}</td>"

    return (
        f"<tr{' class=ours' if row['tool'] == 'afarepart' else ''}>"
        f"<td>{TOOL_NAMES[row['tool']]}</td>"
        f"<td class=acc>{estimate(row, 'accuracy')}{bar}</td>"
        f"{cost('latency_ms')}{cost('energy_mj')}</tr>"
    )


def devices(result: Result) -> Block:
    """The devices: how often they err, what the whole network would cost there, what they got."""
    chosen = result["selected"]["mapping"]
    flips = _flips(result)
    rows = []
    for index, name in enumerate(result["devices"]):
        own = [record for record in result.get("costs", ()) if record["device"] == name]
        rows.append(
            (
                device(index, name),
                *(rate(rates[index]) if index < len(rates) else "–" for rates in flips.values()),
                *(number(sum(r[key] for r in own)) if own else "–" for key in _COSTS),
                chosen.count(index),
            )
        )
    head = ("device", *flips, "whole<br>net, ms", "whole<br>net, mJ", "its<br>layers")
    note = (
        "Bit flips: chance that a faulty bit flips (the likeliest, where bits differ)."
        " Its layers: how many of them AFarePart's mapping puts there."
    )
    return Block(join([table(list(map(Html, head)), rows), paragraph(note, kind="note")]))


def _flips(result: Result) -> dict[str, list[Real]]:
    """Column -> a rate per device; one column where weights and activations have the same."""
    faults = result.get("faults", {})
    weights, activations = (list(faults.get(f"{k}_rate", ())) for k in ("weight", "activation"))
    if weights == activations:
        return {"bit<br>flips": weights} if weights else {}
    return {"weight<br>bit flips": weights, "activation<br>bit flips": activations}


STORY = Story(
    answer,
    lead,
    (
        Part("Three tools, three kinds of fault", ("table",), comparison),
        Part("Which layer runs where", ("selected", "model", "devices"), mapping),
        Part("The devices", ("devices", "selected", "model"), devices),
        Part("Every trade-off found", ("front",), front),
        *DETAIL,
    ),
)
