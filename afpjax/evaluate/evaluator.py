"""Accuracy of many mappings under many fault draws.

What is asked for is a *row*: the thresholds of every layer and a trial number. All rows meet the
same draws (common random numbers), so rows that agree on some layers share the values that follow
from these (`plan`), and equal rows are one: mappings that give every layer the same rates.
"""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from afpjax.evaluate.asked import Asked, Asker
from afpjax.evaluate.engine import Engine
from afpjax.evaluate.fleet import Fleet
from afpjax.evaluate.metric import RIGHT, Judge
from afpjax.evaluate.placed import alike, row_at
from afpjax.evaluate.plan import Row
from afpjax.evaluate.programs import Prepare
from afpjax.evaluate.served import links_of, strikes_of, together
from afpjax.faults import bits
from afpjax.faults.model import FaultModel, Thresholds, thresholds
from afpjax.faults.sites import Fault, Site, check_fault, check_sites, wherever_read
from afpjax.faults.strike import Draws
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.inputs.notes import warn
from afpjax.network import soundness
from afpjax.network.quantized import Quantized
from afpjax.network.softmax import before_softmax

Progress = Callable[[int], Any]
MOST_TRIALS = 2**31  # their numbers are words of the draws' streams
#: By the names that their answers are remembered by: rows, and the programs that they need.
Rows = dict[tuple[bytes, ...], tuple[Draws, Row]]


def as_they_are(images: Array) -> Array:
    """Images that are the network's inputs already."""
    return images.astype(jnp.float32)


class Evaluator:
    """Fault evaluation of one quantised network on one set of images.

    `images` stay in the host's memory as they are given, uint8 for instance, and go to the device
    in batches, where `prepare` makes the network's inputs of them (evaluators with the same
    function share compiled programs); `labels` are int32 [B]. Image i keeps the number i whatever
    the batch. Every row is remembered once it has run; `memory` may be given by the caller to keep
    rows beyond this object (row bytes -> packed answers), `name` then tells evaluators apart that
    share it, beside what their answers follow from (`Engine.fingerprint`). `judge` says what is
    kept of the logits: right or wrong, or how an answer differs from the fault-free one (a
    softmax that ends the network is left out).
    `memory_bytes` is what an evaluation may fill of each device, 0 for half of what is free:
    answers do not depend on it. Raises `InputError` for images and labels that do not match.
    `substitutes`: what a lost neuron gives in `served`, [C] for each layer, zero by default.
    `spread` makes of this process's engine one whose work runs elsewhere.
    """

    def __init__(
        self,
        quantized: Quantized,
        images: Num[Any, "B ..."],
        labels: Int[Any, " N"],
        key: Any,
        *,
        prepare: Prepare = as_they_are,
        judge: Judge = RIGHT,
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
        self.judge = judge
        engine = Engine(
            quantized,
            images,
            labels,
            self.seed,
            prepare=prepare,
            memory_bytes=memory_bytes,
            substitutes=substitutes,
        )
        self.name = f"{name}{judge.tag} {engine.fingerprint.hex()}"
        self.own_engine = engine if judge is RIGHT else engine.judging(judge)
        self._engine = spread(self.own_engine) if spread else self.own_engine

    def correct(
        self,
        faults: FaultModel,
        limits: Thresholds,
        trials: Sequence[int],
        progress: Progress = lambda rows: None,
    ) -> Bool[np.ndarray, "P K B"]:
        """Whether each image is classified right, for P thresholds under the given trials.

        An image whose logits are not finite (float formats) counts as wrong.
        """
        return self.drawn(faults, limits, trials, progress)

    def drawn(
        self,
        faults: FaultModel,
        limits: Thresholds,
        trials: Sequence[int],
        progress: Progress = lambda rows: None,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The judge's answers for P thresholds under the given trials."""
        tables = jax.tree.map(partial(np.asarray, dtype=np.uint32), limits)
        draws = Draws.of(faults).of_columns(tables.weights.shape[-1])
        asked = [
            self._asker.at_rates(draws, jax.tree.map(itemgetter(place), tables))
            for place in range(len(tables.weights))
        ]
        return self._met(draws, asked, tuple(trials), progress)

    def served(
        self,
        by: Sequence[Sequence[Int[np.ndarray, "_"]]],
        faults: FaultModel | None = None,
        trials: Sequence[int] = (0,),
        progress: Progress = lambda rows: None,
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The judge's answers where devices share out every layer's neurons.

        P times, by layer, the device that answers for each neuron, -1 where it is lost. `faults`
        strike a neuron's weights at its device's rate, a layer's inputs in the read copy of each
        device by itself, and on the link what layers send to all devices. Raises `InputError` for
        faults that do not go with this.
        """
        draws, of_all = strikes_of(self.quantized, faults, by)
        links = links_of(self.quantized, faults)
        asked = [self._asker.served(draws, each, links) for each in of_all]
        if links is not None or any(strike.drawn for each in of_all for strike in each):
            return self._met(draws, asked, tuple(trials), progress)
        names, rows = [each.name(0) for each in asked], Rows()
        missing = {n: each for n, each in zip(names, of_all, strict=True) if n not in self.memory}
        for start in range(0, len(missing), self._engine.trials):
            part = list(missing.items())[start : start + self._engine.trials]
            row = Row((), together([each for _, each in part], self._engine.trials))
            rows[tuple(name for name, _ in part)] = draws, row
        self._run(rows, progress, len(of_all) * len(trials))
        answers = self._answers(names)
        return np.repeat(answers[:, None], len(trials), axis=1)

    def _met(
        self, draws: Draws, asked: Sequence[Asked], trials: tuple[int, ...], progress: Progress
    ) -> Shaped[np.ndarray, "P K B ..."]:
        """The judge's answers for what is asked under the given trials."""
        names = [[each.name(trial) for trial in trials] for each in asked]
        rows = Rows()
        for each, row in zip(asked, names, strict=True):
            for start in range(0, len(trials), self._engine.trials):
                part = slice(start, start + self._engine.trials)
                wanted = tuple(row[part])
                if wanted not in rows and any(name not in self.memory for name in wanted):
                    rows[wanted] = draws, each.row(self._on_all_devices(trials[part]))
        self._run(rows, progress, len(asked) * len(trials))
        answers = self._answers([name for row in names for name in row])
        return answers.reshape(len(asked), len(trials), *answers.shape[1:])

    def correct_at(
        self,
        sites: Sequence[Site],
        progress: Progress = lambda rows: None,
        *,
        shared: str = "stored",
    ) -> Bool[np.ndarray, "N B"]:
        """Whether each image is classified right with one bit flipped, for N sites.

        `shared` is `under`'s. Raises `InputError` for sites that the network or its format does not
        have.
        """
        check_sites(sites, self.quantized.layers, self.quantized.format.width)
        return self.under([Fault.at(site) for site in sites], progress, shared=shared)

    def under(
        self,
        faults: Sequence[Fault],
        progress: Progress = lambda rows: None,
        *,
        shared: str = "stored",
    ) -> Shaped[np.ndarray, "N B ..."]:
        """The judge's answers under each fault at given places.

        A weight that several layer calls share is struck as it is "stored", for all of them, or
        as it is "read", where the fault names it (`FaultModel.shared`). Raises `InputError` for
        places that the network, its format or its images do not have.
        """
        if shared == "stored":
            faults = [wherever_read(fault, self.quantized.layers) for fault in faults]
        for fault in faults:
            check_fault(fault, self.quantized, self.count)
        names = [f"{self.name} at ".encode() + fault.name for fault in faults]
        missing = {n: f for n, f in zip(names, faults, strict=True) if n not in self.memory}
        rows = Rows()
        together, layers = self._engine.trials, len(self.quantized.layers)
        for kind in alike(missing):
            for start in range(0, len(kind.names), together):
                part = slice(start, start + together)
                row = row_at(kind.faults[part], together, layers, kind.draws)
                rows[tuple(kind.names[part])] = kind.draws, row
        self._run(rows, progress, len(faults))
        return self._answers(names)

    def clean(self, faults: FaultModel | None = None) -> Bool[np.ndarray, "B"]:
        """Whether each image is classified right without faults.

        The answer is the same for any `faults`; naming those that are evaluated anyway spares
        compiling other programs.
        """
        faults = faults or FaultModel()
        columns = Draws.of(faults).columns
        none = np.zeros((1, len(self.quantized.layers), columns), np.uint32)
        return self.correct(faults, Thresholds(none, none), [0])[0, 0]

    def whole(self) -> Bool[np.ndarray, "B"]:
        """Whether each image is classified right with all neurons there, in `served`'s programs."""
        all_there = [np.zeros(layer.neurons, np.int8) for layer in self.quantized.layers]
        return self.served([all_there])[0, 0]

    @cached_property
    def reference(self) -> Float[np.ndarray, "B classes"]:
        """Fault-free logits."""
        return self._engine.clean_logits()

    def clean_rate(self, *, losing: bool = False) -> float:
        """Fault-free images per second, all cores at work.

        In the programs of faults at places, or, where neurons can be lost, in those of `served`.
        """
        return self._engine.clean_rate(Draws(copies=1) if losing else Draws())

    @property
    def _asker(self) -> Asker:
        own = self.quantized
        return Asker(self.name, own.layers, self.seed, self.count, own.program)

    def _on_all_devices(self, trials: tuple[int, ...]) -> tuple[int, ...]:
        return trials + trials[-1:] * (self._engine.trials - len(trials))

    def _run(self, rows: Rows, progress: Progress, total: int) -> None:
        """Run rows, each remembered under its trials' names; `total` answers were asked for."""
        missing = {name for names in rows for name in names if name not in self.memory}
        progress(total - len(missing))
        for draws in dict.fromkeys(draws for draws, _ in rows.values()):
            wanted = {names: row for names, (of, row) in rows.items() if of == draws}
            named = list(wanted)
            with closing(self._engine.run(draws, list(wanted.values()))) as outcomes:
                for place, outcome in outcomes:
                    for name, answer in zip(named[place], outcome, strict=False):
                        if name in missing:
                            missing.remove(name)
                            self.memory[name] = self.judge.pack(answer)
                            self.evaluations += 1
                            progress(1)

    def _answers(self, names: Sequence[bytes]) -> Shaped[np.ndarray, "N B ..."]:
        none = np.zeros((0, self.count), bool)
        found = [self.judge.unpack(self.memory[name], self.count) for name in names]
        return np.stack(found) if found else none


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
    limits = thresholds(faults, quantized, mappings)
    evaluator = Evaluator(quantized, images, labels, key)
    warn(soundness.notes(quantized, images, labels))
    return evaluator.correct(faults, limits, range(trials)).mean(axis=2)
