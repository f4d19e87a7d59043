"""The few HTML pieces the report is made of. Text is escaped unless it is already `Html`."""

import re
from collections.abc import Iterable, Sequence
from html import escape

from afpjax.report.style import COLOURS, DEVICES

__all__ = [
    "Html",
    "details",
    "device",
    "figure",
    "html",
    "join",
    "paragraph",
    "range_bar",
    "scroll",
]
__all__ += ["table"]


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


def table(head: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "") -> Html:
    """A table in its own scrolling box; the first column is the rows' names."""
    cells = "".join(f"<th scope=col>{html(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return scroll(
        Html(f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>')
    )


def details(summary: object, *content: object) -> Html:
    """Closed until the reader asks for it."""
    return Html(f"<details><summary>{html(summary)}</summary>{join(content)}</details>")


def device(index: int, name: str = "") -> Html:
    """The device's coloured number and, if given, its name."""
    colour = f"var(--device-{index % len(DEVICES)})"
    key = f'<span class=key style="background:{colour}">{index + 1}</span>'
    return Html(f"<span class=nobr>{key}{html(name)}</span>" if name else key)


def range_bar(bounds: Sequence[float], mark: float, colour: str, reference: float | None) -> Html:
    """An interval of fractions on a scale from 0 to 1, its value marked, beside a reference."""
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in bounds)
    goal = "" if reference is None else _tick(reference, "var(--muted)")
    return Html(
        f'<span class=range aria-hidden=true><i style="left:{low:.2f}%;'
        f'width:{high - low:.2f}%;background:var(--{colour})"></i>'
        f"{_tick(mark, 'var(--ink)')}{goal}</span>"
    )


def _tick(fraction: float, colour: str) -> str:
    return f'<u style="left:calc({100 * fraction:.2f}% - 1px);background:{colour}"></u>'


def figure(svg: bytes, title: str, caption: object = "") -> Html:
    """An SVG inlined: it takes the page's colours and type, and its ids are dropped."""
    drawing = svg.decode()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r'<g id="[^"]*">', "<g>", drawing)
    drawing = re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf"<svg \1 {_label(title)}>", drawing, count=1
    )
    for name, colour in COLOURS.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    return Html(
        f"<figure><figcaption><b>{html(title)}</b>{html(caption)}</figcaption>{drawing}</figure>"
    )


def _label(title: str) -> str:
    return f'role="img" aria-label="{escape(title)}"'
