"""Numbers and names as people read them."""

from collections.abc import Sequence

__all__ = ["change", "change_words", "interval", "join", "number", "percent", "points", "scaled"]
__all__ += ["short", "short_names", "size"]

GAP = "\u00a0"  # between a number and its unit, never broken over two lines
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(fraction: float) -> str:
    """0.931 -> `93.1 %`."""
    return f"{100 * fraction:.1f}{GAP}%"


def points(fraction: float) -> str:
    """A difference of two fractions, in percentage points: 0.031 -> `3.1`."""
    return signed(100 * fraction, 1).lstrip("+")


def interval(bounds: Sequence[float]) -> str:
    """[0.92, 0.94] -> `[92.0, 94.0]`, in percent."""
    low, high = bounds
    return f"[{100 * low:.1f},{GAP}{100 * high:.1f}]"


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, thousands set apart, powers of ten where zeros would pile up."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if not -4 < power < 9:
        return f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}"
    return f"{value:,.{max(0, digits - 1 - power)}f}"


def signed(value: float, digits: int = 0) -> str:
    """With its sign, a true minus, and no minus on zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def change(new: float, old: float) -> str:
    """How far `new` is from `old`: `+4 %`; empty where `old` is zero."""
    return f"{signed(100 * (new / old - 1))}{GAP}%" if old > 0 else ""


def change_words(new: float, old: float, what: str) -> str:
    """`4 % more latency`, `4 % less latency` or `the same latency`."""
    if old <= 0:
        return f"{number(new)} of {what}"
    part = 100 * (new / old - 1)
    if round(abs(part)) == 0:
        return f"the same {what}"
    return f"{abs(part):.0f}{GAP}% {'more' if part > 0 else 'less'} {what}"


def scaled(value: float) -> str:
    """A count: 12,345,678 -> `12.3 M`."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{number(value / 10**power)}{GAP}{prefix}"
    return number(value) if value != int(value) else str(int(value))


def size(count: float) -> str:
    """Bytes: 12,345 -> `12.3 kB`."""
    text = scaled(count)
    return f"{text}B" if GAP in text else f"{text}{GAP}B"


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def short(name: str, limit: int) -> str:
    """The name, its middle cut out where it is longer than `limit` characters."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def short_names(names: Sequence[str], limit: int = 16) -> list[str]:
    """Names cut to `limit`, without the dotted or slashed prefix that all of them share."""
    if len(names) < 2:
        return [short(name, limit) for name in names]
    first, last = min(names), max(names)
    shared = 0
    for index, (left, right) in enumerate(zip(first, last, strict=False)):
        if left != right:
            break
        shared = index + 1 if left in "./" else shared
    return [short(name[shared:], limit) for name in names]
