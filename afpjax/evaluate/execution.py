"""Runs a plan on one block of images, on one device: call by call, tables gone as soon as nobody
needs them, and one fetch at the end."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt32

from afpjax.evaluate.calls import of_stage
from afpjax.evaluate.metric import Metric, Targets
from afpjax.evaluate.plan import Call, Plan, TableKey, one_by_one, peak_bytes, slots, together
from afpjax.evaluate.programs import Programs, compile_metric, compile_sites
from afpjax.evaluate.rows import clean_rows
from afpjax.evaluate.words import (
    CallSizes,
    KernelWords,
    NodeWords,
    kernel_layout,
    node_layout,
    pack,
    sites_layout,
    width,
)
from afpjax.faults.inject import StageContext, part_of
from afpjax.faults.link import wiring_by_stage
from afpjax.faults.sites import NOWHERE, FaultSites
from afpjax.faults.spec import FaultSpec, keepers
from afpjax.network.compiler import Compiled
from afpjax.network.quantized import Quantized

#: Compiled programs whose tiles have so many nodes.
Compile = Callable[[int], Programs]
_ONE, _FIRST = np.uint32(1), np.zeros(1, int)  # tiles and slots of a call of one node
_NONE = _FIRST[:0]  # and its faulty kernels, where it needs none


class Block(NamedTuple):
    """Some images on a device: as they are kept, their numbers, what logits are held against."""

    images: Any
    indices: Any
    targets: Targets


class Kernels:
    """The faulty kernels of one chunk on one device: made by whoever needs them first, gone after
    the last use; `uses` says how often each is taken."""

    def __init__(self, uses: Mapping[TableKey, int]) -> None:
        self._kept, self._lock, self._left = dict[TableKey, Array](), Lock(), Counter(uses)

    def take(self, key: TableKey, make: Callable[[], Array]) -> Array:
        with self._lock:
            kernels = self._kept.pop(key, None)
            kernels = make() if kernels is None else kernels
            self._left[key] -= 1
            if self._left[key] > 0:
                self._kept[key] = kernels
            return kernels


class PreparedCall(NamedTuple):
    """A call with what it is told, but for what differs from image to image."""

    call: Call
    size: int  # nodes of a tile
    tiles: np.uint32
    slots: np.ndarray  # where its nodes lie in the table that it makes, int [n]
    kernels: np.ndarray  # the faulty kernels of its stage that it needs, from 1, int [K]
    trial: int  # of its nodes, where it is one of one slot
    words: np.ndarray | None  # uint32 [slots, W]; None where images differ

    @property
    def kernel_key(self) -> TableKey | None:
        """Which of a chunk's faulty kernels it takes; none where it needs none."""
        if not len(self.kernels):
            return None
        return self.call.stage, int(self.kernels[0]) if len(self.slots) == 1 else 0


class Prepared(NamedTuple):
    """A plan and its calls, in order."""

    plan: Plan
    calls: tuple[PreparedCall, ...]
    slots: np.ndarray  # of each row's logits in their table, int [R], if they have one
    trials: np.ndarray  # that are drawn for at once, uint32 [K]

    @property
    def kernels(self) -> Mapping[TableKey, int]:
        """How often each faulty kernel is taken on one block."""
        return Counter(work.kernel_key for work in self.calls if work.kernel_key)

    def kernels_on(self, blocks: int) -> Kernels:
        """Its faulty kernels for so many blocks on one device."""
        return Kernels({key: uses * blocks for key, uses in self.kernels.items()})


class Execution:
    """A network on its device, ready to run plans with compiled programs with one `FaultSpec`.

    `network` has its kernels encoded. `substitutes`: what a layer's lost neurons give, [C] each.
    """

    def __init__(
        self,
        compile_for: Compile,
        spec: FaultSpec,
        network: Quantized,
        seed: UInt32[Array, "2"],
        sizes: CallSizes,
        *,
        metric: Metric,
        substitutes: list[Float[np.ndarray, "_"]],
        device: Any = None,
    ) -> None:
        put = partial(jax.device_put, device=device)
        self._compile, self.programs = lru_cache(compile_for), compile_for(1)
        self.spec, self._network, self._device = spec, put(network), device
        self._seed, self._sizes, self._metric = put(seed), sizes, metric
        self._keepers = keepers(spec.shared, network.layers)
        stages = self.programs.stages
        self._data = [
            tuple(put(leaf) for leaf in jax.tree.leaves(context))
            for context in self._contexts(substitutes)
        ]
        self._layouts = [node_layout(spec, network, stage, sizes) for stage in stages]
        self._by_image = spec.budget is not None or bool(spec.sites)
        makers = {value: output for stage in stages for output, value in enumerate(stage.outputs)}
        self._outputs = [[makers[value] for value in stage.inputs] for stage in stages]
        self._logits = [*stages[-1].outputs].index(network.program.output)  # pyright: ignore
        self._drawn = [  # places of a stage's streams among the network's
            jax.tree.leaves(
                of_stage(self.programs.drawn, network, n, s, int(self._keepers[s.layer or 0]))
            )
            for n, s in enumerate(stages)
        ]
        self._own = dict[int, Array]()

    def _contexts(self, substitutes: list[Any]) -> Iterator[StageContext]:
        spec = self.spec
        wiring = wiring_by_stage(self._network) if spec.link else []
        for number, stage in enumerate(self.programs.stages):
            context = StageContext(part_of(self._network, stage))
            if stage.layer is not None and spec.copies:
                context = context._replace(substitute=substitutes[stage.layer])
            if spec.link and stage.parents:
                context = context._replace(wiring=wiring[number])
            yield context

    def prepared(self, plan: Plan) -> Prepared:
        """A plan's calls, with all that they are told but what differs from image to image."""
        stages, rows, every = self.programs.stages, plan.rows, range(len(plan.stages))
        if self._sizes.slots == 1:
            calls, trials = one_by_one(plan, stages), rows.trials[:0]
            words = [self._of_stage(plan, stage) for stage in every]
            in_trials = [rows.trials[nodes.rows].tolist() for nodes in plan.stages]
            own = tuple(
                self._alone(plan, call, words[call.stage], in_trials[call.stage]) for call in calls
            )
            return Prepared(plan, own, trials[:0], trials)
        tiles = [self._sizes.nodes if stage else 1 for stage in every]  # the first has one node
        laid = [slots(plan.stages[n].kernels, tiles[n], self._sizes.slots) for n in every]
        lie = [place for place, _ in laid]
        calls, trials = together(plan, stages, lie), np.unique(rows.trials)
        own = tuple(self._several(plan, call, *laid[call.stage], trials) for call in calls)
        return Prepared(plan, own, lie[-1][plan.of_row], trials)

    def _of_stage(self, plan: Plan, stage: int) -> UInt32[np.ndarray, "N W"] | None:
        """What calls of single nodes are told, for all nodes of a stage at once."""
        if not stage or self._by_image:
            return None
        nodes = np.arange(len(plan.stages[stage].rows))
        places = np.zeros_like(plan.stages[stage].parents)
        words = self._words(plan, stage, nodes, places, plan.rows.trials[:0], None)
        return pack(self._layouts[stage], words, len(nodes))

    def _alone(
        self, plan: Plan, call: Call, words: UInt32[np.ndarray, "N W"] | None, trials: list[int]
    ) -> PreparedCall:
        kernels, node = plan.stages[call.stage].kernels, call.key[1]
        faulty = kernels[node : node + 1] if kernels[node] else _NONE
        told = None if words is None else words[node : node + 1]
        return PreparedCall(call, 1, _ONE, _FIRST, faulty, trials[node], told)

    def _several(
        self, plan: Plan, call: Call, lie: Int[np.ndarray, "n"], size: int, trials: np.ndarray
    ) -> PreparedCall:
        kernels, told = np.unique(plan.stages[call.stage].kernels), None
        if call.stage and not self._by_image:
            words = self._words(plan, call.stage, call.nodes, call.places, trials, None)
            told = pack(self._layouts[call.stage], words, self._sizes.slots, lie)
        tiles = np.uint32(lie.max() // size + 1)
        return PreparedCall(call, size, tiles, lie, kernels[kernels > 0], 0, told)

    def _words(
        self,
        plan: Plan,
        number: int,
        of_nodes: Int[np.ndarray, "n"],
        places: Int[np.ndarray, "n parents"],
        trials: UInt32[np.ndarray, "K"],
        images: np.ndarray | None,
    ) -> NodeWords:
        """What a call is told of nodes of a stage; `images` are the block's, where they differ."""
        rows, stage, layout = plan.rows, self.programs.stages[number], self._layouts[number]
        nodes = plan.stages[number]
        own, kernels = nodes.rows[of_nodes], nodes.kernels[of_nodes]
        alone = self._sizes.slots == 1 or self.spec.one_kernel
        words = NodeWords(
            places,
            np.searchsorted(trials, rows.trials[own]) if len(trials) else 0 * own,
            0 * kernels if alone else kernels,
        )
        if stage.layer is not None:
            table, faults = rows.tables[stage.layer], rows.faults[own, stage.layer]
            thresholds: Any
            if self.spec.sites:
                thresholds = self._sites(table.inputs, faults, layout.thresholds, images)
            else:
                thresholds = _filled(layout.thresholds, table.inputs, faults, images)
            words = words._replace(thresholds=thresholds)
            if isinstance(layout.weights, FaultSites):
                weights = self._sites(table.weights, faults, layout.weights, None)
                words = words._replace(weights=weights)
            elif layout.weights is not None:
                words = words._replace(weights=_filled(layout.weights, table.weights, faults))
            if layout.answering is not None:
                answering = _filled(layout.answering, table.answering, faults)
                words = words._replace(answering=answering)
        if layout.links is not None:
            links = rows.links[own, number] if rows.links.shape[1] else 0 * own
            table = rows.link_tables[number] if rows.links.shape[1] else None
            words = words._replace(links=_filled(layout.links, table, links))
        return words

    def _sites(
        self, sites: Any, faults: Int[np.ndarray, "n"], shapes: Any, images: np.ndarray | None
    ) -> FaultSites:
        own = sites if isinstance(sites, FaultSites) else FaultSites(None, None)  # fault-free rows
        elements = _filled(shapes.elements, own.elements, faults, images, NOWHERE)
        return FaultSites(elements, _filled(shapes.words, own.words, faults, images))

    def outcomes(
        self, prepared: Prepared, kernels: Kernels, block: Block
    ) -> Shaped[np.ndarray, "R B ..."]:
        """The metric's outcome for every row of the plan and image, padding included."""
        plan, alone = prepared.plan, self._sizes.slots == 1
        streams, drawn_for = None, -1
        tables = dict[TableKey, tuple[Array, ...]]()
        outcomes = dict[int, Array]()
        images = np.asarray(block.indices) if self._by_image else None
        for work in prepared.calls:
            call = work.call
            trials = np.array([work.trial], np.uint32) if alone else prepared.trials
            if streams is None or (alone and work.trial != drawn_for):
                streams, drawn_for = self._streams(trials, block), work.trial
            own = (block.images,)
            if call.stage:
                words = work.words
                if words is None:
                    of_nodes = (call.stage, call.nodes, call.places, prepared.trials, images)
                    told = self._words(plan, *of_nodes)
                    words = pack(self._layouts[call.stage], told, self._sizes.slots, work.slots)
                outputs = self._outputs[call.stage]
                read = [tables[key][o] for key, o in zip(call.reads, outputs, strict=True)]
                drawn = [streams[place] for place in self._drawn[call.stage]]
                own = (words, work.tiles, *self._kernels(plan, work, kernels), *read, *drawn)
            made = self._program(call.stage, work.size).call(own, self._data[call.stage])
            tables[call.key] = made
            if call.stage == len(self.programs.stages) - 1:
                outcomes[call.key[1]] = self._measured(made[self._logits], prepared, block)
                if alone:  # what it took is free again before more is taken
                    outcomes[call.key[1]].block_until_ready()
            for key in call.done:
                del tables[key]
        if not alone:
            return fetch(outcomes[0])[: len(plan.rows)]
        fetched = [fetch(outcomes[number]) for number in range(len(outcomes))]
        return np.stack(fetched)[plan.of_row]

    def _measured(self, logits: Array, prepared: Prepared, block: Block) -> Array:
        rows = 0 if self._sizes.slots == 1 else self._sizes.rows
        slots = np.zeros(rows, np.uint32)
        slots[: len(prepared.slots)] = prepared.slots[:rows]
        metric = compile_metric(self._metric, self.programs.logits, rows, self._device)
        return metric((logits, slots), block.targets)[0]

    def _streams(self, trials: UInt32[np.ndarray, "K"], block: Block) -> tuple[Array, ...]:
        """Streams of the trials, padded to as many as programs are compiled for."""
        room = 1 if self._sizes.slots == 1 else self._sizes.rows
        padded = np.zeros(room, np.uint32)
        padded[: len(trials)] = trials
        return self.programs.streams((padded, block.indices, self._seed), ())

    def _program(self, stage: int, size: int) -> Compiled:
        return self._compile(size).run[stage] or self.programs.first

    def _kernels(self, plan: Plan, work: PreparedCall, kernels: Kernels) -> tuple[Array, ...]:
        """The kernels of a call; none where its stage has no layer."""
        layer = self.programs.stages[work.call.stage].layer
        if layer is None:
            return ()
        if work.kernel_key is None or self.spec.one_kernel:
            return (self._own_kernel(layer),)
        return (kernels.take(work.kernel_key, lambda: self._faulty(plan, work, layer)),)

    def _own_kernel(self, layer: int) -> Array:
        """The layer's own codes, as programs take them: alone, or before faulty ones."""
        if layer not in self._own:
            codes = self._codes(layer)
            if self._sizes.slots == 1 or self.spec.one_kernel:
                self._own[layer] = codes
            else:
                words = np.zeros(
                    (self._sizes.kernels, width(self._kernel_layout(layer))), np.uint32
                )
                self._own[layer] = self._made(layer, words, 0)
        return self._own[layer]

    def _faulty(self, plan: Plan, work: PreparedCall, layer: int) -> Array:
        """The faulty kernels that a call needs."""
        rows, sizes = plan.rows, self._sizes
        own = plan.stages[work.call.stage].kernel_rows[work.kernels - 1]
        table, faults = rows.tables[layer], rows.faults[own, layer]
        if not isinstance(table.weights, FaultSites):
            layout = self._kernel_layout(layer)
            words = pack(
                layout,
                KernelWords(rows.trials[own], table.weights[faults]),
                sizes.kernels,
                slice(len(own)),
            )
            return self._made(layer, words, len(own))
        sites = FaultSites(table.weights.elements[faults], table.weights.words[faults])
        codes, room = self._codes(layer), sites.elements.shape[1]
        make = compile_sites(rows.how, room, self._network.format, codes.shape, sizes, self._device)
        words = pack(sites_layout(room), sites, sizes.kernels, slice(len(own)))
        return make((words, np.uint32(len(own))), codes)[0]

    def _made(self, layer: int, words: UInt32[np.ndarray, "K W"], count: int) -> Array:
        program = self.programs.kernels[layer]
        assert program is not None, "kernels of each image are made with it"
        shared = self._codes(layer), np.uint32(self._keepers[layer]), self._seed
        return program((words, np.uint32(count)), shared)[0]

    def _kernel_layout(self, layer: int) -> KernelWords:
        return kernel_layout(self.spec, self._network.program.calls[layer])

    def _codes(self, layer: int) -> Array:
        return self._network.parameters.layers[self._network.layers[layer].name].kernel

    @cached_property
    def row_bytes(self) -> int:
        """The most memory, bytes, that a chunk of one row takes, or of as many as there are slots
        for, with kernels in the making."""
        of_kernels = [program.output_bytes for program in self.programs.kernels if program]
        clean = self.prepared(Plan.of(self.programs.stages, clean_rows(len(self._network.layers))))
        return self.bytes_of(clean) + max(of_kernels, default=0)

    def bytes_of(self, prepared: Prepared) -> int:
        """The most memory, bytes, that a plan takes at once: tables and faulty kernels."""
        layers = [self.programs.stages[stage].layer for stage, _ in prepared.kernels]
        programs = (self.programs.kernels[layer] for layer in layers if layer is not None)
        sizes = {(work.call.stage, work.size) for work in prepared.calls}
        run = {own: self._program(*own) for own in sizes}
        of = {work.call.key: run[work.call.stage, work.size] for work in prepared.calls}
        return sum(program.output_bytes for program in programs if program) + peak_bytes(
            [work.call for work in prepared.calls],
            lambda call: of[call.key].output_bytes,
            lambda call: of[call.key].temporary_bytes,
        )


def fetch(array: Array) -> np.ndarray:
    """An array from the device, once it is there."""
    return np.asarray(array)


def _filled(
    shape: tuple[int, ...],
    table: np.ndarray | FaultSites | None,
    faults: Int[np.ndarray, "n"],
    images: np.ndarray | None = None,
    empty: int = 0,
) -> np.ndarray:
    """[n, *shape]: each node's entry of a table, or `empty` where that is number 0.

    A table by image [F, I, …] is read at the block's images; one entry serves all.
    """
    whole = np.full((len(faults), *shape), empty, np.int32 if empty == 0 else np.uint32)
    faulty = faults > 0
    if faulty.any() and isinstance(table, np.ndarray):
        picked = table[faults[faulty]]
        if images is not None:
            picked = picked[:, np.minimum(images, picked.shape[1] - 1)]
        whole = whole.astype(picked.dtype)
        whole[faulty] = picked
    return whole
