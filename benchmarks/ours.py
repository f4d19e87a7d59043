"""Our side of every measure: networks in Q8.8, struck in the 4 low bits, and how they are run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int16, Num

import afpjax
from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults import bits
from afpjax.faults.inject import logits_of_trial
from afpjax.faults.model import thresholds
from afpjax.faults.spec import Thresholds
from afpjax.network import compiler
from afpjax.network.quantized import Quantized, encoded
from benchmarks import networks
from benchmarks.timing import Contestant, faster, in_threads

FORMAT = afpjax.QFormat(16, 8)
FAULTS = afpjax.FaultModel(bits=range(4), weight_rate=0.2, activation_rate=0.2)
TWO_DEVICES = afpjax.FaultModel(bits=range(4), weight_rate=(0.2, 0.02), activation_rate=(0.2, 0.02))
SEED = 7
CHECKED = 3_000_000_019  # a trial number that no race gets to


class Masks(NamedTuple):
    """The bits that flip in each layer, by its name, as our hash draws them in one trial."""

    weights: dict[str, Int16[np.ndarray, "..."]]  # of the traced kernel's shape: HWIO, or [in, out]
    inputs: dict[str, Int16[np.ndarray, "B ..."]]  # NHWC, or [B, in]


@dataclass(frozen=True)
class Ours:
    """A network as afpjax has it; its own clean answers in fixed point serve as labels."""

    network: networks.Network
    quantized: Quantized  # as an evaluator wants it
    codes: Quantized  # the same with its kernels held as codes

    @property
    def layers(self) -> int:
        return len(self.quantized.layers)

    def labels(self, images: Num[np.ndarray, "B ..."]) -> np.ndarray:
        return np.asarray(self.codes(images)).argmax(axis=1).astype(np.int32)

    def evaluator(self, images: int) -> Evaluator:
        """An evaluator that has not run anything."""
        given = networks.images(images)
        return Evaluator(self.quantized, given, self.labels(given), SEED)

    def limits(self, faults: Any = FAULTS, mappings: Any = None) -> Thresholds:
        """Thresholds of mappings [P, L]; of one that has everything on device 0 if None."""
        if mappings is None:
            mappings = np.zeros((1, self.layers), np.int32)
        return jax.tree.map(np.asarray, thresholds(faults, self.quantized, mappings))

    def everything(self) -> Thresholds:
        """Thresholds [L, bits] of one mapping, everything struck."""
        return jax.tree.map(lambda table: table[0], self.limits())


def make(name: str) -> Ours:
    """A network by its name, traced and in Q8.8."""
    network = (networks.NETWORKS | networks.SMALL)[name]()
    traced = afpjax.trace(network.apply, network.params, networks.images(1))
    quantized = afpjax.quantize(traced, FORMAT)
    return Ours(network, quantized, encoded(quantized))


def clean(ours: Ours, images: int, *, fixed: bool) -> Contestant:
    """Clean passes over a batch, fixed point or the plain float32 function under `jit`.

    Whichever is faster: one pass after the other, or one on each core.
    """
    batch = jnp.asarray(networks.images(images))
    if fixed:
        arguments = (ours.codes, batch)
        run = jax.jit(lambda net, x: net(x), compiler_options=compiler.options())
    else:
        arguments = (jax.device_put(ours.network.params), batch)
        run = jax.jit(ours.network.apply, compiler_options=compiler.options())

    def once(number: int) -> None:
        run(*arguments).block_until_ready()

    name = "afpjax clean " + ("fixed point" if fixed else "float32")
    return faster(
        [
            Contestant(name, in_threads(once, n), images, n, f"{n} passes at once")
            for n in sorted({1, compiler.workers()})
        ]
    )


def struck(name: str, ours: Ours, images: int) -> Contestant:
    """Everything struck, a new draw for each pass over so many images, by the evaluator."""
    evaluator, limits = ours.evaluator(images), ours.limits()
    run = partial(evaluator.evaluate, FAULTS, limits)
    return Contestant(name, run, images, 2 * compiler.workers())


def logits(
    ours: Ours, images: Float[Any, "B ..."], limits: Thresholds, trial: int = CHECKED
) -> Float[np.ndarray, "B classes"]:
    """Logits of one mapping (`limits` [L, bits]) in one trial, straight from the hook."""
    run = _logits(FAULTS)
    numbers = np.arange(len(images), dtype=np.uint32)
    seed = bits.seed_words(SEED)
    return np.asarray(run(ours.codes, images, numbers, limits, seed, np.uint32(trial)))


def float_logits(ours: Ours, images: Float[np.ndarray, "B ..."]) -> Float[np.ndarray, "B classes"]:
    """Logits of the plain float32 function."""
    return np.asarray(ours.network.apply(ours.network.params, jnp.asarray(images)))


def correct_directly(
    ours: Ours, images: int, limits: Thresholds, trial: int
) -> Bool[np.ndarray, " B"]:
    """What an evaluator has to say of one mapping in one trial, without an evaluator."""
    given = networks.images(images)
    return logits(ours, given, limits, trial).argmax(axis=1) == ours.labels(given)


def masks(ours: Ours, images: int, trial: int = CHECKED) -> Masks:
    """The very masks of `logits` with everything struck, to hand to a rival."""
    seed, number = bits.seed_words(SEED), jnp.uint32(trial)
    limits, layers = ours.limits(), ours.quantized.layers
    indices = jnp.arange(images, dtype=jnp.uint32)
    stream = partial(bits.stream, seed, trial=number)
    drawn = Masks({}, {})
    for place, layer in enumerate(layers):
        of_layer = partial(stream, layer=jnp.uint32(place))
        kernel = _mask(of_layer(target=bits.WEIGHTS), layer.kernel_shape, limits.weights[0, place])
        reads = _masks(
            of_layer(target=bits.ACTIVATIONS, image=indices),
            layer.input_shape,
            limits.activations[0, place],
        )
        drawn.weights[layer.name] = np.asarray(kernel, np.int16)
        drawn.inputs[layer.name] = np.asarray(reads, np.int16)[:, 0]  # an image's batch of one
    return drawn


def _logits(faults: afpjax.FaultModel) -> Callable[..., Array]:
    run = partial(logits_of_trial, faults.spec())
    return jax.jit(run, compiler_options=compiler.options())


@partial(jax.jit, static_argnums=1)
def _mask(stream: Array, shape: tuple[int, ...], limits: Array) -> Array:
    return bits.flip_mask(stream, shape, tuple(FAULTS.bits), limits)


@partial(jax.jit, static_argnums=1)
def _masks(streams: Array, shape: tuple[int, ...], limits: Array) -> Array:
    return jax.vmap(lambda stream: _mask(stream, shape, limits))(streams)
