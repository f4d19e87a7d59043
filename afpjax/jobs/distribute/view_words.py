"""Job `distribute`: what the page calls its methods and scores, and how it compares two of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afpjax.report.markup import Html, device, html
from afpjax.report.style import INK, METHODS
from afpjax.report.wording import GAP, Real, points

__all__ = ["METHOD_NAMES", "SCALES", "SUBSTITUTES", "Record", "Setting", "at", "close"]
__all__ += ["compared", "device_keys", "difference", "find", "first", "in_text", "is_apart", "lost"]
__all__ += ["method_look", "method_name", "one_of", "ordered", "scores_words", "settings"]
__all__ += ["share", "thresholds"]

Record = Mapping[str, Any]
Setting = tuple[int, int]  # devices, and how many of them failed

#: Method -> its name, in the order of every table and figure.
METHOD_NAMES = {
    "robustdice": "RobustDiCE",
    "topk": "Top-k replication",
    "random": "Random neurons",
    "randomk": "Random-k replication",
    "lop": "LOP",
    "cdc": "CDC",
    "cdc-safe-spare": "CDC, safe spare",
    "replication": "Full replication",
}
_IN_TEXT = {
    "topk": "top-k replication",
    "random": "its replicas for random neurons",
    "randomk": "random-k replication",
    "replication": "full replication",
    "cdc-safe-spare": "CDC with a safe spare",
}
SCORE_NAMES = {"l1": "l1", "taylor": "Taylor", "jsd": "JSD"}
#: How scores are brought to one scale -> its name.
SCALES = {"minmax": "min-max", "zscore": "z-score", "rank": "rank", "raw": "raw"}
#: What a lost neuron gives -> in words.
SUBSTITUTES = {
    "zero": "zero",
    "mean": "its mean over calibration images",
    "bias": "its layer's bias",
}
_LOOKS = {
    "robustdice": ("o", "-"),
    "topk": ("s", "--"),
    "random": ("^", ":"),
    "randomk": ("v", ":"),
    "lop": ("D", "-."),
    "replication": ("P", "-."),
}
_NUMERALS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SAME_MEMORY = 0.01  # of the network's weights


def method_name(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def in_text(method: str) -> str:
    """`top-k replication`, `LOP`: within a sentence."""
    return _IN_TEXT.get(method, method_name(method))


def method_look(method: str) -> tuple[str, str, str]:
    """Colour, marker and line."""
    return (METHODS.get(method, INK), *_LOOKS.get(method, ("X", "-.")))


def ordered(records: Sequence[Record]) -> list[Record]:
    """By method, as `METHOD_NAMES` has them; others last."""
    places = list(METHOD_NAMES)
    return sorted(
        records,
        key=lambda r: places.index(r["method"]) if r["method"] in places else len(places),
    )


def settings(records: Sequence[Record]) -> list[Setting]:
    """(devices, failed), in the order they come."""
    return list(dict.fromkeys((record["devices"], record["failed"]) for record in records))


def at(records: Sequence[Record], setting: Setting) -> list[Record]:
    """Those of this many devices of which this many failed."""
    return [record for record in records if (record["devices"], record["failed"]) == setting]


def find(records: Sequence[Record], method: str, setting: Setting) -> Record | None:
    return next((row for row in at(records, setting) if row["method"] == method), None)


def one_of(setting: Setting) -> str:
    """`one of 4 devices`."""
    devices, failed = setting
    word = _NUMERALS[failed] if failed < len(_NUMERALS) else str(failed)
    return f"{word} of {devices} devices"


def lost(setting: Setting) -> str:
    """`1 of 4 lost`."""
    devices, failed = setting
    return f"{failed or 'none'} of {devices} lost"


def first(records: Sequence[Record]) -> Setting:
    """The first number of devices with its smallest loss, where some are lost at all."""
    devices = records[0]["devices"]
    losses = sorted(record["failed"] for record in records if record["devices"] == devices)
    return devices, next((failed for failed in losses if failed), 0)


def share(fraction: Real) -> str:
    """Memory as a whole per cent: 0.594 -> `59 %`."""
    return f"{100 * fraction:.0f}{GAP}%"


def close(one: Record, other: Record) -> bool:
    """Whether both take as much memory."""
    return abs(one["memory"] - other["memory"]) <= _SAME_MEMORY


def is_apart(one: Record, other: Record, key: str = "accuracy") -> bool:
    """Whether the two intervals have nothing in common."""
    (low, high), (least, most) = one[f"{key}_interval"], other[f"{key}_interval"]
    return low > most or high < least


def difference(record: Record, sign: int = 1) -> str:
    """`28.2 points [25.7, 30.7]`; with `sign` -1 the other way round."""
    low, high = sorted(sign * end for end in record["difference_interval"])
    value = points(sign * record["difference"])
    return f"{value}{GAP}points [{points(low)},{GAP}{points(high)}]"


def compared(record: Record, other: str) -> str:
    """`28.2 points [25.7, 30.7] more than LOP`, or less, or that the interval holds zero.

    `as much as LOP` where no image tells the two apart.
    """
    low, high = record["difference_interval"]
    if low == high == 0:
        return f"as much as {other}"
    if low <= 0 <= high:
        return f"neither more nor less than {other} for certain ({difference(record)})"
    more = low > 0
    return f"{difference(record, 1 if more else -1)} {'more' if more else 'less'} than {other}"


def device_keys(devices: Sequence[int]) -> Html:
    """Their coloured numbers; none: a dash."""
    return Html("".join(device(each) for each in devices)) if devices else html("–")


def scores_words(names: str | Sequence[str]) -> str:
    """`l1 + Taylor + JSD` from a list or from `l1+taylor+jsd`."""
    each = names.split("+") if isinstance(names, str) else names
    return " + ".join(SCORE_NAMES.get(name, name) for name in each)


def thresholds(values: Sequence[Real], show: Callable[[Real], str] = "{:.3g}".format) -> str:
    """`0.1`, or the lowest and highest: `0.05 to 0.3`."""
    low, high = min(values), max(values)
    return show(low) if low == high else f"{show(low)} to {show(high)}"
