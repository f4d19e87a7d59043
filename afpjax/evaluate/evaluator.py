"""Accuracy, or another metric, of many networks with faults: mappings, placements, single faults.

What runs is a *row*: the faults of every layer and a trial number. All rows have the same draws
(common random numbers), so rows that agree on some layers share the values that follow from these
(`plan`), and equal rows are one: mappings that give every layer the same rates.
"""

import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from afpjax.evaluate.calls import Prepare
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import RIGHT, Metric
from afpjax.evaluate.placements import Answering, PlacementFaults, faults_of, links_of
from afpjax.evaluate.rows import FaultRows, at_rates, at_sites, links_by_stage, site_room
from afpjax.faults import bits
from afpjax.faults.budget import rows_within_budget
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import TARGETS, Fault, check_fault, wherever_read
from afpjax.faults.spec import FaultSpec, Thresholds
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.inputs.notes import warn
from afpjax.network import soundness
from afpjax.network.quantized import Quantized
from afpjax.network.softmax import before_softmax

Progress = Callable[[int], Any]
#: Numbers of requests and of trials.
Pairs = Int[np.ndarray, "R 2"]
MOST_EXCHANGED = 4  # sites of weights; more are cheaper in a kernel of their own
MOST_TRIALS = 2**31  # their numbers are words of the draws' streams


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
        weights, inputs, crossing = jax.tree.map(partial(np.asarray, dtype=np.uint32), thresholds)
        layers, trials = self.quantized.layers, tuple(trials)
        spec = faults.spec().of_columns(weights.shape[-1])
        links, link_tables = links_by_stage(self.quantized.program, crossing, len(weights))
        linked = np.asarray(links.any(axis=1))
        faulty = np.asarray(weights.any(axis=(1, 2)) | inputs.any(axis=(1, 2)) | linked)
        kinds = [f"{self.name} {spec.name(linked=of)}".encode() for of in (False, True)]
        names = []
        for index in range(len(weights)):
            parts = (weights[index], inputs[index], *([crossing[index]] if linked[index] else []))
            own = b"|".join([kinds[int(linked[index])], *(part.tobytes() for part in parts)])
            names.append(own if faulty[index] else f"{self.name} clean".encode())

        def rows(pairs: Pairs) -> FaultRows:
            in_trials = pairs[:, 1].astype(np.uint32)
            asked, of = np.unique(pairs[:, 0], return_inverse=True)
            made = weights[asked], inputs[asked]
            if spec.budget is not None:
                limits, of = Thresholds(made[0][of], made[1][of]), np.arange(len(of))
                made = rows_within_budget(spec, layers, limits, self.seed, in_trials, self.count)
            by_layer = [at_rates(made[0][:, n], made[1][..., n, :]) for n in range(len(layers))]
            numbers = np.stack([own for own, _ in by_layer], axis=1)
            tables = [table for _, table in by_layer]
            crossing_of = links[pairs[:, 0]]
            return FaultRows(in_trials, numbers[of], tables, crossing_of, link_tables)

        return self._in_trials(spec, names, faulty, trials, rows, progress)

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
        spec, of_layers = faults_of(self.quantized, faults, placements)
        crossing = links_of(self.quantized, faults)
        every = None if crossing is None else np.stack([crossing] * len(placements))
        links, link_tables = links_by_stage(self.quantized.program, every, len(placements))
        kind = f"{self.name} {spec.name(linked=bool(links.any()))}|".encode()
        crossed = b"" if crossing is None else crossing.tobytes()
        names = [kind + _digest(of_layers, index) + crossed for index in range(len(placements))]
        by_layer = [at_rates(*layer) for layer in of_layers]
        numbers = np.stack([own for own, _ in by_layer], axis=1)
        tables = [table for _, table in by_layer]
        of_layers_drawn = np.stack([table.drawn[own] for own, table in by_layer])
        drawn = np.asarray(of_layers_drawn.any(axis=0) | links.any(axis=1))

        def rows(pairs: Pairs) -> FaultRows:
            of, in_trials = pairs[:, 0], pairs[:, 1].astype(np.uint32)
            return FaultRows(in_trials, numbers[of], tables, links[of], link_tables)

        return self._in_trials(spec, names, drawn, tuple(trials), rows, progress)

    def _in_trials(
        self,
        spec: FaultSpec,
        names: Sequence[bytes],
        drawn: Bool[np.ndarray, "P"],
        trials: tuple[int, ...],
        rows: Callable[[Pairs], FaultRows],
        progress: Progress,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The metric's outcomes for P requests in the given trials.

        `names` are what they are remembered by, with the trial's number where something is
        `drawn`; `rows` makes those of some pairs of a request and a trial.
        """
        named = [
            [name + b"|%d" % trial if of else name for trial in trials]
            for name, of in zip(names, drawn, strict=True)
        ]
        missing: dict[bytes, tuple[int, int]] = {}
        for request, own in enumerate(named):
            for trial, name in zip(trials, own, strict=True):
                if name not in missing and name not in self.memory:
                    missing[name] = request, trial
        progress(len(names) * len(trials) - len(missing))
        if missing:
            pairs = np.array(list(missing.values()), np.int64)
            self._run(spec, list(missing), rows(pairs), progress)
        outcomes = self._outcomes([name for own in named for name in own])
        return outcomes.reshape(len(names), len(trials), *outcomes.shape[1:])

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
        specs = [self._spec_at(fault) for fault in faults]
        # Beyond 2^24 an exchanged sum may round otherwise.
        names = [
            f"{self.name} at{' in sums' * bool(spec.exchanged)} ".encode() + fault.name
            for spec, fault in zip(specs, faults, strict=True)
        ]
        alike: dict[tuple[FaultSpec, str], dict[bytes, Fault]] = {}  # that run in the same programs
        for name, spec, fault in zip(names, specs, faults, strict=True):
            if name not in self.memory:
                alike.setdefault((spec, fault.how), {})[name] = fault
        progress(len(faults) - sum(map(len, alike.values())))
        for (spec, _), missing in alike.items():
            layers, rooms = len(self.quantized.layers), (spec.sites, spec.exchanged)
            rows = at_sites(list(missing.values()), layers, *rooms)
            self._run(spec, list(missing), rows, progress)
        return self._outcomes(names)

    def clean(self, faults: FaultModel | None = None) -> Shaped[np.ndarray, "B ..."]:
        """The metric's outcome of each image without faults: for `RIGHT`, whether it is right.

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
        return self._engine.clean_rate(FaultSpec(copies=1) if losing else self.own_engine.plain)

    def _spec_at(self, fault: Fault) -> FaultSpec:
        """The programs of a fault at sites.

        Few sites of weights in fixed point are exchanged in the sums; others are in kernels of
        their own, and these need no programs of their own.
        """
        most: dict[str, int] = dict.fromkeys(TARGETS, 0)
        for (_, target), sites in fault.sites.items():
            most[target] = max(most[target], sites.elements.shape[1])
        weights, inputs = (site_room(most[target]) for target in TARGETS)
        exchanges = weights <= MOST_EXCHANGED and self.own_engine.plain.exchanged
        exchanged = weights if exchanges else 0
        if not inputs and not exchanged:
            return FaultSpec()
        return FaultSpec(sites=inputs, exchanged=exchanged, how=fault.how)

    def _run(
        self,
        spec: FaultSpec,
        names: Sequence[bytes],
        rows: FaultRows,
        progress: Progress,
    ) -> None:
        """Run rows, each remembered under its name."""
        with closing(self._engine.run(spec, rows)) as outcomes:
            for number, outcome in outcomes:
                self.memory[names[number]] = self.metric.pack(outcome)
                self.evaluations += 1
                progress(1)

    def _outcomes(self, names: Sequence[bytes]) -> Shaped[np.ndarray, "N B ..."]:
        if not names:
            return np.zeros((0, self.count), bool)
        return np.stack([self.metric.unpack(self.memory[name], self.count) for name in names])


def _digest(of_layers: Sequence[PlacementFaults], index: int) -> bytes:
    """What tells the faults of all layers of one placement from others."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (part[index] for layer in of_layers for part in layer):
        digest.update(part.nbytes.to_bytes(8, "little") + part.tobytes())
    return digest.digest()


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
