"""Colours, type and the style sheet: one look for the page and its figures, light and dark.

Figures are drawn in the light colours below. On the page each of these colours becomes a CSS
variable of the same name, so an inlined figure follows the reader's light or dark setting.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["COLOURS", "CSS", "DEVICES", "GRID", "HEAT", "INK", "MARKERS", "MUTED", "PAPER"]
__all__ += ["METHODS", "TOOLS", "contrast"]

INK: Final = "#1b2128"
MUTED: Final = "#5a6572"
GRID: Final = "#dde2e8"
PAPER: Final = "#ffffff"

# Tools: Okabe and Ito's palette. Devices: Tol's muted scheme, so that the two never share a colour.
TOOLS: Final = {"afarepart": "#0072b2", "fault-unaware": "#d55e00", "cnnparted": "#8a6d9b"}
# Ways to distribute a network: Okabe and Ito's again, the yellow darkened until it stands out.
METHODS: Final = {
    "robustdice": TOOLS["afarepart"],
    "topk": "#a87900",
    "random": TOOLS["cnnparted"],
    "randomk": "#b0477e",
    "lop": TOOLS["fault-unaware"],
    "cdc": "#009e73",
    "cdc-safe-spare": "#009e73",
    "replication": MUTED,
}
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
    "topk": "#e0b95a",
    "randomk": "#e08ab8",
    "cdc": "#2fc79a",
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
    "topk": METHODS["topk"],
    "randomk": METHODS["randomk"],
    "cdc": METHODS["cdc"],
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


_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1.25rem 1rem 3rem;max-width:64rem;background:var(--paper);
 color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:clamp(1.3rem,1rem + 1.7vw,1.9rem);line-height:1.28;font-weight:600;
 overflow-wrap:anywhere;
 letter-spacing:-.01em;margin:.35rem 0 .9rem;text-wrap:pretty;max-width:34em}
h2{font-size:1.15rem;line-height:1.3;margin:2.6rem 0 .4rem;font-weight:650}
p{margin:.4rem 0 .8rem;max-width:44em;text-wrap:pretty}
a{color:inherit}
b{font-weight:650}
.over,.note,figcaption,small{color:var(--muted)}
.over{font-size:.85rem;margin:0}
.note,figcaption{font-size:.875rem}
.warning{border-left:.25rem solid var(--fault-unaware);padding-left:.75rem}
small{font-size:.8rem;font-weight:400}
.nobr{white-space:nowrap}
.scroll{overflow-x:auto;max-width:100%;margin:.6rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;line-height:1.35}
th,td{padding:.34rem .8rem .34rem 0;text-align:right;vertical-align:top;white-space:nowrap}
th:first-child,td:first-child,.left{text-align:left}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--muted);font-weight:500;font-size:.8rem;vertical-align:bottom;
 border-bottom:1px solid var(--grid)}
tbody tr+tr td{border-top:1px solid var(--grid)}
tr.group th{text-align:left;font-weight:650;padding-top:1.1rem;padding-bottom:.15rem;
 white-space:normal}
tr.group+tr td{border-top:0}
tr.ours td{font-weight:650}
.wide{width:100%}
.range{position:relative;display:block;height:.55rem;margin-top:.2rem;min-width:6.2rem;
 border-radius:3px;background:var(--soft)}
.range i{position:absolute;top:0;bottom:0;border-radius:3px;min-width:3px}
.range u{position:absolute;top:-2px;bottom:-2px;width:2px;background:var(--ink)}
.compare .acc{width:46%;text-align:left}
.share{display:inline-block;height:.6rem;border-radius:2px;margin-left:.4rem;
 background:var(--muted);vertical-align:baseline}
.key{display:inline-block;min-width:1.15rem;height:1.15rem;border-radius:3px;margin-right:.4rem;
 text-align:center;font-size:.75rem;line-height:1.15rem;font-weight:650;
 vertical-align:.05rem}
.strip{margin:1rem 0 .4rem}
.strip p{margin:.75rem 0 .2rem;font-size:.85rem;display:flex;justify-content:space-between;
 gap:1rem;max-width:none}
.strip div{display:flex;align-items:flex-end}
.strip small{white-space:nowrap}
.strip .tall{height:2.4rem}
.strip .tall span{background:var(--muted);min-height:1px}
.strip div span{flex:1 1 0;min-width:0;overflow:hidden;text-align:center;font-size:.7rem;
 font-weight:650;line-height:1.5rem}
.strip .blocks span{height:1.5rem}
.strip .few span{margin-right:1px}
.strip .lanes{border-bottom:1px solid var(--grid)}
.strip .lanes span{height:.5rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18.5rem),1fr));
 gap:1rem 1.6rem;align-items:start}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));
 gap:.5rem 2rem;align-items:start}
figure{margin:.6rem 0;max-width:27rem}
figure b{color:var(--ink);display:block}
figure svg{display:block;width:100%;height:auto;color:var(--ink)}
figure svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
details{border-top:1px solid var(--grid);margin:.9rem 0 0}
details+details{margin:0}
details:last-child{border-bottom:1px solid var(--grid)}
.command{font:.85rem/1.45 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere;
 background:var(--soft);border-radius:3px;padding:.6rem .7rem}
.sites{display:inline-block;min-width:11rem;font-size:.85rem;white-space:normal;overflow-wrap:anywhere}
summary{cursor:pointer;padding:.55rem 0;font-size:.92rem;font-weight:550}
ul{padding-left:1.1rem;margin:.4rem 0;max-width:44em}
li{margin:.25rem 0}
.settings td{text-align:left;white-space:normal;overflow-wrap:anywhere}
.settings td:first-child{white-space:nowrap;color:var(--muted)}
@media (max-width:30rem){th,td{padding-right:.6rem}.compare .acc{width:auto}
 .compare td,.compare th{padding-right:.45rem}
 .compare small{font-size:.75rem}.compare td.acc{white-space:normal}.range{min-width:5rem}}
@media print{body{max-width:none}details{display:none}}
"""

CSS: Final = (
    f":root{{color-scheme:light dark;{_variables(COLOURS)}--soft:#eef1f4}}"
    "@media (prefers-color-scheme:dark){"
    f":root{{{_variables(_DARK)}--soft:#262d35}}}}" + _RULES
)
