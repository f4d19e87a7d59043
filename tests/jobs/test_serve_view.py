"""What job `serve` says of its result; the result is a golden run's, with devices that die."""

from dataclasses import replace

import pytest

from afpjax.jobs.serve.result import HttpResult, LossResult, Refusal, ServeResult
from afpjax.jobs.serve.view import view

from .kept import about, kept, printed


def serving(lost: int = 2, refused: int = 3) -> ServeResult:
    """Of 120 images, an equal share is answered before each loss and after the last."""
    result = kept("serve")
    names = [each.device for each in result.devices]
    answered = (120 - refused) // (lost + 1)
    (row,) = result.by_lost
    times = result.throughput
    losses = [
        LossResult(name, "killed", 0.12, 20, 4, names[: place + 1], 20.5, 12.25)
        for place, name in enumerate(names[:lost])
    ]
    return replace(
        result,
        requests=120,
        answered=120 - refused,
        refused=refused,
        accuracy=about(0.912),
        predicted=about(0.905, 0.03),
        refusals=[Refusal("deadline", refused)] if refused else [],
        by_lost=[
            replace(
                row,
                lost=names[:count],
                answered=answered,
                accuracy=about(0.9 - 0.1 * count),
                predicted=about(0.91 - 0.1 * count),
            )
            for count in range(lost + 1)
        ],
        devices=[
            replace(each, killed_at=0.1 * (place + 1) if place < lost else None)
            for place, each in enumerate(result.devices)
        ],
        throughput=replace(
            times,
            devices=[
                replace(each, lost_at=0.12) if place < lost else each
                for place, each in enumerate(times.devices)
            ],
            losses=losses,
        ),
    )


def test_headline_and_lead_say_how_requests_ended_and_whether_the_accuracy_was_predicted(shown):
    result = serving()
    page = shown(view(result))
    assert "117 of 120 images" in page.headline and "91.2 %" in page.headline
    assert "2 of 3 devices lost" in page.headline and "3 for “deadline”" in page.text
    assert "inside the interval that was predicted, [87.5, 93.5] %" in page.text
    worse = shown(view(replace(serving(lost=0, refused=0), accuracy=about(0.5))))
    assert "outside the interval" in worse.text and "None was refused." in worse.text
    assert "with no device lost" in worse.headline


def test_tables_have_the_figures(shown):
    page = shown(view(serving()))
    lost = page.table("lost", "answered")
    names = ["none", "eyeriss", "eyeriss, simba"]
    assert [row[:2] for row in lost] == [[name, "39"] for name in names]
    assert "90.0" in lost[0][2] and "91.0" in lost[0][3]
    devices = page.table("device", "process, MB")
    assert [row[-2] for row in devices] == ["0.10", "0.20", "–"]
    assert page.table("device", "how")[0] == ["eyeriss", "killed", "0.12", "20.5", "12.2", "4"]
    assert page.table("", "measured")[0][:2] == ["images per second", "123"]


def test_the_summary_has_devices_losses_and_speed_within_80_columns():
    result = replace(serving(), refused_because="b has no room", http=HttpResult(9, 7, []))
    text = printed(view(result))
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert ["eyeriss", "142", "0.0163", "0.10", "0.12"] in [x.split() for x in text.splitlines()]
    said = " ".join(text.split())
    assert "120 images asked for, 117 answered, 3 refused (3 for `deadline`)." in said
    assert "91.2 %" in said and "90.5 % [87.5, 93.5]" in said
    assert "21.0 ms (median), 55.5 (95 %), 123.0 (99 %)" in said
    assert "b has no room" in said and "Over HTTP: 9 images, 7 answered." in said


@pytest.mark.parametrize("lost", [0, 1])
def test_without_losses_nothing_is_said_of_them(lost):
    assert ("answered" in printed(view(serving(lost))).split("images asked")[0]) == bool(lost)
