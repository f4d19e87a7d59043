"""Accuracy, or another metric, of many networks with faults: mappings, placements, single faults.

What runs is a *row*: the faults of every layer and a trial number. All rows have the same draws
(common random numbers), so rows that agree on some layers share the values that follow from these
(`plan`), and equal rows are one: mappings that give every layer the same rates.
"""

import hashlib
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from afpjax.evaluate.engine import Engine
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import RIGHT, Metric
from afpjax.evaluate.placements import Answering, faults_of, links_of, side_by_side
from afpjax.evaluate.plan import CLEAN, PlanRow, StageFaults
from afpjax.evaluate.programs import Prepare
from afpjax.faults import bits
from afpjax.faults.budget import rows_within_budget
from afpjax.faults.link import links_by_stage
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import NOWHERE, Fault, FaultSites, check_fault, wherever_read
from afpjax.faults.spec import FaultSpec, Thresholds, words
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.inputs.notes import warn
from afpjax.network import soundness
from afpjax.network.quantized import Quantized
from afpjax.network.softmax import before_softmax

Progress = Callable[[int], Any]
MOST_TRIALS = 2**31  # their numbers are words of the draws' streams
#: By the names that their outcomes are remembered by: rows, and the programs that they need.
Rows = dict[tuple[bytes, ...], tuple[FaultSpec, PlanRow]]


class _Request(NamedTuple):
    """One network with one set of faults, whatever the trial."""

    name: bytes  # what its outcomes are remembered by, with the trial's number
    drawn: bool  # whether they depend on the trial
    faults: tuple[StageFaults, ...] = ()
    links: tuple[bytes, ...] = ()
    thresholds: Thresholds | None = None  # where a budget makes the faults depend on the trial

    def in_trial(self, trial: int) -> bytes:
        return self.name + (b"|%d" % trial if self.drawn else b"")


def as_they_are(images: Array) -> Array:
    """Images that are the network's inputs already."""
    return images.astype(jnp.float32)


class Evaluator:
    """Fault evaluation of one quantised network on one set of images.

    `images` stay in the host's memory as they are given, uint8 for instance, and go to the device
    in batches, where `prepare` makes the network's inputs of them (evaluators with the same
    function share compiled programs); `labels` are int32 [B]. Image i keeps the number i whatever
    the batch. Every row is remembered once it has run; `memory` may be given by the caller to keep
    rows beyond this object (row bytes -> packed outcomes), `name` then tells evaluators apart that
    share it, beside what their outcomes follow from (`Engine.fingerprint`). `metric` says what is
    kept of the logits: right or wrong, or how an outcome differs from the fault-free one (a
    softmax that ends the network is left out).
    `memory_bytes` is what an evaluation may fill of each device, 0 for half of what is free:
    outcomes do not depend on it. Raises `InputError` for images and labels that do not match.
    `substitutes`: what a lost neuron gives in `evaluate_placements`, [C] for each layer, zero by
    default. `spread` makes of this process's engine one whose work runs elsewhere.
    """

    def __init__(
        self,
        quantized: Quantized,
        images: Num[Any, "B ..."],
        labels: Int[Any, " N"],
        key: Any,
        *,
        prepare: Prepare = as_they_are,
        metric: Metric = RIGHT,
        memory: MutableMapping[bytes, bytes] | None = None,
        name: str = "",
        memory_bytes: int = 0,
        substitutes: Sequence[Float[Any, "_"]] | None = None,
        spread: Callable[[Engine], Fleet] | None = None,
    ) -> None:
        images = checks.finite("images", checks.array("images", images))
        checks.batch("images", jax.eval_shape(prepare, images), quantized.program.image_shape)
        labels = checks.class_numbers(labels, quantized.program.classes)
        checks.same_count(images, labels)
        self.quantized = quantized = before_softmax(quantized)
        self.count = len(images)
        self.seed = bits.seed_words(key)
        self.memory = {} if memory is None else memory
        self.evaluations = 0
        self.metric = metric
        engine = Engine(
            quantized,
            images,
            labels,
            self.seed,
            prepare=prepare,
            memory_bytes=memory_bytes,
            substitutes=substitutes,
        )
        self.name = f"{name}{metric.tag} {engine.fingerprint.hex()}"
        self.own_engine = engine if metric is RIGHT else engine.with_metric(metric)
        self._engine = spread(self.own_engine) if spread else self.own_engine

    def evaluate(
        self,
        faults: FaultModel,
        thresholds: Thresholds,
        trials: Sequence[int],
        progress: Progress = lambda rows: None,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The metric's outcomes for P thresholds in the given trials, bool for `RIGHT`.

        An image whose logits are not finite (float formats) counts as wrong.
        """
        tables = jax.tree.map(partial(np.asarray, dtype=np.uint32), thresholds)
        spec = faults.spec().of_columns(tables.weights.shape[-1])
        requests = [
            self._at_rates(spec, jax.tree.map(itemgetter(index), tables))
            for index in range(len(tables.weights))
        ]
        return self._in_trials(spec, requests, tuple(trials), progress)

    def _at_rates(self, spec: FaultSpec, thresholds: Thresholds) -> _Request:
        """A network whose layers have thresholds [L, columns], and what it sends [W]."""
        weights, inputs, crossing = thresholds
        links = links_by_stage(self.quantized.program, crossing)
        if not any(links) and not weights.any() and not inputs.any():
            return _Request(f"{self.name} clean".encode(), False, self._clean)
        kind = f"{self.name} {spec.name(linked=any(links))}"
        parts = (weights, inputs, *([crossing] if any(links) else []))
        name = b"|".join([kind.encode(), *(part.tobytes() for part in parts)])
        if spec.budget is not None:
            return _Request(name, True, links=links, thresholds=thresholds)
        return _Request(name, True, _by_layer(weights, inputs), links)

    def evaluate_placements(
        self,
        placements: Sequence[Answering],
        faults: FaultModel | None = None,
        trials: Sequence[int] = (0,),
        progress: Progress = lambda rows: None,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The metric's outcomes where devices share out every layer's neurons.

        A neuron's weights have faults at its device's rate, a layer's inputs in the read copy of
        each device by itself, and on the link what layers send to all devices. Raises `InputError`
        for faults that do not go with this.
        """
        spec, of_all = faults_of(self.quantized, faults, placements)
        crossing = links_of(self.quantized, faults)
        links = links_by_stage(self.quantized.program, crossing)
        kind = f"{self.name} {spec.name(linked=any(links))}|".encode()
        requests = [
            _Request(
                kind + _digest(of) + b"".join(links),
                any(links) or any(layer.drawn for layer in of),
                of,
                links,
            )
            for of in of_all
        ]
        if any(request.drawn for request in requests):
            return self._in_trials(spec, requests, tuple(trials), progress)
        missing = {r.name: r.faults for r in requests if r.name not in self.memory}
        rows, together = Rows(), self._engine.trials
        for start in range(0, len(missing), together):
            names = tuple(missing)[start : start + together]
            row = PlanRow((), side_by_side([missing[name] for name in names], together))
            rows[names] = spec, row
        self._run(rows, progress, len(of_all) * len(trials))
        outcomes = self._outcomes([request.name for request in requests])
        return np.repeat(outcomes[:, None], len(trials), axis=1)

    def _in_trials(
        self,
        spec: FaultSpec,
        requests: Sequence[_Request],
        trials: tuple[int, ...],
        progress: Progress,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The metric's outcomes for what is requested in the given trials."""
        rows, together = Rows(), self._engine.trials
        for request in requests:
            for start in range(0, len(trials), together):
                part = trials[start : start + together]
                names = tuple(request.in_trial(trial) for trial in part)
                if names not in rows and any(name not in self.memory for name in names):
                    on_all_devices = part + part[-1:] * (together - len(part))
                    rows[names] = spec, self._row(spec, request, on_all_devices)
        self._run(rows, progress, len(requests) * len(trials))
        outcomes = self._outcomes([r.in_trial(trial) for r in requests for trial in trials])
        return outcomes.reshape(len(requests), len(trials), *outcomes.shape[1:])

    def _row(self, spec: FaultSpec, request: _Request, trials: tuple[int, ...]) -> PlanRow:
        faults, layers = request.faults, self.quantized.layers
        if request.thresholds is not None:
            own = request.thresholds, self.seed, trials, self.count
            faults = _by_layer(*rows_within_budget(spec, layers, *own))
        return PlanRow(trials, faults, request.links)

    def evaluate_sites(
        self,
        faults: Sequence[Fault],
        progress: Progress = lambda rows: None,
        *,
        shared: str = "stored",
    ) -> Shaped[np.ndarray, "N B ..."]:
        """The metric's outcomes for each fault at given sites.

        A weight that several layer calls share is faulty as it is "stored", for all of them, or as
        it is "read", where the fault names it (`FaultModel.shared`). Raises `InputError` for sites
        that the network, its format or its images do not have.
        """
        if shared == "stored":
            faults = [wherever_read(fault, self.quantized.layers) for fault in faults]
        for fault in faults:
            check_fault(fault, self.quantized, self.count)
        names = [f"{self.name} at ".encode() + fault.name for fault in faults]
        alike: dict[tuple[FaultSpec, str], dict[bytes, Fault]] = {}  # that run in the same programs
        for name, fault in zip(names, faults, strict=True):
            if name not in self.memory:
                alike.setdefault((_spec_at(fault), fault.how), {})[name] = fault
        rows, together = Rows(), self._engine.trials
        for (spec, how), missing in alike.items():
            for start in range(0, len(missing), together):
                part = tuple(missing)[start : start + together]
                some = [missing[name] for name in part]
                on_all_devices = some + some[-1:] * (together - len(some))
                rows[part] = spec, PlanRow((), self._at_sites(on_all_devices, spec.sites, how))
        self._run(rows, progress, len(faults))
        return self._outcomes(names)

    def _at_sites(self, faults: Sequence[Fault], room: int, how: str) -> tuple[StageFaults, ...]:
        """One fault on each device; `room` is that of the activations' sites."""
        layers = list(self._clean)
        for layer in {layer for fault in faults for layer, _ in fault.sites}:
            weights = _stacked([fault.sites.get((layer, "weights")) for fault in faults])
            inputs = [fault.sites.get((layer, "activations")) for fault in faults]
            layers[layer] = StageFaults(weights, _stacked(inputs, room), how=how)
        return tuple(layers)

    @property
    def _clean(self) -> tuple[StageFaults, ...]:
        return (CLEAN,) * len(self.quantized.layers)

    def clean(self, faults: FaultModel | None = None) -> Bool[np.ndarray, "B"]:
        """Whether each image is classified right without faults.

        The outcome is the same for any `faults`; naming those that are evaluated anyway spares
        compiling other programs.
        """
        faults = faults or FaultModel()
        none = np.zeros((1, len(self.quantized.layers), faults.spec().columns), np.uint32)
        return self.evaluate(faults, Thresholds(none, none), [0])[0, 0]

    def whole(self) -> Bool[np.ndarray, "B"]:
        """Whether each image is right with all neurons there, in the programs of placements."""
        all_there = [np.zeros(layer.neurons, np.int8) for layer in self.quantized.layers]
        return self.evaluate_placements([all_there])[0, 0]

    @cached_property
    def reference(self) -> Float[np.ndarray, "B classes"]:
        """Fault-free logits."""
        return self._engine.clean_logits()

    def clean_rate(self, *, losing: bool = False) -> float:
        """Fault-free images per second, all cores at work.

        In the programs of faults at sites, or, where neurons can be lost, in those of placements.
        """
        return self._engine.clean_rate(FaultSpec(copies=1) if losing else FaultSpec())

    def _run(self, rows: Rows, progress: Progress, total: int) -> None:
        """Run rows, each remembered under its trials' names, of `total` that are asked for."""
        missing = {name for names in rows for name in names if name not in self.memory}
        progress(total - len(missing))
        for spec in dict.fromkeys(spec for spec, _ in rows.values()):
            wanted = {names: row for names, (of, row) in rows.items() if of == spec}
            named = list(wanted)
            with closing(self._engine.run(spec, list(wanted.values()))) as outcomes:
                for number, by_trial in outcomes:
                    for name, outcome in zip(named[number], by_trial, strict=False):
                        if name in missing:
                            missing.remove(name)
                            self.memory[name] = self.metric.pack(outcome)
                            self.evaluations += 1
                            progress(1)

    def _outcomes(self, names: Sequence[bytes]) -> Shaped[np.ndarray, "N B ..."]:
        if not names:
            return np.zeros((0, self.count), bool)
        return np.stack([self.metric.unpack(self.memory[name], self.count) for name in names])


def _by_layer(weights: Any, inputs: Any) -> tuple[StageFaults, ...]:
    """Thresholds [..., L, columns] as the layers' faults."""
    layers = range(weights.shape[-2])
    return tuple(StageFaults(words(weights[..., n, :]), words(inputs[..., n, :])) for n in layers)


def _digest(faults: Sequence[StageFaults]) -> bytes:
    """What tells the faults of all layers, at rates, from others."""
    digest = hashlib.blake2b(digest_size=16)
    for layer in faults:
        for part in (layer.weights, layer.inputs, layer.outputs):
            assert isinstance(part, bytes), "placements have faults at rates, not at sites"
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def _spec_at(fault: Fault) -> FaultSpec:
    """The programs of a fault at sites; in weights alone it needs none of its own."""
    inputs = [sites for (_, target), sites in fault.sites.items() if target == "activations"]
    return FaultSpec(sites=_room(inputs), how=fault.how) if _room(inputs) else FaultSpec()


def _room(several: Iterable[FaultSites]) -> int:
    """A power of two that the most sites of some operands fit in; 0 for none."""
    most = max((sites.elements.shape[1] for sites in several), default=0)
    return 1 << (most - 1).bit_length() if most else 0


def _stacked(by_device: Sequence[FaultSites | None], room: int = 0) -> bytes | FaultSites:
    """The sites of one operand, [D, I, room], from each device's; nothing where there are none."""
    present = [sites for sites in by_device if sites is not None and sites.elements.size]
    if not present:
        return b""
    images = max(len(sites.elements) for sites in present)
    shape = (len(by_device), images, room or _room(present))
    elements, bits = np.full(shape, NOWHERE, np.uint32), np.zeros(shape, np.uint32)
    for device, sites in enumerate(by_device):
        if sites is not None:
            count = sites.elements.shape[1]
            elements[device, :, :count] = sites.elements
            bits[device, :, :count] = sites.words
    return FaultSites(elements, bits)


def accuracy(
    quantized: Quantized,
    images: Float[Any, "B ..."],
    labels: Int[Any, " N"],
    mappings: Int[Any, "P L"],
    faults: FaultModel,
    key: Any,
    *,
    trials: int = 32,
) -> Float[np.ndarray, "P K"]:
    """Top-1 accuracy of every mapping under every fault draw, [mappings, trials], fractions of 1.

    All mappings meet the same draws (common random numbers), so they can be compared in pairs.
    Warns (`afpjax.inputs.notes.AnswerWarning`) of a network that does no better than guessing, and
    of a number format that costs accuracy by itself.
    """
    checks.instance("quantized", quantized, Quantized, "a network from afpjax.quantize")
    checks.instance("faults", faults, FaultModel, "an afpjax.FaultModel")
    mappings = checks.array("mappings", mappings)
    if mappings.ndim != 2:
        raise InputError(
            f"mappings: of shape {mappings.shape}; needed is [mappings, layers], one alone is "
            "mapping[None]"
        )
    trials = checks.whole("trials", trials, 1, MOST_TRIALS)
    own = thresholds(faults, quantized, mappings)
    evaluator = Evaluator(quantized, images, labels, key)
    warn(soundness.notes(quantized, images, labels))
    return evaluator.evaluate(faults, own, range(trials)).mean(axis=2)
