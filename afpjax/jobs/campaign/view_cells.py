"""The cells of job `campaign`: which there are, and how a page words what they hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afpjax.report.markup import Html, html
from afpjax.report.story import Result
from afpjax.report.style import TOOLS
from afpjax.report.wording import GAP, Real, join, rate

__all__ = ["ALL", "COLOURS", "ENDINGS", "TARGETS", "Record", "apart", "bit_axis", "bits_words"]
__all__ += ["bounds", "by_bit", "by_layer", "endings", "estimated", "grid", "settings", "share"]
__all__ += ["setting_words", "span", "spread", "targets", "telling", "whole"]

Record = Mapping[str, Any]
Setting = tuple[Real | None, str | None]  # rate and device

ALL = "all"
#: Target -> where its faults strike.
TARGETS = {
    "weights": "the weights",
    "activations": "the activations",
    "link": "data crossing a link",
}
#: Target -> its colour in figures.
COLOURS = dict(zip(TARGETS, TOOLS.values(), strict=True))
#: How a fault ends for an image -> in a few words; every (fault, image) pair is in one of them.
ENDINGS = {
    "masked": "masked",
    "tolerable": "tolerable",
    "shaken": "probability off >10 %",
    "sdc1": "another class",
    "non_finite": "not finite",
}
_EXPONENT = {"float32": 8, "bfloat16": 8, "float16": 5}  # bits below the sign
_FEW = 3  # bits that are named one by one


def targets(result: Result) -> list[str]:
    """Those that have cells, in the order they come."""
    return list(dict.fromkeys(cell["target"] for cell in result.get("cells", ())))


def settings(result: Result, target: str) -> list[Setting]:
    """The rates or devices of a target's cells; one of nothing where faults are single."""
    return list(dict.fromkeys(_setting(c) for c in result["cells"] if c["target"] == target))


def setting_words(setting: Setting) -> str:
    """`rate 0.1`, `simba (rate 0.1)` or nothing."""
    chance, device = setting
    if chance is None:
        return ""
    words = f"rate{GAP}{rate(chance)}"
    return f"{device}, {words}" if device else words


def _setting(cell: Record) -> Setting:
    return cell.get("rate"), cell.get("device")


def _cells(
    result: Result, target: str, setting: Setting | None, holds: Callable[[Record], bool]
) -> list[Record]:
    return [
        cell
        for cell in result["cells"]
        if cell["target"] == target
        and "site" not in cell
        and (setting is None or _setting(cell) == setting)
        and holds(cell)
    ]


def whole(result: Result, target: str, setting: Setting | None = None) -> list[Record]:
    """Cells of all layers and bits together."""
    return _cells(result, target, setting, lambda c: c["layer"] == c["bit"] == ALL)


def by_layer(result: Result, target: str, setting: Setting | None = None) -> list[Record]:
    """Cells of one layer with all its bits, in the order the layers run."""
    return _cells(result, target, setting, lambda c: c["layer"] != ALL and c["bit"] == ALL)


def by_bit(result: Result, target: str, setting: Setting | None = None) -> list[Record]:
    """Cells of one bit in all layers, the lowest first."""
    found = _cells(result, target, setting, lambda c: c["layer"] == ALL and c["bit"] != ALL)
    return sorted(found, key=lambda cell: cell["bit"])


def grid(result: Result, target: str, setting: Setting | None = None) -> list[Record]:
    """Cells of one bit in one layer."""
    return _cells(result, target, setting, lambda c: c["layer"] != ALL and c["bit"] != ALL)


def spread(cells: Sequence[Record]) -> Real:
    """How far the highest SDC rate is from the lowest."""
    rates = [cell["sdc_rate"] for cell in cells]
    return max(rates) - min(rates)


def telling(result: Result, target: str) -> Setting:
    """The rate or device that tells layers (or else bits, or layers' bits) apart best."""

    def told(setting: Setting) -> Real:
        for cells in (by_layer, by_bit, grid, whole):
            if found := cells(result, target, setting):
                return spread(found) if cells is not whole else found[0]["sdc_rate"]
        return 0

    return max(settings(result, target), key=told)


def bounds(cell: Record, key: str) -> tuple[float, float]:
    """The interval of `key`, as fractions; of no width where there is none."""
    low, high = cell.get(f"{key.removesuffix('_rate')}_interval", (cell[key], cell[key]))
    return float(low), float(high)


def apart(cells: Sequence[Record]) -> list[Record]:
    """The highest, and those whose intervals reach its own, the highest first."""
    ranked = sorted(cells, key=lambda cell: -cell["sdc_rate"])
    least = bounds(ranked[0], "sdc_rate")[0]
    return [cell for cell in ranked if bounds(cell, "sdc_rate")[1] >= least]


def endings(cell: Record) -> dict[str, float]:
    """Shares of `ENDINGS`, which sum to 1; `shaken` keeps its class but not its probability."""
    found = {name: float(cell.get(name, 0)) for name in ENDINGS}
    return found | {"shaken": max(0.0, 1 - sum(found.values()))}


def share(fraction: Real, unit: bool = True) -> str:
    """In percent, with two digits where one decimal would say 0: 0.00012 -> `0.012 %`."""
    part = 100 * fraction
    if part == 0:
        text = "0"
    elif part < 0.001:
        text = "<0.001"
    else:
        text = f"{part:.1f}" if part >= 0.995 else f"{part:.2g}"
    return f"{text}{GAP}%" if unit else text


def span(limits: Sequence[Real]) -> str:
    """An interval in percent: `[0.012, 2.6]`."""
    low, high = (share(limit, unit=False) for limit in limits)
    return f"[{low},{GAP}{high}]"


def estimated(cell: Record, key: str) -> Html:
    """A share and its interval."""
    if key not in cell:
        return html("–")
    small = f" <small class=nobr>{html(span(bounds(cell, key)))}</small>"
    return Html(f"{html(share(cell[key]))}{small}")


def bits_words(bits: Sequence[int], result: Result) -> str:
    """`the sign bit (15)`, `bit 3`, `bits 13, 14 and the sign, 15`, `bits 3 to 9`."""
    form = result.get("format", {})
    sign, low = (
        form.get("bits", 0) - 1,
        form.get("bits", 0) - 1 - _EXPONENT.get(form.get("kind", ""), 0),
    )
    ordered = sorted(bits)
    if len(ordered) == 1:
        if ordered[0] == sign:
            return f"the sign bit ({sign})"
        exponent = " of the exponent" if low <= ordered[0] < sign else ""
        return f"bit{GAP}{ordered[0]}{exponent}"
    named = [f"{'the sign, ' * (bit == sign)}{bit}" for bit in ordered]
    run = ordered == list(range(ordered[0], ordered[-1] + 1))
    if run and len(named) > _FEW:
        return f"bits {named[0]} to {named[-1]}"
    return f"bits {join(named)}"


def bit_axis(result: Result) -> str:
    """What an axis of bits is called: where the sign is, and the exponent."""
    form = result.get("format", {})
    if "bits" not in form:
        return "bit (0 is the lowest)"
    sign, exponent = form["bits"] - 1, _EXPONENT.get(form.get("kind", ""), 0)
    if not exponent:
        return f"bit (0 is the lowest, {sign} the sign)"
    return f"bit ({sign - exponent} to {sign - 1}: exponent, {sign}: sign)"
