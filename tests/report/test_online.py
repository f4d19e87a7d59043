"""The story of job `online`: what it says, which parts it has, and what its figures draw."""

import re

import pytest

from afpjax.jobs.online.view_figures import NAMES, over_time, seen
from afpjax.report.page import render
from afpjax.report.style import INK, TOOLS

from .conftest import Reader
from .streams import MOVED, POLICIES, STEPS, STRUCK, event, streams, timeline

PARTS = [
    "Over time",
    "Is it worth its cost?",
    "What was seen, and what was done",
    "How the alarm works",
    "Where it began",
]


def test_the_headline_is_the_time_above_theta_with_and_without(read):
    assert read(streams()).headline == (
        "More than 10 points of accuracy are lost in 15.0 % of the time, "
        "and in 60.0 % if nothing is ever moved."
    )
    alone = read(streams(policies=("online", "stored"))).headline
    assert alone == "More than 10 points of accuracy are lost in 15.0 % of the time."
    assert read({"job": "online"}).headline == "A stream of images while the environment changes"


def test_the_headline_is_of_all_environments(read):
    result = streams()
    for row in result["policies"]:
        if row["trace"] != "all":
            row["above"] = 0.999
    assert "15.0 % of the time, and in 60.0 %" in read(result).headline
    only = streams(traces=1)
    assert "15.0 % of the time, and in 60.0 %" in read(only).headline


def test_the_lead_says_what_was_run(read):
    result = streams()
    text = " ".join(read(result).text.split())
    assert "2 environments, 2 streams each, batches of 32 images with 8 labelled" in text
    assert "at most 0.1 false alarms an hour" in text
    one = streams(traces=1, seeds=1)
    one["stream"]["labels"] = False
    text = " ".join(read(one).text.split())
    assert "1 environment, 1 stream each" in text and "8 images that a clean reference sees" in text


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("timelines", ["Over time"]),
        ("policies", ["Is it worth its cost?"]),
        ("events", ["What was seen, and what was done", "Where it began"]),
        ("searches", ["How the alarm works"]),
        ("first", ["Where it began"]),
    ],
)
def test_every_part_appears_and_those_without_data_do_not(read, key, gone):
    result = streams()
    assert read(result).headings == PARTS
    left = read({name: value for name, value in result.items() if name != key}).headings
    assert left == [part for part in PARTS if part not in gone]


def test_policies_of_all_environments_come_first_then_each(read):
    page = read(streams())
    tables = [rows for rows in page.tables if rows[0][0] == "policy"]
    assert len(tables) == 3
    assert tables[0][1:][1] == [
        "online (AFarePart)",
        "87.5 % [83.5, 91.5]",
        "15.0 % [11.0, 19.0]",
        "0.500",
        "1.25",
        "2.5",
    ]
    assert [row[0] for row in tables[0][1:]] == [NAMES[policy] for policy in POLICIES]
    page = render(streams(), {}).html
    places = [page.index(f">{title}</") for title in ("All environments", "online against")]
    places += [page.index(f"<summary>{name}<") for name in ("burst", "ageing")]
    assert places == sorted(places)
    assert len([rows for rows in read(streams(traces=1)).tables if rows[0][0] == "policy"]) == 1


def test_differences_have_signs_and_intervals(read):
    rows = read(streams()).table("online against")
    assert rows[0] == ["never repartitioned", "+22.5 [+18.5, +26.5]", "−45.0 [−49.0, −41.0]"]
    assert rows[3] == ["oracle", "−5.0 [−9.0, −1.0]", "+10.0 [+6.0, +14.0]"]
    assert read(streams(seeds=1)).table("online against")[0][1:] == ["+22.5", "−45.0"]
    alone = read(streams(policies=("online",)))
    assert "online against" not in alone.text and alone.headings == PARTS


def test_decisions_have_a_reason_estimated_rates_and_what_was_expected(read):
    assert read(streams()).table("step", "why") == [
        [str(MOVED - 2), "too much is lost", "1 35.0 % 2 20.0 %", "4.3"],
        [str(MOVED + 3), "not enough found yet (out of time)", "–", "−0.1"],
        ["30", "the first one again?", "2 20.0 %", "–"],
    ]
    quiet = streams()
    quiet["events"] = [event(step) for step in range(STRUCK)]
    assert "Nothing was decided." in read(quiet).text


def test_the_alarm_is_explained_with_its_limit_and_its_bound(read):
    text = " ".join(read(streams()).text.split())
    assert "more than 10.2 % of them fail" in text
    assert "at 33,750 the system acts" in text
    assert "at least as many batches on average until a false alarm" in text
    assert "6 generations or 2,000 ms" in text


def test_false_alarms_are_told_where_they_were_measured(read):
    result = streams()
    row = {"batches": 10000, "failing": 0.0512, "alarms": 1}
    row |= {"alarms_per_hour": 0.3375, "alarms_per_hour_interval": [0.0085, 1.88]}
    result["false_alarms"] = [row | {"environment": "as built"}]
    assert read(result).table("rates stay") == [
        ["as built", "5.1 %", "10,000", "1", "0.34 [0.0085, 1.9]"]
    ]


def test_mappings_before_and_after(read):
    assert read(streams()).table("layer", "at first", "at last") == [
        ["stem", "1a", "2b"],
        ["body", "1a", "2b"],
        ["head", "2b", "1a"],
    ]


@pytest.mark.parametrize(("traces", "seeds"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_figures_are_on_the_page_and_in_files(traces, seeds):
    page = render(streams(traces, seeds), {})
    names = {f"time-{place + 1}.svg" for place in range(traces)} | {"seen.svg"}
    assert set(page.figures) == names
    assert page.html.count("<svg ") == len(names)
    body = page.html[page.html.index("<body>") :]
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)
    assert not re.search(r"\b(nan|inf|None)\b", Reader(page.html).text)


def test_names_of_traces_and_devices_are_escaped():
    result = streams(traces=1)
    result["devices"][0] = "<i>x"
    for row in [*result["traces"], *result["timelines"], *result["policies"], *result["gains"]]:
        row["trace"] = "<u>y"
    for one in result["events"]:
        for made in one.get("estimated", ()):
            made["device"] = made["device"].replace("a", "<i>x")
    page = render(result, {}).html
    assert "<i>x" not in page and "<u>y" not in page
    assert "&lt;i&gt;x" in page and "&lt;u&gt;y" in page


def marks(svg, colour):
    """How many markers of a colour a figure has."""
    uses = re.findall(r"<use [^>]*>", svg.decode())
    return sum(f"fill: {colour}" in use for use in uses)


def test_a_dot_for_every_switch():
    rows = [row for policy in POLICIES for row in timeline("burst", policy)]
    moved = over_time(rows, 0.1)
    still = over_time([row | {"switched": False} for row in rows], 0.1)
    for policy, dots in (("afarepart", 1), ("cnnparted", 1), ("fault-unaware", 0)):
        assert marks(moved, TOOLS[policy]) - marks(still, TOOLS[policy]) == dots
    for policy in POLICIES:
        assert NAMES[policy] in moved.decode()


def test_the_evidence_has_a_mark_where_it_suffices():
    events = [event(step) for step in range(STEPS)]
    assert marks(seen(events, 0.98, 0.1, 33750.0), TOOLS["fault-unaware"]) == 1
    assert marks(seen(events, 0.98, 0.1, 1e6), TOOLS["fault-unaware"]) == 0


def uprights(svg):
    """Straight lines down in the colour of the online policy."""
    paths = re.findall(r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+ " [^>]*>', svg.decode())
    styles = re.findall(r'<path d="M [\d.]+ [\d.]+ L [\d.]+ [\d.]+ " ([^>]*)>', svg.decode())
    pairs = zip(paths, styles, strict=True)
    return sum(a == b and TOOLS["afarepart"] in style for (a, b), style in pairs)


def test_uprights_where_another_mapping_runs():
    events = [event(step) for step in range(STEPS)]
    assert uprights(seen(events, 0.98, 0.1, 33750.0)) == 2  # one in each half
    still = [row | {"repartitioned": False} for row in events]
    assert uprights(seen(still, 0.98, 0.1, 33750.0)) == 0


def test_labels_of_the_evidence_are_plain_numbers():
    text = seen([event(step) for step in range(STEPS)], 0.98, 0.1, 33750.0).decode()
    assert "mathdefault" not in text and ">100<" in text
    assert INK in text


def test_steps_that_were_not_observed_are_drawn_without():
    """A stream without canaries' answers: the truth alone, and no warning."""
    hidden = ("accuracy_observed", "accuracy_observed_interval", "evidence")
    rows = [{k: v for k, v in event(s).items() if k not in hidden} for s in range(STEPS)]
    assert b"<svg" in seen(rows, 0.98, 0.1, 33750.0)
