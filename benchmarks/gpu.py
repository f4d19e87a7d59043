"""`gpu`: what this machine's accelerator makes of fault evaluation, beside PyTorch on the same one.

First, outcomes on it have to be those of the CPU, bit for bit: populations, trials and single
faults. Then images × trials per second of populations over two devices (random and converged, as
in `population`), of single weight faults, and of clean passes, on three sizes of networks; how many
calls a row takes; and which share of the chip's published peak the multiply-accumulates are that
were done, each counted once. A product of 16-bit codes is four of bfloat16, so a quarter is the
most that can be. Without an accelerator all of it runs on the CPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.execution import Block, Execution, Kernels, Prepared
from afpjax.evaluate.metric import LOGITS
from afpjax.faults import bits
from afpjax.faults.inject import logits_of_trial
from afpjax.faults.sites import Fault
from afpjax.faults.spec import Thresholds
from benchmarks import networks, ours, population, single, throughput
from benchmarks.agreement import Disagrees, check_equal, check_logits
from benchmarks.rivals import NotInstalled, load
from benchmarks.table import Row, number, versus
from benchmarks.timing import Contestant, Effort, Timing, faster, race

NAMES = ("digits", "resnet20", "resnet18")
UNIT = "images × trials"
SINGLE, VMAPPED = "single weight faults", "PyTorch vmap over masks, compiled"
CLEAN_FIXED, CLEAN_FLOAT = throughput.FIXED, throughput.FLOAT
TF32 = ", TF32"  # which cuts codes of 16 bits to 11: faster, and another answer
TRIALS_AT_ONCE = 8  # of the rival that has several

#: By `device_kind`, or its beginning: 10^12 multiply-accumulates a second of bfloat16, half of the
#: operations that NVIDIA's data sheets name, without sparsity.
PEAKS = {
    "NVIDIA A100": 156,
    "NVIDIA L4": 60.5,
    "NVIDIA L40S": 181,
    "NVIDIA H100": 494.7,
    "NVIDIA H100 NVL": 417.7,
    "NVIDIA H100 PCIe": 378,
    "NVIDIA H200": 494.7,
    "NVIDIA GH200": 494.7,
    "NVIDIA B200": 1125,
}


class Work(NamedTuple):
    """What was done for one row."""

    calls: float  # of stages' programs
    tiles: float  # nodes that share a kernel and run at once
    macs: float  # for each of its images


class Sizes(NamedTuple):
    mappings: int
    trials: int
    images: int


def measure(effort: Effort) -> Iterator[Row | str]:
    sizes = Sizes(8, 1, 8) if effort.quick else Sizes(64, 4, 256)
    kind = jax.devices()[0].device_kind
    if peak(kind) is None:
        yield f"gpu: what a {kind} does at most is not known here; no share of it is said"
    for name in NAMES[:1] if effort.quick else NAMES:
        made = ours.make(name)
        yield _same_as_on_the_cpu(made)
        contestants, work = _own(made, sizes)
        for rivals in _rivals(made, sizes):
            if isinstance(rivals, str):
                yield rivals
            else:
                contestants += rivals
        yield from _rows(f"{name}, {sizes.images} images", race(contestants, effort), work, kind)


def peak(kind: str) -> float | None:
    """Multiply-accumulates a second of a kind of device, by the longest name that fits."""
    fitting = [name for name in PEAKS if kind == name or kind.startswith((f"{name} ", f"{name}-"))]
    return PEAKS[max(fitting, key=len)] * 1e12 if fitting else None


def _same_as_on_the_cpu(made: ours.Ours, images: int = 8) -> str:
    """Raise `Disagrees` unless answers here are those of the CPU, whose units are float32's."""
    given, labels = networks.images(images), made.labels(networks.images(images))
    mappings = population.mappings("random", 3, made.layers)
    limits = made.limits(ours.TWO_DEVICES, mappings)
    evaluator = Evaluator(made.quantized, given, labels, ours.SEED, metric=LOGITS)
    trials = (0, ours.CHECKED)
    found = evaluator.evaluate(ours.TWO_DEVICES, limits, trials)
    for row, weights, inputs in zip(found, *limits[:2], strict=True):
        for trial, logits in zip(trials, row, strict=True):
            expected = on_cpu(made, given, Thresholds(weights, inputs), trial)
            check_logits(expected, logits, exact=True)
    sites = [single.site(made, layer) for layer in range(made.layers)]
    outcomes = made.evaluator(images).evaluate_sites([Fault.at(site) for site in sites])
    with jax.default_device(_cpu()):
        alone = replace(made, codes=_in_float32(made))
        expected = [single.flipped(alone, site, given).argmax(axis=1) == labels for site in sites]
    check_equal("single faults", np.stack(expected), outcomes)
    return (
        f"{made.network.name}: logits of {len(limits.weights)} mappings × {len(trials)} trials and "
        f"outcomes of {len(sites)} single faults, {images} images each, are those of the CPU"
    )


def on_cpu(
    made: ours.Ours, images: Float[np.ndarray, "B ..."], limits: Thresholds, trial: int
) -> Float[np.ndarray, "B classes"]:
    """Logits of one mapping in one trial, in one program for this machine's CPU."""
    numbers, seed = np.arange(len(images), dtype=np.uint32), bits.seed_words(ours.SEED)
    arguments = (_in_float32(made), images, numbers, limits, seed, np.uint32(trial))
    return np.asarray(logits_of_trial(ours.FAULTS.spec(), *jax.device_put(arguments, _cpu())))


def _cpu() -> Any:
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        raise Disagrees(f"no CPU to compare with; leave JAX_PLATFORMS unset: {error}") from error


def _in_float32(made: ours.Ours) -> Any:
    return replace(made.codes, units="float32")


def _own(made: ours.Ours, sizes: Sizes) -> tuple[list[Contestant], dict[str, Work]]:
    """Our contestants by what they do, and the work for each row."""
    own = [_population(made, kind, sizes) for kind in population.LIMITS]
    own.append(replace(single.own(made, sizes.images), name=SINGLE))
    work = {each.name: work_of(made, each, sizes.images) for each in own}
    for fixed in (True, False):
        own.append(ours.clean(made, sizes.images, fixed=fixed))
        work[own[-1].name] = Work(1, 1, sum(layer.macs for layer in made.quantized.layers))
    return own, work


def _population(made: ours.Ours, kind: str, sizes: Sizes) -> Contestant:
    mappings = population.mappings(kind, sizes.mappings, made.layers)
    limits = made.limits(ours.TWO_DEVICES, mappings)
    population.check_rows(made, kind, limits, images=min(8, sizes.images), count=3)
    own = population.together(made, kind, limits, sizes.trials, sizes.images)
    return replace(own, name=f"{kind} population", work=own.work * sizes.images)


def work_of(made: ours.Ours, contestant: Contestant, images: int) -> Work:
    """What a contestant's first passes do, counted while they run."""
    rows = contestant.together * contestant.work / images
    macs = [layer.macs for layer in made.quantized.layers]
    calls = tiles = done = 0
    with _watched() as seen:
        contestant.run(range(10**8, 10**8 + contestant.together))
    for execution, prepared, block in seen:
        for work in prepared.calls:
            layer = execution.programs.stages[work.call.stage].layer
            of_layer = 0 if layer is None else macs[layer]
            done += of_layer * len(work.call.nodes) * len(block.indices)
            calls, tiles = calls + 1, tiles + int(work.tiles)
    return Work(calls / rows, tiles / rows, done / (rows * images))


@contextmanager
def _watched() -> Iterator[list[tuple[Execution, Prepared, Block]]]:
    """What runs inside `with`."""
    seen, run = [], Execution.outcomes

    def outcomes(self: Execution, prepared: Prepared, kernels: Kernels, block: Block) -> np.ndarray:
        seen.append((self, prepared, block))
        return run(self, prepared, kernels, block)

    Execution.outcomes = outcomes
    try:
        yield seen
    finally:
        Execution.outcomes = run


def _rivals(made: ours.Ours, sizes: Sizes) -> Iterator[list[Contestant] | str]:
    """Groups of contestants, each checked; why others are left out."""
    groups, notes = throughput.agreeing(made)
    yield from notes
    for group in groups:
        contestants = group(made, sizes.images)
        yield contestants
        if jax.default_backend() == "gpu":
            cut = load("torch_networks").with_tf32
            yield [replace(each, name=each.name + TF32, run=cut(each.run)) for each in contestants]
    others = {VMAPPED: _vmapped, single.RIVAL: single.rival}
    for name, make in others.items():
        try:
            yield [make(made, sizes.images)]
        except (NotInstalled, Disagrees) as error:
            yield f"{made.network.name}: {name}: {error}"


def _vmapped(made: ours.Ours, images: int) -> Contestant:
    plain, nets, vmapped = load("plain"), load("torch_networks"), load("vmapped")
    _check_vmapped(made)
    fixed = plain.fixed(nets.make(made.network, images))
    run = vmapped.Vmapped(fixed, plain.loop, TRIALS_AT_ONCE).run
    once = partial(_ignoring, run)
    try:
        return faster(load("passes").ways(VMAPPED, once, images * TRIALS_AT_ONCE))
    except Exception as error:  # what torch.compile wants of a machine, and its errors, are many
        raise Disagrees(f"does not compile here: {str(error).splitlines()[0]}") from error


def _check_vmapped(made: ours.Ours) -> None:
    """Our masks give our logits, in each of two trials."""
    import torch  # pyright: ignore[reportMissingImports]

    count = throughput.CHECKED_IMAGES
    plain, nets, vmapped = load("plain"), load("torch_networks"), load("vmapped")
    fixed = plain.fixed(nets.make(made.network, count))
    trials = [ours.CHECKED, ours.CHECKED - 1]
    draws = [plain.handed(*ours.masks(made, count, trial)) for trial in trials]

    def draw(name: str, target: str, codes: Any) -> Any:
        return torch.stack([one(name, target, codes[0]) for one in draws])

    with torch.inference_mode():
        found = vmapped.Vmapped(fixed, draw, len(trials), compiled=False).run().cpu().numpy()
    for trial, logits in zip(trials, found, strict=True):
        expected = ours.logits(made, networks.images(count), made.everything(), trial)
        check_logits(expected, logits)


def _ignoring(run: Callable[[], Any], number: int) -> Any:
    return run()


def _rows(
    where: str, times: Mapping[str, Timing], work: Mapping[str, Work], kind: str
) -> Iterator[Row]:
    for name, done in work.items():
        yield _row(f"{name}, {where}", times[name], done, peak(kind))
    random, *_ = work
    pairs = [(random, throughput.LOOP), (random, throughput.SLICED), (random, throughput.MRFI)]
    pairs += [(random, VMAPPED), (SINGLE, single.RIVAL)]
    pairs += [(CLEAN_FIXED, throughput.T_FIXED), (CLEAN_FLOAT, throughput.T_FLOAT)]
    for own, rival in _with_tf32(pairs):
        if rival in times:
            yield versus(f"{own} ÷ {rival}, {where}", times[own], times[rival], UNIT)


def _with_tf32(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for own, rival in pairs:
        yield own, rival
        yield own, rival + TF32


def _row(what: str, timing: Timing, done: Work, most: float | None) -> Row:
    per_second = timing.rate * done.macs
    said = f"{number(done.calls)} calls a row"
    figures = {"timing": timing.figures(), **done._asdict(), "macs_per_second": per_second}
    if most is not None:
        said += f", {number(100 * per_second / most)} % of the chip"
        figures["share"] = per_second / most
    return Row(what, timing.rate, said, unit=f"{UNIT}/s", figures=figures)
