"""Mappings as strips: one block per layer, coloured and numbered by device, above each other."""

from collections.abc import Mapping, Sequence

from afpjax.report.markup import Html, html, join
from afpjax.report.style import DEVICES
from afpjax.report.wording import number, points

__all__ = ["strip"]

_NUMBERED = 28  # layers up to which a block is wide enough for its number on a phone


def strip(
    macs: Sequence[int], loss: Sequence[float], mappings: Mapping[str, Sequence[int]]
) -> Html:
    """Bars for the layers' work and loss, then one strip of devices for each named mapping."""
    few = " few" if len(macs) <= _NUMBERED else ""
    total = sum(macs) or 1
    rows = [_bars("Work (MACs)", macs, f"tallest {number(100 * max(macs) / total, 2)}\u00a0%", few)]
    if loss and max(loss) > 0:
        tallest = f"tallest {points(max(loss))} points"
        rows.append(_bars("Accuracy lost if struck alone, worst device", loss, tallest, few))
    rows += [_blocks(name, mapping, few) for name, mapping in mappings.items()]
    return Html(f'<div class="strip">{join(rows)}</div>')


def _bars(name: str, values: Sequence[float], scale: str, few: str) -> Html:
    top = max(values) or 1
    bars = "".join(f'<span style="height:{100 * max(v, 0) / top:.0f}%"></span>' for v in values)
    return Html(f'{_title(name, scale)}<div class="tall{few}" aria-hidden="true">{bars}</div>')


def _blocks(name: str, mapping: Sequence[int], few: str) -> Html:
    blocks = "".join(
        f'<span style="background:var(--device-{where % len(DEVICES)})">'
        f"{where + 1 if few else ''}</span>"
        for where in mapping
    )
    return Html(f'{_title(name)}<div class="blocks{few}">{blocks}</div>')


def _title(name: str, right: str = "") -> Html:
    return Html(f"<p><span>{html(name)}</span><small>{html(right)}</small></p>")
