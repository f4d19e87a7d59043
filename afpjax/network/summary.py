"""A network as a table for people: its layers, their totals, and what is no layer."""

from collections.abc import Sequence

from afpjax.inputs.notes import covered
from afpjax.network.layers import Layer
from afpjax.network.program import Program

_HEAD = ("layer", "kind", "kernel", "output", "neurons", "MACs", "weights", "biases")
_WORDS = 4  # columns that are text, on the left


def summary(program: Program) -> str:
    """Lines of text: one a layer, in the order they run, with totals and the layers' coverage.

    MACs are multiply-accumulates of one image; a kernel that several layers use counts once in the
    coverage, and for each of them in the table.
    """
    layers = program.graph.layers
    total = ("total", f"{len(layers)} layers", "", "", *_figures(layers))
    rows = [_HEAD, *map(_row, layers), total]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(map(_placed, row, widths, range(len(row)))).rstrip() for row in rows]
    image = " x ".join(map(str, program.image_shape))
    head = f"{image} ({program.image_dtype}) -> {program.classes} logits"
    return "\n".join([head, "", *lines, "", covered(program.coverage.record())])


def _row(layer: Layer) -> tuple[str, ...]:
    shapes = (" x ".join(map(str, each)) for each in (layer.kernel_shape, layer.output_shape[1:]))
    return (layer.name, layer.kind, *shapes, *_figures([layer]))


def _figures(layers: Sequence[Layer]) -> tuple[str, ...]:
    keys = ("neurons", "macs", "weights", "biases")
    return tuple(f"{sum(getattr(layer, key) for layer in layers):,}" for key in keys)


def _placed(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < _WORDS else text.rjust(width)
