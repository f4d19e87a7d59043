"""What job `online` says of its result; the result is a golden run's, changed where needed."""

import re
from dataclasses import replace

import pytest

from afpjax.jobs.online import view as drawing
from afpjax.jobs.online.charts import POLICY_NAMES, over_time, seen
from afpjax.jobs.online.result import (
    Event,
    FalseAlarms,
    Means,
    OnlineResult,
    Policy,
    PolicyGain,
    TraceResult,
)
from afpjax.jobs.shared.result import Estimate
from afpjax.report.render import page
from afpjax.report.style import INK, TOOLS

from ..conftest import Reader
from ..svg import texts
from .kept import kept, once, printed

view = once(drawing.view)
#: Share of the time above theta, under each policy.
ABOVE = {
    "never": 0.6,
    "online": 0.15,
    "safest": 0.2,
    "safest-within-limits": 0.18,
    "stored": 0.3,
    "surrogate": 0.1,
    "oracle": 0.05,
}
POLICIES = tuple(ABOVE)
#: Which policy is held against which.
PAIRS = [("online", over) for over in POLICIES if over != "online"]
PAIRS += [(policy, "safest") for policy in POLICIES if policy not in ("online", "safest")]


@pytest.fixture(scope="module")
def result() -> OnlineResult:
    return kept("online")


@pytest.fixture(scope="module")
def several(result) -> OnlineResult:
    """Two environments, two streams each, and all of them."""
    traces = [TraceResult(name, f"of {name}", 600) for name in ("burst", "ageing")]
    names = ("burst", "ageing", "all")
    moments = [replace(one, trace=t.trace) for t in traces for one in result.timelines]
    policies = [policy_row(name, policy) for name in names for policy in POLICIES]
    gains = [gain(name, *pair) for name in names for pair in PAIRS]
    return replace(
        result,
        traces=traces,
        timelines=moments,
        policies=policies,
        gains=gains,
        stream=replace(result.stream, seeds=2),
    )


@pytest.fixture(scope="module")
def pages(result, several) -> tuple[Reader, Reader]:
    """The pages of the one environment and of several, which take seconds to draw."""
    made = [page(view(own), "online", {}) for own in (result, several)]
    assert set(made[1].figures) == {"time-1.svg", "time-2.svg", "seen.svg"}
    return Reader(made[0].html), Reader(made[1].html)


def policy_row(trace: str, policy: str) -> Policy:
    above = ABOVE[policy]
    means = around(0.95 - above / 2, above)
    return Policy(trace=trace, policy=policy, seeds=2, means=means, alarms=1.0, searches=2.0)


def gain(trace: str, policy: str, over: str) -> PolicyGain:
    less = ABOVE[policy] - ABOVE[over]
    return PolicyGain(trace, policy, over, around(-less / 2, less))


def around(accuracy: float, above: float) -> Means:
    values = {"accuracy": accuracy, "above": above, "latency_ms": 0.5, "energy_mj": 1.25}
    values["switches"] = 2.5
    bounds = {f"{name}_interval": (v - 0.04, v + 0.04) for name, v in values.items()}
    return Means(**values, **bounds)  # pyright: ignore


def decided(event: Event) -> Event:
    """A step at which nothing was decided, with a decision after it."""
    return replace(event, reason="review", cut=True, expected_drop=-0.001, estimated=None)


def test_the_headline_is_of_all_environments_with_and_without(result, several, pages, shown):
    one, all_of_them = (page.headline for page in pages)
    assert "15.0 % of the time" in all_of_them and "60.0 %" in all_of_them
    rows = {row.policy: row.means for row in result.policies}
    for policy in ("online", "never"):
        assert f"{100 * rows[policy].above:.1f} %" in one
    alone = replace(several, policies=[row for row in several.policies if row.policy == "online"])
    assert "15.0 %" in shown(view(alone)).headline and "60.0 %" not in shown(view(alone)).headline


def test_policies_of_all_environments_come_first_then_each(pages):
    whole, each = (rows for rows in pages[1].tables if rows[0][0] == "policy")
    assert [row[0] for row in whole[1:]] == ["all environments", *POLICY_NAMES.values()]
    online = ["AFarePart online", "87.5 %", "[83.5, 91.5]", "15.0 %", "[11.0, 19.0]"]
    assert whole[3] == [*online, "0.500", "1.25", "2.5"]
    assert [row for row in each if len(row) == 1] == [["burst"], ["ageing"]]
    assert len(each) == 1 + 2 * (1 + len(POLICIES))


def test_the_terminal_has_every_mean(result, several):
    for own in (result, several):
        rows = re.findall(rf"^({'|'.join(map(re.escape, POLICY_NAMES.values()))}) +(.*)$",
                          printed(view(own), 100).split("in pairs")[0], re.M)  # fmt: skip
        for row, (name, figures) in zip(own.policies, rows, strict=True):
            means, values = row.means, re.findall(r"[\d.]+", figures)
            assert name == POLICY_NAMES[row.policy]
            assert [float(value) for value in values] == pytest.approx(
                [
                    100 * means.accuracy,
                    100 * means.above,
                    means.latency_ms,
                    means.energy_mj,
                    means.switches,
                ],
                rel=5e-3,
                abs=0.051,
            )
    names = re.findall(r"^(burst|ageing|all environments) *$", printed(view(several), 100), re.M)
    assert names == ["burst", "ageing", "all environments"]


def test_differences_have_signs_and_intervals(result, several, pages, shown):
    rows = pages[1].table("in pairs")
    never = "AFarePart online against never moved"
    assert rows[0][:3] == [never, "+22.5 [+18.5, +26.5]", "−45.0 [−49.0, −41.0]"]
    assert rows[0][3:] == ["+0.500", "+1.25"]
    oracle = "AFarePart online against oracle"
    assert rows[5][:3] == [oracle, "−5.0 [−9.0, −1.0]", "+10.0 [+6.0, +14.0]"]
    learnt = "surrogate against safest mapping"
    (row,) = [row for row in rows if row[0] == learnt]
    assert row[1:3] == ["+5.0 [+1.0, +9.0]", "−10.0 [−14.0, −6.0]"]
    one = result.gains[0].means
    cells = pages[0].table("in pairs")[0]
    assert cells[1:3] == [f"{100 * one.accuracy:+.1f}", f"−{-100 * one.above:.1f}"]
    printed_pairs = printed(view(several), 100).split("in pairs")[1]
    assert "surrogate" in printed_pairs
    assert "in pairs" not in shown(view(replace(result, gains=[]))).text


def test_decisions_have_a_reason_estimated_rates_and_what_was_expected(result, pages, shown):
    rows = pages[0].table("step", "why")
    events = [event for event in result.events if event.reason]
    assert [row[0] for row in rows] == [str(event.step) for event in events]
    for event, row in zip(events, rows, strict=True):
        rates = " ".join(
            f"{result.devices.index(one.device) + 1} {100 * one.rate.value:.1f} %"  # pyright: ignore
            for one in event.estimated or ()
        )
        assert row[2] == rates or (row[2] == "–" and not rates)
        if event.expected_drop is None:
            assert row[3] == "–"
        else:
            assert float(row[3]) == pytest.approx(100 * event.expected_drop, abs=0.051)
    cut = replace(result, events=[decided(result.events[0])])
    (row,) = shown(view(cut)).table("step", "why")
    assert row == ["0", "the first one again? (out of time)", "–", "−0.1"]
    quiet = [event for event in result.events if not event.reason]
    assert "Nothing was decided." in shown(view(replace(result, events=quiet))).text


def test_false_alarms_are_told_where_they_were_measured(result, pages, shown):
    row = FalseAlarms(10_000, 0.0512, 1, Estimate(0.3375, 0.0085, 1.88), "as built")
    measured = replace(result, false_alarms=[row])
    assert shown(view(measured)).table("rates stay") == [
        ["as built", "5.1 %", "10,000", "1", "0.34 [0.0085, 1.9]"]
    ]
    assert re.search(r"as built: 1 alarms in 10,000 .* 5\.1 %", printed(view(measured), 100))
    assert "rates stay" not in pages[0].text


def test_mappings_before_and_after(result, pages):
    rows = pages[0].table("layer", "at first", "at last")
    mappings = zip(result.first.mapping, result.events[-1].mapping, strict=True)
    for layer, pair, row in zip(result.model.layers, mappings, rows, strict=True):
        assert row == [layer.name, *(f"{n + 1}{result.devices[n]}" for n in pair)]


def marks(svg: bytes, colour: str) -> int:
    """How many markers of a colour a figure has."""
    return sum(f"fill: {colour}" in use for use in re.findall(r"<use [^>]*>", svg.decode()))


def test_a_dot_for_every_switch(result):
    moments = result.timelines
    moved = over_time(moments, 0.1)
    still = over_time([replace(moment, switched=False) for moment in moments], 0.1)
    tools = {"online": "afarepart", "stored": "cnnparted", "never": "fault-unaware"}
    for policy, tool in tools.items():
        switches = sum(moment.switched for moment in moments if moment.policy == policy)
        assert marks(moved, TOOLS[tool]) - marks(still, TOOLS[tool]) == switches
        assert (switches > 0) == (policy != "never")
    assert set(POLICY_NAMES.values()) <= set(texts(moved))


def test_the_evidence_has_a_mark_where_it_suffices(result):
    enough = [e for e in result.events if e.evidence and e.evidence >= result.watch.alarm]
    assert enough
    svg = seen(result.events, 0.9, 0.1, result.watch.alarm)
    assert marks(svg, TOOLS["fault-unaware"]) == len(enough)
    assert marks(seen(result.events, 0.9, 0.1, 1e30), TOOLS["fault-unaware"]) == 0


def uprights(svg: bytes) -> int:
    """Straight lines down in the colour of the online policy."""
    paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+ " ([^>]*)>', svg.decode())
    return sum(one == other and TOOLS["afarepart"] in style for one, other, style in paths)


def test_uprights_where_another_mapping_runs(result):
    moved = sum(event.repartitioned for event in result.events)
    assert moved and uprights(seen(result.events, 0.9, 0.1, 1e4)) == 2 * moved  # in each half
    still = [replace(event, repartitioned=False) for event in result.events]
    assert uprights(seen(still, 0.9, 0.1, 1e4)) == 0


def test_labels_of_the_evidence_are_plain_numbers_and_what_was_not_observed_is_left_out(result):
    """A stream without canaries' answers has the truth alone, and no warning."""
    svg = seen(result.events[:40], 0.9, 0.1, 1e4)
    assert "mathdefault" not in svg.decode() and "100" in texts(svg)
    assert INK in svg.decode()
    hidden = [replace(one, accuracy_observed=None, evidence=None) for one in result.events]
    assert texts(seen(hidden, 0.9, 0.1, 1e4))
