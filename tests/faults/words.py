"""Stored words as integers, and the network of conftest.py in NumPy: what faults are held against.

Imported by the tests of faults; not a test itself.
"""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from afpjax.faults import bits
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


def draws_of(place, target, shape, count: int) -> np.ndarray:
    """The draws [count, *shape] of 31 bits at (key, trial, layer, image), straight from `bits`."""
    key, *numbers = place
    numbers = np.array(numbers, np.uint32)
    return np.asarray(_draws(bits.seed_words(key), numbers, target, shape, count), np.int64)


@partial(jax.jit, static_argnums=(2, 3, 4))  # op by op, it takes most of the tests' time
def _draws(seed, numbers, target, shape, count):
    trial, layer, image = numbers
    stream = bits.stream(seed, trial=trial, layer=layer, target=target, image=image)
    return jnp.stack(bits.draws(stream, shape, count))


def mask_of(place, target, rate: float, positions, shape) -> np.ndarray:
    """The bits at some positions that flip there at a rate."""
    hits = draws_of(place, target, shape, len(positions)) < round(rate * 2**31)
    flips = [hit.astype(np.int64) << bit for bit, hit in zip(positions, hits, strict=True)]
    return np.sum(flips, axis=0)


def mixed(word):
    """Wellons' triple32, of an integer of Python's or an array of uint32."""
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        word = (word ^ word >> shift) * factor & 0xFFFFFFFF
    return word ^ word >> 14


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


def each_flip(fmt: QFormat, kernels, images) -> dict[tuple[int, int, int], np.ndarray]:
    """(layer, element, bit) -> the logits under that flipped bit alone, of every stored weight."""
    found = {}
    for layer, (name, words) in enumerate(kernels.items()):
        for element, bit in product(range(words.size), range(fmt.width)):
            struck = words.copy()
            struck.reshape(-1)[element] ^= 1 << bit
            found[layer, element, bit] = forward(fmt, {**kernels, name: struck}, images)
    return found


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (logits.argmax(1) == labels) & np.isfinite(logits).all(axis=1)
