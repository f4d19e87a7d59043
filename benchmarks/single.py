"""`single`: one random weight bit of 16 for each trial, every layer equally likely."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from afpjax.faults.sites import Fault, Site
from benchmarks import networks, ours
from benchmarks.agreement import Disagrees, check_equal, check_logits
from benchmarks.rivals import NotInstalled, load
from benchmarks.table import Row, number, versus
from benchmarks.timing import Contestant, Effort, faster, race

LIMITS = {1: (5, 20), 64: (2, 4)}  # batch: required, aim
QUICK = (1, 8)
OURS, RIVAL = "afpjax", "PyTorchFI"
_CHECKED_IMAGES = 8


def measure(effort: Effort) -> Iterator[Row | str]:
    for name in networks.NETWORKS:
        made = ours.make(name)
        for batch in QUICK if effort.quick else LIMITS:
            contestants = [own(made, batch)]
            try:
                contestants.append(rival(made, batch))
            except (NotInstalled, Disagrees) as error:
                yield f"{RIVAL}, {name}: {error}"
            times = race(contestants, effort)
            what = f"one weight bit per trial, {name}, batch {batch}: {OURS} ÷ {RIVAL}"
            if RIVAL in times:
                yield versus(
                    what, times[OURS], times[RIVAL], "images × trials", *LIMITS.get(batch, ())
                )
            else:
                yield f"{what}: ours alone, {number(times[OURS].rate)} images × trials/s"


def site(made: ours.Ours, number: int) -> Site:
    """The site of trial `number`: layers in turn, so that every slice meets all of them."""
    layer = number % made.layers
    draw = np.random.default_rng((ours.SEED, number))
    weights = made.quantized.layers[layer].weights
    return Site(layer, int(draw.integers(weights)), int(draw.integers(16)))


def own(made: ours.Ours, batch: int) -> Contestant:
    evaluator = made.evaluator(batch)

    def run(numbers: Sequence[int]) -> None:
        evaluator.evaluate_sites([Fault.at(site(made, number)) for number in numbers])

    # A campaign hands over many trials at once; of one image each, only many fill a call.
    rounds = 16 if batch == 1 else 4
    return Contestant(OURS, run, batch, rounds * made.layers)


def rival(made: ours.Ours, batch: int) -> Contestant:
    nets, pytorchfi = load("torch_networks"), load("pytorchfi_rival")
    _check(made, nets, pytorchfi)
    injector = pytorchfi.Injector(nets.make(made.network, batch), rounded=False)

    def once(number: int) -> None:
        _struck(made, pytorchfi, injector, site(made, number))

    best = faster(load("passes").ways(RIVAL, once, batch))
    return replace(best, together=made.layers)


def _struck(made: ours.Ours, pytorchfi: Any, injector: Any, one: Site) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    shape = made.quantized.layers[one.layer].kernel_shape
    with torch.inference_mode():
        return injector.struck(one.layer, pytorchfi.place_of(one.element, shape), one.bit)


def _check(made: ours.Ours, nets: Any, pytorchfi: Any) -> None:
    """The same site gives the same logits, and `correct_at` says what follows from them."""
    net = nets.make(made.network, _CHECKED_IMAGES)
    injector = pytorchfi.Injector(net, rounded=True)
    images = networks.images(_CHECKED_IMAGES)
    labels = made.labels(images)
    sites = [site(made, number) for number in range(made.layers)]
    answers = made.evaluator(_CHECKED_IMAGES).evaluate_sites([Fault.at(site) for site in sites])
    for one, answer in zip(sites, answers, strict=True):
        expected = flipped(made, one, images)
        check_logits(expected, _struck(made, pytorchfi, injector, one).cpu().numpy())
        check_equal("correct_at", expected.argmax(axis=1) == labels, answer)


def flipped(
    made: ours.Ours, one: Site, images: Float[np.ndarray, "B ..."]
) -> Float[np.ndarray, "B classes"]:
    """Logits with one bit of one weight's code flipped, straight from a network that has it so."""
    quantized = made.codes
    name = quantized.layers[one.layer].name
    layers = dict(quantized.parameters.layers)
    codes = np.array(layers[name].kernel).reshape(-1).astype(np.int16)
    codes[one.element] ^= np.uint16(1 << one.bit).astype(np.int16)
    kernel = codes.reshape(layers[name].kernel.shape).astype(np.float32)
    layers[name] = layers[name]._replace(kernel=jnp.asarray(kernel))
    parameters = quantized.parameters._replace(layers=layers)
    return np.asarray(replace(quantized, parameters=parameters)(images))
