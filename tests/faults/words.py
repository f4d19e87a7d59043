"""Stored words as integers, and the network of conftest.py in NumPy: what faults are held against.

Imported by the tests of faults; not a test itself.
"""

import ml_dtypes
import numpy as np

from afpjax.network.fixed_point import QFormat

FORMATS = {
    "fixed 16": QFormat(16, 8),
    "fixed 8": QFormat(8, 4),
    "fixed 6": QFormat(6, 3),
    "float32": QFormat(kind="float32"),
    "bfloat16": QFormat(kind="bfloat16"),
}
WORDS = {"float32": np.uint32, "bfloat16": np.uint16}


def stored(fmt: QFormat, values: np.ndarray) -> np.ndarray:
    """The stored words of some values, as integers."""
    if fmt.kind == "fixed":
        codes = np.round(values.astype(np.float64) * 2.0**fmt.frac)
        top = 2 ** (fmt.bits - 1)
        return np.clip(codes, -top, top - 1).astype(np.int64) & (2**fmt.bits - 1)
    dtype = np.float32 if fmt.kind == "float32" else ml_dtypes.bfloat16
    return values.astype(np.float32).astype(dtype).view(WORDS[fmt.kind]).astype(np.int64)


def loaded(fmt: QFormat, words: np.ndarray) -> np.ndarray:
    """The values of stored words: two's complement, or the bits of a float."""
    if fmt.kind == "fixed":
        signed = np.where(words >= 2 ** (fmt.bits - 1), words - 2**fmt.bits, words)
        return signed / 2.0**fmt.frac
    dtype = np.float32 if fmt.kind == "float32" else ml_dtypes.bfloat16
    return words.astype(WORDS[fmt.kind]).view(dtype).astype(np.float32)


def changed(how: str, words, mask):
    """Words with the bits of a mask flipped, cleared or set."""
    return {"flip": words ^ mask, "clear": words & ~mask, "set": words | mask}[how]


def as_they_are(layer: str, words: np.ndarray) -> np.ndarray:
    return words


@np.errstate(over="ignore", invalid="ignore")
def forward(fmt: QFormat, kernels, images: np.ndarray, reads=as_they_are) -> np.ndarray:
    """`forward` of conftest.py on stored weights, each layer reading its input in the format.

    `reads` (layer's name, words of its input [B, n]) -> these words as the layer reads them.
    """

    def layer(name, values):
        return loaded(fmt, reads(name, stored(fmt, values))) @ loaded(fmt, kernels[name])

    first = np.maximum(layer("a", images), 0)
    second = np.maximum(layer("b", first), 0) + first
    return layer("c", second)


def kernels_of(quantized) -> dict[str, np.ndarray]:
    """The stored words of every layer's kernel."""
    layers = quantized.parameters.layers
    return {name: stored(quantized.format, np.asarray(layers[name].kernel)) for name in layers}


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (logits.argmax(1) == labels) & np.isfinite(logits).all(axis=1)
