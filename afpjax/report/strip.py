"""Mappings as strips: one block per layer, coloured and numbered by device, above each other."""

from collections.abc import Mapping, Sequence

from afpjax.report.markup import Html, html, join, on_device
from afpjax.report.style import DEVICES
from afpjax.report.wording import Real, number, points

__all__ = ["strip"]

_NUMBERED = 28  # layers up to which a block is wide enough for its number on a phone
_LANE = 0.5  # rem: height of a device's lane where there are no numbers


def strip(
    macs: Sequence[int],
    loss: Sequence[Real],
    mappings: Mapping[str, Sequence[int]],
    devices: int,
) -> Html:
    """Bars for the layers' work and loss, then one strip of devices for each named mapping.

    Where blocks are too narrow for numbers, each device has a lane of its own height, so that
    colour is never all that tells devices apart.
    """
    few = len(macs) <= _NUMBERED
    total = sum(macs) or 1
    tallest = f"tallest {number(100 * max(macs) / total, 2)}\u00a0%"
    rows = [_bars("Work (multiply-accumulates, MACs)", macs, tallest, few)]
    if loss and max(loss) > 0:
        tallest = f"tallest {points(max(loss))} points"
        rows.append(_bars("Accuracy lost if struck alone, worst device", loss, tallest, few))
    for name, mapping in mappings.items():
        rows.append(_blocks(name, mapping) if few else _lanes(name, mapping, devices))
    return Html(f'<div class="strip">{join(rows)}</div>')


def _bars(name: str, values: Sequence[Real], scale: str, few: bool) -> Html:
    top = max(values) or 1
    bars = "".join(f'<span style="height:{100 * max(v, 0) / top:.0f}%"></span>' for v in values)
    kind = "tall few" if few else "tall"
    return Html(f'{_title(name, scale)}<div class="{kind}" aria-hidden="true">{bars}</div>')


def _blocks(name: str, mapping: Sequence[int]) -> Html:
    blocks = "".join(
        f'<span style="background:{_colour(where)};color:{on_device(where)}">{where + 1}</span>'
        for where in mapping
    )
    return Html(f'{_title(name)}<div class="blocks few">{blocks}</div>')


def _lanes(name: str, mapping: Sequence[int], devices: int) -> Html:
    blocks = "".join(
        f'<span style="background:{_colour(where)};margin-bottom:'
        f'{_LANE * (devices - 1 - where):g}rem"></span>'
        for where in mapping
    )
    label = f"{name}: a device each lane, 1 to {devices} from the top"
    return Html(
        f"{_title(name, f'lanes: devices 1 to {devices}, downwards')}"
        f'<div class="lanes" style="height:{_LANE * devices:g}rem" role="img" '
        f'aria-label="{html(label)}">{blocks}</div>'
    )


def _colour(device: int) -> str:
    return f"var(--device-{device % len(DEVICES)})"


def _title(name: str, right: str = "") -> Html:
    return Html(f"<p><span>{html(name)}</span><small>{html(right)}</small></p>")
