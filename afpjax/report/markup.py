"""The few HTML pieces the report is made of. Text is escaped unless it is already `Html`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from afpjax.report.style import COLOURS, DEVICES
from afpjax.report.wording import Real, interval, percent

__all__ = [
    "Html",
    "details",
    "device",
    "estimate",
    "figure",
    "html",
    "join",
    "on_device",
    "paragraph",
    "range_bar",
    "scroll",
    "table",
]


class Html(str):
    """Markup that is safe to put on the page as it stands."""


def html(text: object) -> Html:
    """`text` escaped, or as it is where it is markup already."""
    return text if isinstance(text, Html) else Html(escape(str(text)))


def join(parts: Iterable[object], between: str = "") -> Html:
    return Html(between.join(html(part) for part in parts))


def paragraph(*parts: object, kind: str = "") -> Html:
    return Html(f"<p{f' class={kind}' if kind else ''}>{join(parts)}</p>")


def scroll(content: Html) -> Html:
    """A box of its own for what may be wider than a phone."""
    return Html(f'<div class="scroll" tabindex="0">{content}</div>')


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], words: Sequence[int] = ()
) -> Html:
    """A table in its own scrolling box; the first column and those in `words` are left-aligned."""

    def line(cells: Sequence[object], tag: str) -> str:
        left = (" class=left" if place in words else "" for place in range(len(cells)))
        return "".join(
            f"<{tag}{kind}>{html(cell)}</{tag.split()[0]}>"
            for kind, cell in zip(left, cells, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    top = f"<thead><tr>{line(head, 'th scope=col')}</tr></thead>"
    return scroll(Html(f"<table>{top}<tbody>{body}</tbody></table>"))


def details(summary: object, *content: object) -> Html:
    """Closed until the reader asks for it."""
    return Html(f"<details><summary>{html(summary)}</summary>{join(content)}</details>")


def device(index: int, name: str = "") -> Html:
    """The device's coloured number and, if given, its name."""
    colour = f"var(--device-{index % len(DEVICES)})"
    key = f'<span class=key style="background:{colour};color:{on_device(index)}">{index + 1}</span>'
    return Html(f"<span class=nobr>{key}{html(name)}</span>" if name else key)


def on_device(index: int) -> str:
    """The colour in which text stands out on a device's."""
    return f"var(--on-device-{index % len(DEVICES)})"


def range_bar(bounds: Sequence[Real], mark: Real, colour: str, reference: Real | None) -> Html:
    """An interval of fractions on a scale from 0 to 1, its value marked, beside a reference."""
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in bounds)
    goal = "" if reference is None else _tick(reference, "var(--muted)")
    return Html(
        f'<span class=range aria-hidden=true><i style="left:{low:.2f}%;'
        f'width:{high - low:.2f}%;background:var(--{colour})"></i>'
        f"{_tick(mark, 'var(--ink)')}{goal}</span>"
    )


def _tick(fraction: Real, colour: str) -> str:
    return f'<u style="left:calc({100 * fraction:.2f}% - 1px);background:{colour}"></u>'


def estimate(record: Mapping[str, Any], key: str) -> Html:
    """The fraction `key` and its interval, in percent; a dash where there is none."""
    if key not in record:
        return html("–")
    bounds = record.get(f"{key}_interval")
    small = f" <small class=nobr>{interval(bounds)}</small>" if bounds else ""
    return Html(f"{percent(record[key])}{small}")


def figure(svg: bytes, title: str, caption: object = "") -> Html:
    """An SVG inlined: it takes the page's colours and type, and its ids are dropped."""
    drawing = svg.decode()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'<g id="[^"]*">', "<g>", drawing)
    box = re.search(r'viewBox="[^"]*"', drawing)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{escape(title)}">'
    drawing = head + drawing[drawing.index(">") + 1 :]
    for name, colour in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return Html(
        f"<figure><figcaption><b>{html(title)}</b>{html(caption)}</figcaption>{drawing}</figure>"
    )
