"""Numbers and names as people read them."""

from collections.abc import Sequence

__all__ = ["Real", "change", "change_words", "costs_words", "interval", "join", "number"]
__all__ += ["percent", "plain_value", "points", "rate", "scaled", "short", "short_names", "size"]

Real = float | int  # JSON writes some numbers without a point
GAP = "\u00a0"  # between a number and its unit, never broken over two lines
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain_value(value: object) -> str:
    """A setting's value: lists with commas, a dash for what is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return "–" if value == "" else str(value)


def percent(fraction: Real) -> str:
    """0.931 -> `93.1 %`."""
    return f"{100 * fraction:.1f}{GAP}%"


def points(fraction: Real) -> str:
    """A difference of two fractions, in percentage points: 0.031 -> `3.1`."""
    return signed(100 * fraction, 1).lstrip("+")


def interval(bounds: Sequence[Real]) -> str:
    """[0.92, 0.94] -> `[92.0, 94.0]`, in percent."""
    low, high = bounds
    return f"[{100 * low:.1f},{GAP}{100 * high:.1f}]"


def number(value: Real, digits: int = 3) -> str:
    """`digits` significant digits, thousands set apart, powers of ten where zeros would pile up."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if not -4 < power < 9:
        text = f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}"
    else:
        text = f"{value:,.{max(0, digits - 1 - power)}f}"
    return text.replace("-", "−")


def rate(value: Real) -> str:
    """A chance as it was set: 0.2 -> `0.2`, 1e-06 -> `10⁻⁶`, 2.5e-06 -> `2.5×10⁻⁶`."""
    mantissa, times, power = number(value).partition("×")
    short_mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return power if times and short_mantissa == "1" else f"{short_mantissa}{times}{power}"


def signed(value: Real, digits: int = 0) -> str:
    """With its sign, a true minus, and no minus on zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def change(new: Real, old: Real) -> str:
    """How far `new` is from `old`: `+4 %`; empty where `old` is zero."""
    return f"{signed(100 * (new / old - 1))}{GAP}%" if old > 0 else ""


def change_words(new: Real, old: Real, what: str) -> str:
    """`4 % more latency`, `4 % less latency`, `about the same latency` or `the same latency`."""
    if new == old:
        return f"the same {what}"
    part = 100 * (new / old - 1) if old > 0 else float("inf")
    if round(abs(part), 1) == 0:
        return f"about the same {what}"
    more = "more" if part > 0 else "less"
    return f"{_few_digits(abs(part))}{more} {what}" if old > 0 else f"more {what}"


def costs_words(new: Sequence[Real], old: Sequence[Real], what: Sequence[str]) -> str:
    """All changes in one phrase; `the same latency and energy` where none differs."""
    if list(new) == list(old):
        return f"the same {join(what)}"
    return join([change_words(*each) for each in zip(new, old, what, strict=True)])


def _few_digits(part: float) -> str:
    """A percentage with one decimal below one."""
    return f"{part:.{0 if round(part, 1) >= 1 else 1}f}{GAP}% "


def scaled(value: Real) -> str:
    """A count: 12,345,678 -> `12.3 M`."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 0.9995 * 10**power:  # what rounds to a thousand is a thousand
            return f"{number(value / 10**power)}{GAP}{prefix}"
    return number(value) if value != int(value) else str(int(value))


def size(count: Real) -> str:
    """Bytes: 12,345 -> `12.3 kB`."""
    text = scaled(count)
    return f"{text}B" if GAP in text else f"{text}{GAP}B"


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def short(name: str, limit: int, head: int | None = None) -> str:
    """The name, its middle cut out after `head` characters where it is longer than `limit`."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3 if head is None else head
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def short_names(names: Sequence[str], limit: int = 16) -> list[str]:
    """Names cut to `limit`, without the dotted or slashed prefix that all of them share.

    The cut lies where it leaves the most names apart.
    """
    own = [name[_shared(names) :] for name in names]
    first = (limit - 1) // 3
    heads = sorted(range(limit), key=lambda head: abs(head - first))
    return max(
        ([short(name, limit, head) for name in own] for head in heads),
        key=lambda cut: len(set(cut)),
    )


def _shared(names: Sequence[str]) -> int:
    """Length of the prefix that all names share, up to a dot or slash; 0 for a single name."""
    if len(names) < 2:
        return 0
    shared = 0
    for index, (left, right) in enumerate(zip(min(names), max(names), strict=False)):
        if left != right:
            break
        shared = index + 1 if left in "./" else shared
    return shared
