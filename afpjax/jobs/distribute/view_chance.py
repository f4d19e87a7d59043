"""Job `distribute`: devices that fail by chance, and bits that flip where devices are lost."""

from collections.abc import Sequence

from afpjax.jobs.distribute.view_rows import Row, bars, spreads
from afpjax.jobs.distribute.view_words import (
    Record,
    Setting,
    at,
    find,
    lost,
    method_look,
    method_name,
    ordered,
    settings,
)
from afpjax.report.markup import Html, details, device, estimate, figure, join, paragraph, table
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import Real, percent, points, rate
from afpjax.report.wording import join as listing

__all__ = ["CHANCE"]

_LOSSES = 8  # that a figure has room for
_LEVELS = ("5%", "25%", "50%", "75%", "95%")


def expected(result: Result) -> Block:
    """The accuracy to be expected, and how it is spread over runs."""
    records, clean = result["expected"], result.get("clean", {}).get("accuracy")
    drawn, shown = {}, []
    for place, kind in enumerate(dict.fromkeys(map(_kind, records))):
        devices, failure, flipped = kind
        mine = [record for record in records if _kind(record) == kind]
        rows = [
            Row(method_name(r["method"]), r, method_look(r["method"])[0], percent(r["accuracy"]))
            for r in ordered(mine)
        ]
        name = f"expected-{place + 1}.svg"
        drawn[name] = spreads({"": rows}, clean, "mean")
        title = f"{devices} devices{', whose bits flip besides' * flipped}"
        shown.append(figure(drawn[name], title, _chances(failure)))
    dashed = "; dashed: no device lost" if clean is not None else ""
    text = (
        "Each device is lost for a whole run with its own probability, by itself. Line: nine in "
        "ten runs; bar: the middle half of the runs; dot: the median; diamond: the mean, the "
        f"accuracy to be expected{dashed}. With every device lost no image is right."
    )
    layout = "grid" if len(shown) > 1 else "single"
    figures = Html(f"<div class={layout}>{join(shown)}</div>")
    numbers = details(f"All numbers ({len(records)})", _expected(records))
    return Block(join([paragraph(text), figures, numbers]), drawn)


def _kind(record: Record) -> tuple[int, tuple[Real, ...], bool]:
    """Devices, their probabilities, and whether bits flip too."""
    return record["devices"], tuple(record["failure"]), "trials" in record


def _chances(failure: Sequence[Real]) -> str:
    """`Each is lost with probability 0.1.`"""
    if len(set(failure)) == 1:
        return f"Each is lost with probability {rate(failure[0])}."
    return f"Lost with probability {listing([rate(each) for each in failure])}, in their order."


def _expected(records: Sequence[Record]) -> Html:
    rows = [
        (
            method_name(record["method"]) + ", bits flip" * ("trials" in record),
            record["devices"],
            estimate(record, "accuracy"),
            *(percent(record["quantiles"][level]) for level in _LEVELS),
            points(record["deviation_run"]),
            points(record["deviation_image"]),
            f"{record['sets']:,}{' drawn' * bool(record['sampled'])}",
        )
        for record in ordered(records)
    ]
    levels = [f"{level.removesuffix('%')}\u00a0%" for level in _LEVELS]
    head = ("method", "devices", "expected", *levels, "deviation, runs", "images", "sets")
    note = (
        "A column of so many per cent: that share of the runs is no better. Deviations are "
        "standard deviations of a run's accuracy in points: where devices are lost for a whole "
        "run, and where each image meets losses of its own."
    )
    return join([table(head, rows), paragraph(note, kind="note")])


def flips(result: Result) -> Block:
    """Bars of both together, diamonds of the lost devices alone."""
    records, clean = result["flips"], result.get("clean", {}).get("accuracy")
    drawn, shown = {}, []
    for devices in dict.fromkeys(record["devices"] for record in records):
        mine = [record for record in records if record["devices"] == devices]
        groups = {
            lost(each): _rows(result, at(mine, each), each) for each in settings(mine)[:_LOSSES]
        }
        name = f"flips-{devices}.svg"
        drawn[name] = bars(groups, clean)
        shown.append(figure(drawn[name], f"{devices} devices", "Diamond: without flipped bits."))
    dashed = "; dashed: no device lost and no bit flipped" if clean is not None else ""
    text = (
        "Bits of the weights and inputs that a device reads flip at its own rate, while other "
        "devices are lost; of a neuron's copies the one with the lowest rate is used. Bars are "
        "means over sets of lost devices and draws of flips, thick "
        f"lines 95\u00a0% intervals, thin uprights the worst and the best set{dashed}."
    )
    kind = "grid" if len(shown) > 1 else "single"
    figures = Html(f"<div class={kind}>{join(shown)}</div>")
    more = [_rates(records), details(f"All numbers ({len(records)})", _flips(result, records))]
    return Block(join([paragraph(text), figures, *more]), drawn)


def _alone(result: Result, record: Record, setting: Setting) -> Real | None:
    """The same devices lost and no flips."""
    if setting[1] == 0:
        return result.get("clean", {}).get("accuracy")
    found = find(result.get("methods", ()), record["method"], setting)
    return found["accuracy"] if found else None


def _rows(result: Result, records: Sequence[Record], setting: Setting) -> list[Row]:
    return [
        Row(
            method_name(record["method"]),
            record,
            method_look(record["method"])[0],
            hollow=_alone(result, record, setting),
        )
        for record in ordered(records)
    ]


def _rates(records: Sequence[Record]) -> Html:
    """Every device's chance that a bit flips, of the most devices that there are."""
    most = max(records, key=lambda record: len(record["weight_rate"]))
    rows = [
        (device(place), rate(weights), rate(inputs))
        for place, (weights, inputs) in enumerate(
            zip(most["weight_rate"], most["activation_rate"], strict=True)
        )
    ]
    return table(("device", "flip rate of weights", "of inputs"), rows)


def _flips(result: Result, records: Sequence[Record]) -> Html:
    rows = []
    for record in [row for each in settings(records) for row in ordered(at(records, each))]:
        alone = _alone(result, record, (record["devices"], record["failed"]))
        rows.append(
            (
                method_name(record["method"]),
                f"{record['failed']} of {record['devices']}",
                estimate(record, "accuracy"),
                estimate(record, "accuracy_worst"),
                estimate(record, "accuracy_best"),
                "–" if alone is None else percent(alone),
                f"{record['trials']:,}",
            )
        )
    head = ("method", "lost", "images right", "worst", "best", "without flips", "draws")
    return table(head, rows)


CHANCE = (
    Part("When devices fail by chance", ("expected",), expected),
    Part("Bit-flips and lost devices together", ("flips",), flips),
)
