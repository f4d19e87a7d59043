"""Figures read as drawn: where marks and texts stand."""

import re
from xml.etree import ElementTree

import numpy as np

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def drawn(svg: bytes) -> ElementTree.Element:
    """The parsed figure; every number in it is finite and every text within its frame."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert width == 300
    for element in root.iter():
        marks = {k: v for k, v in element.attrib.items() if k not in ("id", LINK, "clip-path")}
        assert not re.search(r"\b(nan|inf)\b", " ".join(marks.values()), re.I)
    for text in root.iter(f"{SVG}text"):
        x, y = place(text)
        assert -1 <= x <= width + 1 and -1 <= y <= height + 1, text.text
    return root


def place(text: ElementTree.Element) -> tuple[float, float]:
    if moved := re.search(r"translate\((\S+)[ ,]+(\S+?)\)", text.attrib.get("transform", "")):
        return float(moved[1]), float(moved[2])
    return float(text.attrib["x"]), float(text.attrib["y"])


def texts(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in drawn(svg).iter(f"{SVG}text")]


def marks(root: ElementTree.Element, group: str) -> np.ndarray:
    """Where the marks of a group of that id stand, [N, 2]."""
    (found,) = [element for element in root.iter(f"{SVG}g") if element.get("id") == group]
    uses = list(found.iter(f"{SVG}use"))
    return np.array([[float(use.attrib["x"]), float(use.attrib["y"])] for use in uses])


def is_linear(places: np.ndarray, values: np.ndarray) -> float:
    """The slope of places over values, which must lie on a line to a twentieth of a point."""
    slope, start = np.polyfit(values, places, 1)
    assert np.abs(slope * values + start - places).max() < 0.05
    return slope


def boxes(svg: bytes, colour: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of the rectangles of a colour, from the top left on."""
    found = []
    for path in drawn(svg).iter(f"{SVG}path"):
        if f"fill: {colour}" in path.get("style", ""):
            for outline in re.split(r"[zZ]", path.get("d", "")):
                points = re.findall(r"[ML] (\S+) (\S+)", outline)
                if len(points) >= 4:
                    x, y = (list(map(float, ends)) for ends in zip(*points, strict=True))
                    found.append((min(x), min(y), max(x), max(y)))
    return sorted(found, key=lambda box: (round(box[1], 1), box[0]))


def markers(svg: bytes, colour: str) -> list[tuple[float, float]]:
    """Where the markers of a colour stand, from the left; bands are pale."""
    return sorted(
        (float(use.attrib["x"]), float(use.attrib["y"]))
        for use in drawn(svg).iter(f"{SVG}use")
        if f"fill: {colour}" in use.get("style", "") and "opacity" not in use.get("style", "")
    )
