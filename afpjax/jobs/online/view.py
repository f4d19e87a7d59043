"""What job `online` says: what re-partitioning while the system runs is worth."""

from collections.abc import Sequence

from markupsafe import Markup

from afpjax.jobs.online.charts import POLICY_NAMES, over_time, seen
from afpjax.jobs.online.result import ALL, Event, OnlineResult, Policy, PolicyGain
from afpjax.jobs.shared import view as shared
from afpjax.jobs.shared.result import Estimate
from afpjax.report.render import pieces
from afpjax.report.view import (
    Beside,
    Block,
    Chart,
    Column,
    Details,
    Paragraph,
    Part,
    Table,
    View,
)
from afpjax.report.wording import GAP, interval, number, percent, points, rate, signed

_REASONS = {
    "accuracy": "too much is lost",
    "search again": "not enough found yet",
    "above limits": "the mapping costs more than it may",
    "device lost": "a device is gone",
    "device back": "a device is back",
    "review": "the first one again?",
}
_COMPARED = (
    "Latency and energy are for an image, with what probes and moved weights took spread over the "
    "stream. The safest mapping (the network on the device with the lowest estimated rate, but for "
    "what would cost too much there) and the stored front's best are taken without a search. An "
    "exact program finds the fewest faulty bits within the limits and, as surrogate, the least sum "
    "of what each layer was learnt to lose at the estimated rates: it may take as long as a "
    "search. The oracle knows the true rates, and its searches take no time."
)


def view(result: OnlineResult) -> View:
    """Streams over time, the policies, what was seen, and how the alarm works."""
    return View(
        headline=headline(result),
        lead=[lead(result)],
        parts=[
            Part("Over time", time_lines(result)),
            Part("Is it worth its cost?", worth(result)),
            Part("What was seen, and what was done", observed(result)),
            Part("How the alarm works", alarm(result)),
            Part("Where it began", begun(result)),
        ],
        summary=[policies(result.policies), *paired(result), *summary(result)],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: OnlineResult) -> Markup:
    """How long too much is lost, with and without the online phase."""
    above = {row.policy: percent(row.means.above) for row in result.overall}
    text = Markup("More than {} of accuracy are lost in <b>{}</b> of the time").format(
        f"{100 * result.theta:g}{GAP}points", above["online"]
    )
    if "never" in above:
        text += f", and in {above['never']} if nothing is ever moved"
    return text + "."


def lead(result: OnlineResult) -> str:
    """What was run, and how rarely it acts for nothing."""
    stream, count = result.stream, len(result.traces)
    return (
        f"{count} environment{'s' if count > 1 else ''}, {stream.seeds} "
        f"stream{'s' if stream.seeds > 1 else ''} each, batches of {stream.batch} images with "
        f"{_canaries(result)}. The system acts on evidence, not on one bad batch: at most "
        f"{rate(result.watch.false_alarms_per_hour)} false alarms an hour."
    )


def _canaries(result: OnlineResult) -> str:
    kind = "labelled canaries" if result.stream.labels else "images that a clean reference sees too"
    return f"{result.stream.canaries} {kind}"


def summary(result: OnlineResult) -> list[str]:
    """What the command prints below the table."""
    stream, watch = result.stream, result.watch
    return [
        f"theta: {100 * result.theta:g} points of accuracy; {_canaries(result)} in each batch of "
        f"{stream.batch}; seeds: {stream.seeds}.",
        f"False alarms: at most {watch.false_alarms_per_hour:g} an hour at {stream.fps:g} images "
        f"per second, one in {watch.alarm:,.0f} batches on average.",
        *(
            f"Measured, {row.environment}: {row.alarms} alarms in {row.batches:,} batches of which "
            f"{percent(row.failing)} of the canaries fail."
            for row in result.false_alarms
        ),
    ]


def time_lines(result: OnlineResult) -> list[Block]:
    """The first stream of every environment."""
    drawn = []
    for place, trace in enumerate(result.traces, start=1):
        moments = [moment for moment in result.timelines if moment.trace == trace.trace]
        svg = over_time(moments, result.theta)
        drawn.append(Chart(f"time-{place}", svg, trace.trace, trace.description))
    text = (
        "From above: the highest flip rate of any device, the accuracy lost (true; dashed: theta; "
        "dots: another mapping), latency and energy of an image."
    )
    return [Paragraph(text), Beside(drawn)]


def worth(result: OnlineResult) -> list[Block]:
    """The policies side by side, and paired differences."""
    overall = result.overall
    others = [row for row in result.policies if row.trace != overall[0].trace]
    each = Details("Environment by environment", [policies(others)])
    return [
        policies(overall),
        *paired(result),
        *([each] if others else []),
        Paragraph(_COMPARED),
    ]


def paired(result: OnlineResult) -> list[Table[PolicyGain]]:
    """What one policy has more than another, stream by stream; nothing with one policy alone."""
    gains = [row for row in result.gains if row.trace == result.overall[0].trace]
    columns = [
        Column(
            "in pairs", lambda row: f"{POLICY_NAMES[row.policy]} against {POLICY_NAMES[row.over]}"
        ),
        Column(
            "images right, points",
            lambda row: _more(row.means.accuracy, row.means.accuracy_interval),
        ),
        Column(
            "time above theta, points", lambda row: _more(row.means.above, row.means.above_interval)
        ),
        Column("latency, ms", lambda row: _added(row.means.latency_ms)),
        Column("energy, mJ", lambda row: _added(row.means.energy_mj)),
    ]
    return [Table(columns, gains)] if gains else []


def _added(value: float) -> str:
    """A difference with its sign."""
    return f"{'−' if value < 0 else '+'}{number(abs(value))}" if value else "0"


def policies(rows: Sequence[Policy]) -> Table[Policy]:
    """The policies by environment: what is right, what is lost too long, and what it costs."""
    columns = [
        Column("policy", lambda row: POLICY_NAMES[row.policy]),
        Column("images right", lambda row: percent(row.means.accuracy)),
        Column("95 %", lambda row: _bounds(row.means.accuracy_interval), page_only=True),
        Column("time above theta", lambda row: percent(row.means.above)),
        Column("95 %", lambda row: _bounds(row.means.above_interval), page_only=True),
        Column("latency, ms", lambda row: number(row.means.latency_ms)),
        Column("energy, mJ", lambda row: number(row.means.energy_mj)),
        Column("switches", lambda row: f"{row.means.switches:.1f}"),
    ]
    return Table(
        columns,
        rows,
        strong=lambda row: row.policy == "online",
        group=lambda row: "all environments" if row.trace == ALL else row.trace,
    )


def _bounds(bounds: tuple[float, float] | None) -> str | None:
    return None if bounds is None else interval(bounds)


def _more(difference: float, bounds: tuple[float, float] | None) -> str:
    """A difference in points with its sign, and its interval."""
    value, *ends = (signed(100 * each, 1) for each in (difference, *(bounds or ())))
    return f"{value} [{f',{GAP}'.join(ends)}]" if ends else value


def observed(result: OnlineResult) -> list[Block]:
    """What the system saw of its first stream, and what it decided."""
    svg = seen(result.events, result.clean.accuracy, result.theta, result.watch.alarm)
    caption = (
        "Uprights: another mapping. Dashed: theta is lost; enough evidence for an alarm (a mark)."
    )
    decided = [event for event in result.events if event.reason]
    columns = [
        Column("step", lambda event: event.step),
        Column("why", _why, left=True),
        Column("flip rates, estimated", lambda event: _rates(result.devices, event), left=True),
        Column(
            "drop expected, points",
            lambda event: None if event.expected_drop is None else points(event.expected_drop),
        ),
    ]
    return [
        Chart("seen", svg, "What canaries told", caption),
        Table(columns, decided) if decided else Paragraph("Nothing was decided."),
    ]


def _why(event: Event) -> str:
    reason = _REASONS.get(str(event.reason), str(event.reason))
    return f"{reason} (out of time)" if event.cut else reason


def _rates(devices: Sequence[str], event: Event) -> Markup | None:
    """The devices' numbers, each with its rate."""
    shown = [
        Markup("{} {}").format(
            pieces().device(list(devices).index(one.device)), percent(one.rate.value)
        )
        for one in event.estimated or ()
    ]
    return Markup(" ").join(shown) if shown else None


def alarm(result: OnlineResult) -> list[Block]:
    """What makes the system act."""
    watch, stream, search = result.watch, result.stream, result.searches
    text = (
        f"Each batch has {stream.canaries} canaries of {stream.pool} that the fault-free network "
        f"answers as it should. Evidence grows where more than {percent(watch.limit)} of them "
        f"fail, and falls where fewer do; at {number(watch.alarm)} the system acts. "
        "While no more than that fail on average, it takes at least as many batches on average "
        "until a false alarm, however much the images of a batch fail together. "
        "Devices are then probed with canaries, rates are estimated, and NSGA-II goes on from the "
        f"front that it has, for {search.generations} generations or "
        f"{number(search.budget_ms)}{GAP}ms, at {number(search.passes_per_s)} passes of an image "
        "under faults a second."
    )
    columns = [
        Column("rates stay", lambda row: row.environment),
        Column("canaries fail", lambda row: percent(row.failing)),
        Column("batches", lambda row: f"{row.batches:,}"),
        Column("alarms", lambda row: row.alarms),
        Column("alarms an hour", lambda row: _per_hour(row.alarms_per_hour)),
    ]
    rows = result.false_alarms
    return [Paragraph(text), *([Table(columns, rows)] if rows else [])]


def _per_hour(alarms: Estimate) -> str:
    return f"{alarms.value:.2g} [{alarms.low:.2g},{GAP}{alarms.high:.2g}]"


def begun(result: OnlineResult) -> list[Block]:
    """Which layer ran where at first, and at last in the first stream."""
    first = result.first
    layers = [layer.name for layer in result.model.layers]
    rows = list(zip(layers, first.mapping, result.events[-1].mapping, strict=True))

    def device(index: int) -> Markup:
        return shared.device(index, result.devices[index])

    columns = [
        Column("layer", lambda row: row[0]),
        Column("at first", lambda row: device(row[1]), left=True),
        Column("at last", lambda row: device(row[2]), left=True),
    ]
    text = Markup(
        "The first mapping, in the environment it was made for: {} right, {} ms, {} mJ."
    ).format(shared.estimated(first.accuracy), number(first.latency_ms), number(first.energy_mj))
    return [Paragraph(text), Details(f"Layer by layer ({len(rows)})", [Table(columns, rows)])]
