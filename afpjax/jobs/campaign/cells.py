"""The cells of job `campaign` as its page shows them: by target and rate, and how shares read."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from afpjax.jobs.campaign.result import ALL, CampaignResult, CellResult, Struck
from afpjax.jobs.shared.result import Estimate, NumberFormat
from afpjax.report.render import pieces
from afpjax.report.style import TOOLS
from afpjax.report.view import Column
from afpjax.report.wording import GAP, Real, rate

__all__ = ["CHANGED", "COLOURS", "LAYER", "RIGHT", "STRUCK", "TARGETS", "StruckCells"]
__all__ += ["bit_axis", "bit_name", "by_target", "estimated", "highest_first", "others", "share"]
__all__ += ["site", "telling", "where"]

#: Target -> where its faults strike.
TARGETS = {
    "weights": "the weights",
    "activations": "the activations",
    "link": "data crossing a link",
}
#: Target -> its colour in figures.
COLOURS = dict(zip(TARGETS, TOOLS.values(), strict=False))  # there are more tools
_EXPONENT = {"float32": 8, "bfloat16": 8, "float16": 5}  # bits below the sign


class StruckCells(NamedTuple):
    """The cells of one target; of masks, those at one rate, or on one device."""

    target: str
    cells: Sequence[CellResult]

    @property
    def title(self) -> str:
        """`Faults in the weights, rate 0.1`."""
        return f"Faults in {TARGETS[self.target]}{_at(self.cells[0])}"

    @property
    def sites(self) -> list[CellResult]:
        """Single faults that were named."""
        return [cell for cell in self.cells if cell.site]

    @property
    def whole(self) -> list[CellResult]:
        """The cell of all layers and bits together, if there is one."""
        return [cell for cell in self.cells if cell.layer == cell.bit == ALL]

    @property
    def layers(self) -> list[CellResult]:
        """One layer each, with all its bits."""
        return [cell for cell in self.cells if cell.layer != ALL == cell.bit]

    @property
    def bits(self) -> list[CellResult]:
        """One bit each, in all layers, the lowest first."""
        found = [cell for cell in self.cells if cell.layer == ALL != cell.bit]
        return sorted(found, key=lambda cell: int(cell.bit))

    @property
    def grid(self) -> dict[tuple[str, int | str], CellResult]:
        """One bit in one layer each, by both."""
        return {
            (cell.layer, cell.bit): cell
            for cell in self.cells
            if ALL not in (cell.layer, cell.bit) and not cell.site
        }


def by_target(result: CampaignResult) -> dict[str, list[StruckCells]]:
    """Target -> its cells by the rates and devices that they are struck at, in order."""
    found: dict[tuple[str, object], list[CellResult]] = {}
    for cell in result.cells:
        found.setdefault((cell.target, cell.setting), []).append(cell)
    targets = dict.fromkeys(cell.target for cell in result.cells)
    return {
        name: [StruckCells(name, cells) for (target, _), cells in found.items() if target == name]
        for name in targets
    }


def telling(result: CampaignResult) -> list[StruckCells]:
    """Of each target, the rate or device where cells differ most; of single cells, the highest."""

    def told(struck: StruckCells) -> tuple[float, float]:
        rates = [cell.sdc_rate.value for cell in struck.cells]
        return max(rates) - min(rates), max(rates)

    return [max(options, key=told) for options in by_target(result).values()]


def highest_first(cells: Sequence[CellResult]) -> list[CellResult]:
    """By SDC rate."""
    return sorted(cells, key=lambda cell: -cell.sdc_rate.value)


def others(cells: Sequence[CellResult]) -> str:
    """How many cells' intervals reach that of the highest, which is not told apart from them."""
    most, *rest = highest_first(cells)
    count = sum(cell.sdc_rate.high >= most.sdc_rate.low for cell in rest)
    return f", not told apart from {count} other{'s' * (count > 1)}" if count else ""


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


def estimated(estimate: Estimate | None) -> Markup | None:
    """A share and its interval: `0.12 % [0.012, 2.6]`."""
    if estimate is None:
        return None
    low, high = (share(bound, unit=False) for bound in estimate.bounds)
    return pieces().estimate(share(estimate.value), f"[{low},{GAP}{high}]")


def where(struck: Struck) -> str:
    """`weights`, or of masks `weights, simba, rate 0.1`."""
    return f"{struck.target}{_at(struck)}"


def _at(struck: Struck) -> str:
    if struck.rate is None:
        return ""
    device = f", {struck.device}" if struck.device else ""
    return f"{device}, rate{GAP}{rate(struck.rate)}"


def site(names: str) -> Markup:
    """Faults' names, which may break anywhere."""
    return Markup("<span class=sites>{}</span>").format(names)


def bit_name(bit: int | str, form: NumberFormat) -> str:
    """`bit 3`, `bit 15, the sign`."""
    return f"bit{GAP}{bit}{', the sign' * (bit == form.bits - 1)}"


def bit_axis(form: NumberFormat) -> str:
    """What an axis of bits is called: where the sign is, and the exponent."""
    sign, exponent = form.bits - 1, _EXPONENT.get(form.kind, 0)
    if not exponent:
        return f"bit (0 is the lowest, {sign} the sign)"
    return f"bit ({sign - exponent} to {sign - 1}: exponent, {sign}: sign)"


LAYER = Column("layer", lambda cell: cell.layer)
CHANGED = Column("another class", lambda cell: estimated(cell.sdc_rate))
RIGHT = Column("images right", lambda cell: estimated(cell.accuracy))
STRUCK = Column("struck", lambda cell: f"{cell.trials:,}")
