"""Runs a plan on one batch of images: call by call, values gone as soon as nobody needs them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped, UInt32

from afpjax.evaluate.metric import Metric, Targets
from afpjax.evaluate.plan import (
    CLEAN,
    Group,
    Kernel,
    Node,
    Plan,
    PlanRow,
    groups,
    kernel_of,
    peak_bytes,
    released,
)
from afpjax.evaluate.programs import ImageBatch, Programs, compile_metric, compile_sites
from afpjax.faults.inject import StageContext, StageInputs, part_of
from afpjax.faults.link import wiring_by_stage
from afpjax.faults.sites import NOWHERE, FaultSites
from afpjax.faults.spec import FaultSpec, keepers
from afpjax.network.compiler import Compiled
from afpjax.network.quantized import Quantized


class Kernels:
    """The faulty kernels of one chunk: made by whoever needs them first, gone after the last use.

    `uses` says how often each is taken.
    """

    def __init__(self, make: Callable[[Kernel], Array], uses: Mapping[Kernel, int]) -> None:
        self._make, self._kept, self._lock = make, dict[Kernel, Array](), Lock()
        self._left = Counter(uses)

    def take(self, kernel: Kernel, times: int = 1) -> Array:
        with self._lock:
            codes = self._kept.pop(kernel, None)
            codes = self._make(kernel) if codes is None else codes
            self._left[kernel] -= times
            if self._left[kernel] > 0:
                self._kept[kernel] = codes
            return codes


class NodeValue(NamedTuple):
    """A node's arrays: its own, or its slot among those of the nodes that ran with it."""

    arrays: tuple[Array, ...]
    slot: int | None = None


class Packing(NamedTuple):
    """How nodes that run in one call lie behind one another: so many `slots` along an axis."""

    slots: int
    axis: int

    def gathered(self, sources: Sequence[NodeValue], output: int) -> Array:
        """What a call reads: the value of one node, or of several one behind the other."""
        first = sources[0]
        if len(sources) == 1:
            return self._alone(first, output)
        if all(
            source.arrays is first.arrays and source.slot == slot
            for slot, source in enumerate(sources)
        ):
            return first.arrays[output]
        parts = [self._alone(source, output) for source in sources]
        parts += parts[-1:] * (self.slots - len(parts))
        return _joined(tuple(parts), self.axis)

    def _alone(self, source: NodeValue, output: int) -> Array:
        array = source.arrays[output]
        if source.slot is None:
            return array
        size = array.shape[self.axis] // self.slots
        return _cut(array, np.int32(source.slot * size), size, self.axis)


@partial(jax.jit, static_argnums=(2, 3))
def _cut(array: Array, start: Any, size: int, axis: int) -> Array:
    return lax.dynamic_slice_in_dim(array, start, size, axis)


@partial(jax.jit, static_argnums=1)
def _joined(parts: tuple[Array, ...], axis: int) -> Array:
    return jnp.concatenate(parts, axis)


class Slots(NamedTuple):
    """Faults of the nodes that fill the first of a call's slots, image by image; none in the rest.

    Every array is [D, B, ...], by device and image.
    """

    devices: int
    nodes: Sequence[Node]
    slots: int  # of equally many images
    indices: np.ndarray  # of all slots' images

    @property
    def _size(self) -> int:
        return len(self.indices) // self.slots

    def _filled(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        of_nodes: Iterable[np.ndarray | None],
        empty: int = 0,
    ) -> np.ndarray:
        """What each node has in its slot: [D, images, *shape] or broadcast to that."""
        whole = np.full((self.devices, self.slots, self._size, *shape), empty, dtype)
        for slot, own in enumerate(of_nodes):
            if own is not None:
                whole[:, slot] = own
        return whole.reshape(self.devices, self.slots * self._size, *shape)

    def trials(self) -> np.ndarray:
        """The trial of every image."""
        own = (
            np.array(node.trials or (0,) * self.devices, np.uint32)[:, None] for node in self.nodes
        )
        return self._filled((), np.uint32, own)

    def links(self, read: int, words: tuple[int, ...]) -> np.ndarray:
        """Thresholds of the `read` values that cross."""
        own = (
            np.frombuffer(node.links, np.uint32).reshape(read, *words) if node.links else None
            for node in self.nodes
        )
        return self._filled((read, *words), np.uint32, own)

    def answering(self, neurons: int) -> np.ndarray:
        """Whose copy answers for each neuron: the first, where nothing else is said."""
        own = (  # of none: the same on all devices, or each its own
            np.frombuffer(node.faults.outputs, np.int8).reshape(-1, 1, neurons)
            if node.faults.outputs
            else None
            for node in self.nodes
        )
        return self._filled((neurons,), np.int8, own)

    def thresholds(self, spec: FaultSpec) -> np.ndarray:
        """Of every image's inputs, or of every read copy."""
        shape = (spec.copies, spec.columns) if spec.copies else (spec.columns,)
        own = (self._thresholds_of(node, spec, shape) for node in self.nodes)
        return self._filled(shape, np.uint32, own)

    def _thresholds_of(
        self, node: Node, spec: FaultSpec, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        inputs = node.faults.inputs
        if not isinstance(inputs, bytes) or not inputs:
            return None
        words = np.frombuffer(inputs, np.uint32)
        if spec.budget is None:
            return words.reshape(shape)
        return self._by_image(words.reshape(self.devices, -1, spec.columns))  # of a trial's images

    def sites(self, spec: FaultSpec) -> FaultSites:
        """Where faults at sites are, and the bits that flip there."""
        of_nodes = [
            node.faults.inputs if isinstance(node.faults.inputs, FaultSites) else None
            for node in self.nodes
        ]
        elements, words = (
            self._filled((spec.sites,), np.uint32, own, empty)
            for own, empty in (
                ([s if s is None else self._by_image(s.elements) for s in of_nodes], NOWHERE),
                ([s if s is None else self._by_image(s.words) for s in of_nodes], 0),
            )
        )
        return FaultSites(elements, words)

    def _by_image(self, array: np.ndarray) -> np.ndarray:
        """[D, images of the trial, ...] at a slot's images; one for all where it has one."""
        return array[:, np.minimum(self.indices[: self._size], array.shape[1] - 1)]


class Execution:
    """A network on its device, ready to run plans with compiled programs with one `FaultSpec`.

    `network` has its kernels encoded. Where a batch holds few images, calls have `slots` times as
    many, for as many nodes at once: `packed` compiles these programs. Where several devices run a
    trial each, what belongs to a trial has a leading axis over them. `substitutes`: what a layer's
    lost neurons give, [C] each.
    """

    def __init__(
        self,
        programs: Programs,
        spec: FaultSpec,
        network: Quantized,
        seed: UInt32[Array, "2"],
        *,
        metric: Metric,
        substitutes: Sequence[Float[np.ndarray, "_"]] = (),
        slots: int = 1,
        packed: Callable[[], Programs] | None = None,
    ) -> None:
        if programs.mesh is not None:  # to every device once, not with every call
            network = jax.device_put(network, NamedSharding(programs.mesh, PartitionSpec()))
        self.programs, self._spec, self._network, self._seed = programs, spec, network, seed
        self._pack, self._metric = packed, metric
        self._substitutes = substitutes
        self._keepers = keepers(spec.shared, network.layers)
        self._parts = [part_of(network, stage) for stage in programs.stages]
        self._wiring = wiring_by_stage(network) if spec.link else None
        makers = {
            value: (number, output)
            for number, stage in enumerate(programs.stages)
            for output, value in enumerate(stage.outputs)
        }
        self._inputs = [[makers[value] for value in stage.inputs] for stage in programs.stages]
        self._logits = [*programs.stages[-1].outputs].index(network.program.output)  # pyright: ignore
        self._own = [self._own_kernel(layer) for layer in range(len(network.layers))]
        # The axis of the images: behind that of the devices, where there are several.
        self._packing = Packing(slots, 0 if programs.mesh is None else 1)

    @cached_property
    def row_bytes(self) -> int:
        """The most memory that one row takes on a device, with a kernel in the making."""
        row = PlanRow((), (CLEAN,) * len(self._network.layers))
        plan = Plan.of(self.programs.stages, [row])
        return self.bytes_of(plan) + max(kernel.output_bytes for kernel in self.programs.kernels)

    def bytes_of(self, plan: Plan) -> int:
        """The most memory that a plan takes at once on a device: values and faulty kernels."""
        kernels = sum(self.programs.kernels[kernel.layer].output_bytes for kernel in plan.kernels)
        calls = groups(plan, self.programs.stages, self._packing.slots)
        return kernels + peak_bytes(
            plan,
            calls,
            lambda call: self._program(call).output_bytes,
            lambda call: self._program(call).temporary_bytes,
        )

    def kernel(self, kernel: Kernel) -> Array:
        """A layer's codes as a trial has them, or on every device that trial's."""
        codes, number = self._codes(kernel.layer), np.uint32(self._keepers[kernel.layer])
        trials, mesh = self.programs.trials, self.programs.mesh
        if isinstance(kernel.faults, FaultSites):
            sites = FaultSites(kernel.faults.elements[:, 0], kernel.faults.words[:, 0])
            count = sites.elements.shape[-1]
            inject = compile_sites(kernel.how, count, self._network.format, codes.shape, mesh)
            return inject(self._per_trial(sites), codes)[0]
        columns = self._spec.columns  # by trial, or by neuron and the same in every trial
        shape = (1, -1, columns) if self._spec.copies else (-1, columns)
        thresholds = np.frombuffer(kernel.faults, np.uint32).reshape(shape)
        thresholds = np.broadcast_to(thresholds, (trials, *thresholds.shape[1:]))
        image = np.full(trials, kernel.image, np.uint32)
        of_trial = self._per_trial((thresholds, np.array(kernel.trials, np.uint32), image))
        return self.programs.kernels[kernel.layer](of_trial, (codes, number, self._seed))[0]

    def outcomes(
        self, plan: Plan, kernels: Kernels, batch: ImageBatch
    ) -> Shaped[np.ndarray, "R D B ..."]:
        """The metric's outcome for every row of the plan, trial and image, padding included."""
        left, values = list(plan.reads), dict[int, NodeValue]()
        outcomes = dict[int, Shaped[np.ndarray, "D B ..."]]()
        for call in groups(plan, self.programs.stages, self._packing.slots):
            own = batch if len(call.nodes) == 1 else self._repeated(batch)
            arrays = self._run(plan, call, values, kernels, own)
            if call.stage == len(self.programs.stages) - 1:
                outcomes |= self._measured(call, arrays[self._logits], own)
            for slot, number in enumerate(call.nodes):
                values[number] = NodeValue(arrays, slot if len(call.nodes) > 1 else None)
            for number in (n for node in call.nodes for n in released(plan, node, left)):
                del values[number]
        return np.stack([outcomes[node] for node in plan.logits])

    def _repeated(self, batch: ImageBatch) -> ImageBatch:
        """The batch once for every slot; only the first stage needs the images themselves."""
        slots = self._packing.slots
        labels, reference = (
            targets if targets is None else np.concatenate([targets] * slots)
            for targets in (batch.labels, batch.reference)
        )
        return ImageBatch(None, labels, np.tile(batch.indices, slots), reference)

    def _measured(
        self, call: Group, logits: Array, batch: ImageBatch
    ) -> dict[int, Shaped[np.ndarray, "D B ..."]]:
        """The outcomes of each node. Waiting for them keeps the host from running ahead of the
        device, whose buffers are taken when a call is dispatched."""
        metric = compile_metric(self._metric, self._of(call).logits, self.programs.mesh)
        outcomes = np.asarray(metric(logits, Targets(batch.labels, batch.reference))[0])
        by_device = outcomes[None] if self.programs.mesh is None else outcomes
        parts = np.split(by_device, self._slots_of(call), axis=1)
        return dict(zip(call.nodes, parts, strict=False))

    def _run(
        self,
        plan: Plan,
        call: Group,
        values: Mapping[int, NodeValue],
        kernels: Kernels,
        batch: ImageBatch,
    ) -> tuple[Array, ...]:
        nodes = [plan.nodes[number] for number in call.nodes]
        layer = self.programs.stages[call.stage].layer
        substitute = self._substitutes[layer] if layer is not None and self._spec.copies else None
        context = StageContext(
            self._parts[call.stage],
            batch.indices,
            np.uint32(layer or 0),
            self._seed,
            substitute,
            self._wiring[call.stage] if self._wiring and call.stage else None,
        )
        if call.stage == 0:
            return self.programs.first((), (batch.images, context))
        read = tuple(
            self._packing.gathered([values[node.parents[index]] for node in nodes], output)
            for index, (_, output) in enumerate(self._inputs[call.stage])
        )
        inputs = StageInputs(read)
        filled = Slots(self.programs.trials, nodes, self._slots_of(call), batch.indices)
        if layer is not None:
            kernel = kernel_of(self.programs.stages, nodes[0])
            inputs = inputs._replace(
                kernel=self._kernel_for(kernel, nodes, kernels, batch),
                thresholds=self._per_trial(
                    filled.sites(self._spec) if self._spec.sites else filled.thresholds(self._spec)
                ),
                trials=self._per_trial(filled.trials()),
            )
            if self._spec.copies:
                answering = filled.answering(self._network.layers[layer].neurons)
                inputs = inputs._replace(answering=self._per_trial(answering))
        if self._spec.link:
            inputs = inputs._replace(
                trials=self._per_trial(filled.trials()),
                links=self._per_trial(filled.links(len(read), self._spec.link_words)),
            )
        return self._program(call)(inputs, context)

    def _kernel_for(
        self, kernel: Kernel | None, nodes: Sequence[Node], kernels: Kernels, batch: ImageBatch
    ) -> Array:
        if kernel is None:
            return self._own[self.programs.stages[nodes[0].stage].layer]  # pyright: ignore
        if kernel.trials and self._spec.scope == "image":  # used once: by this very call
            return self.kernel(kernel._replace(image=int(batch.indices[0])))
        return kernels.take(kernel, len(nodes))

    def _codes(self, layer: int) -> Array:
        return self._network.parameters.layers[self._network.layers[layer].name].kernel

    def _own_kernel(self, layer: int) -> Array:
        """The network's own kernel; on several devices, one of them on each."""
        codes, mesh = self._codes(layer), self.programs.mesh
        if mesh is None:
            return codes
        on_each = np.broadcast_to(np.asarray(codes), (mesh.size, *codes.shape))
        return jax.device_put(on_each, NamedSharding(mesh, PartitionSpec("trials")))

    def _per_trial(self, stacked: Any) -> Any:
        """[D, …] as the programs take it: the axis over devices only where there are several."""
        alone = self.programs.mesh is None
        return jax.tree.map(lambda array: array[0], stacked) if alone else stacked

    def _slots_of(self, call: Group) -> int:
        return 1 if len(call.nodes) == 1 else self._packing.slots

    def _of(self, call: Group) -> Programs:
        return self.programs if len(call.nodes) == 1 else self._packed

    @cached_property
    def _packed(self) -> Programs:
        assert self._pack is not None, "calls of several nodes have programs of their own"
        return self._pack()

    def _program(self, call: Group) -> Compiled:
        return self._of(call).run[call.stage] or self.programs.first
