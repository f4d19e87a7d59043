"""Colours, type and the style sheet: one look for the page and its figures, light and dark.

Figures are drawn in the light colours below. On the page each of these colours becomes a CSS
variable of the same name, so an inlined figure follows the reader's light or dark setting.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["COLOURS", "DEVICES", "GRID", "HEAT", "INK", "MARKERS", "MUTED", "PAPER"]
__all__ += ["METHODS", "TOOLS", "contrast", "variables"]

INK: Final = "#1b2128"
MUTED: Final = "#5a6572"
GRID: Final = "#dde2e8"
PAPER: Final = "#ffffff"

# Tools: Okabe and Ito's palette. Devices: Tol's muted scheme, so that the two never share a colour.
TOOLS: Final = {
    "afarepart": "#0072b2",
    "fault-unaware": "#d55e00",
    "cnnparted": "#8a6d9b",
    "surrogate": "#00695c",
}
# Ways to distribute a network, our own first: Okabe and Ito's again, the yellow darkened until it
# stands out.
METHODS: Final = (
    TOOLS["afarepart"],
    TOOLS["cnnparted"],
    "#b0477e",
    "#a87900",
    "#009e73",
    TOOLS["fault-unaware"],
    MUTED,
)
DEVICES: Final = (
    "#ddaa33",
    "#44aa99",
    "#882255",
    "#88ccee",
    "#999933",
    "#332288",
    "#cc6677",
    "#117733",
)
# One fewer than the colours: devices that must share a colour still differ by their marker.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
# Steps of a heat map, none first: each stands out more from the paper than the one before.
HEAT: Final = (
    "#e9edf1",
    "#fbe3b4",
    "#f8c684",
    "#f2a154",
    "#e27a36",
    "#c24f2a",
    "#932c29",
    "#5b1226",
)
_DARK_HEAT: Final = (
    "#242b33",
    "#40302a",
    "#5f3a2b",
    "#87462c",
    "#b45a30",
    "#dc7f42",
    "#f3b06e",
    "#fde7c2",
)

_DARK: Final = {
    "ink": "#e8ebef",
    "muted": "#a3adb8",
    "grid": "#333b45",
    "paper": "#14181d",
    "afarepart": "#4db2ec",
    "fault-unaware": "#f48a3c",
    "cnnparted": "#b9a0c9",
    "surrogate": "#5fd0b8",
    "method-2": "#e08ab8",
    "method-3": "#e0b95a",
    "method-4": "#2fc79a",
    "device-0": "#ddaa33",
    "device-1": "#44aa99",
    "device-2": "#c4608f",
    "device-3": "#88ccee",
    "device-4": "#a8a845",
    "device-5": "#8478d8",
    "device-6": "#e08a98",
    "device-7": "#3fa866",
    **{f"heat-{index}": colour for index, colour in enumerate(_DARK_HEAT)},
}

#: CSS variable name -> the light colour that figures are drawn in.
COLOURS: Final = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    **TOOLS,
    **{f"method-{index}": METHODS[index] for index in (2, 3, 4)},
    **{f"device-{index}": colour for index, colour in enumerate(DEVICES)},
    **{f"heat-{index}": colour for index, colour in enumerate(HEAT)},
}


def _variables(colours: Mapping[str, str]) -> str:
    numbers = {
        name.replace("device", "on-device"): _readable_on(colour)
        for name, colour in colours.items()
        if name.startswith("device")
    }
    return "".join(f"--{name}:{colour};" for name, colour in {**colours, **numbers}.items())


def _readable_on(colour: str) -> str:
    """Black or white, whichever stands out more (WCAG 2.1, relative luminance)."""
    return "#ffffff" if contrast(colour, "#ffffff") > contrast(colour, "#000000") else "#000000"


def contrast(one: str, other: str) -> float:
    """Contrast of two `#rrggbb` colours, 1 to 21 (WCAG 2.1)."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def variables() -> str:
    """The colours as CSS variables, light and dark."""
    return (
        f":root{{color-scheme:light dark;{_variables(COLOURS)}--soft:#eef1f4}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK)}--soft:#262d35}}}}"
    )
