"""Light and dark: every colour is there in both, and what is written on it can be read."""

import re

import pytest
from markupsafe import Markup

from afpjax.report import style
from afpjax.report.charts import device_look
from afpjax.report.render import page, pieces
from afpjax.report.view import Part, View

LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+):(#\w{6})", block))
    for block in re.findall(r":root\{([^}]*)\}", style.variables())
)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#000000", "#ffffff", 21),
        ("#ffffff", "#000000", 21),
        ("#777777", "#777777", 1),
        ("#767676", "#ffffff", 4.54),
    ],
)
def test_contrast_of_known_pairs(one, other, expected):
    assert style.contrast(one, other) == pytest.approx(expected, abs=0.005)


def test_light_and_dark_name_the_same_colours():
    assert LIGHT.keys() == DARK.keys()
    assert style.COLOURS.keys() <= LIGHT.keys()
    assert "prefers-color-scheme:dark" in style.variables()


def test_every_variable_that_a_page_uses_is_defined_in_both():
    made = [pieces().device(n, "d") for n in range(9)]
    made += [pieces().mapping_strip("m", range(8), 8, few) for few in (True, False)]
    made += [pieces().range(0.1, 0.3, 0.2, tool, 0.5) for tool in style.TOOLS]
    html = page(View("said", parts=[Part("part", [Markup("").join(made)])]), "job", {}).html
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    assert len(used) > 16
    assert used <= LIGHT.keys()
    assert used <= DARK.keys()


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_graphics_stand_out(colours):
    """4.5 is what WCAG 2.1 asks of text, 3 what it asks of graphics."""
    for text in ("ink", "muted"):
        assert style.contrast(colours[text], colours["paper"]) >= 4.5
    for index in range(len(style.DEVICES)):
        on, device = colours[f"on-device-{index}"], colours[f"device-{index}"]
        assert style.contrast(on, device) >= 4.5
    names = {value: name for name, value in style.COLOURS.items()}
    for graphic in (*style.TOOLS, *(names[colour] for colour in style.METHODS)):
        assert style.contrast(colours[graphic], colours["paper"]) >= 3


def test_colours_of_a_scale_stand_out_more_from_step_to_step():
    steps = [style.contrast(colour, "#ffffff") for colour in style.HEAT]
    assert steps == sorted(steps)
    assert len(set(style.HEAT)) == 8


def test_no_two_colours_are_the_same():
    """Figures take the page's colours by replacing them, one for one."""
    assert len(set(style.COLOURS.values())) == len(style.COLOURS)
    assert len({DARK[name] for name in style.COLOURS}) == len(style.COLOURS)


def test_eight_devices_have_colours_of_their_own_and_more_differ_by_marker():
    """Devices 1 and 7 once had the same colour and the same marker."""
    assert len({device_look(index)[0] for index in range(8)}) == 8
    looks = [device_look(index) for index in range(56)]
    assert len(set(looks)) == 56
