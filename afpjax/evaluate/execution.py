"""Runs a plan on one batch of images: call by call, values gone as soon as nobody needs them."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped, UInt32

from afpjax.evaluate.arguments import met, on_the_way, spots_of, trials_of
from afpjax.evaluate.given import Given, Images, Met, Spots
from afpjax.evaluate.metric import Judge, Judged
from afpjax.evaluate.plan import (
    CLEAN,
    Group,
    Hits,
    Kernel,
    Node,
    Plan,
    Row,
    groups,
    kernel_of,
    peak_bytes,
    released,
)
from afpjax.evaluate.programs import Programs, compile_judge, compile_places, part_of
from afpjax.evaluate.values import Kernels, Packing, Value
from afpjax.faults.link import wiring_by_stage
from afpjax.faults.model import keepers
from afpjax.faults.strike import Draws
from afpjax.network.compiler import Compiled
from afpjax.network.quantized import Quantized


class Execution:
    """A network on its device, ready to run plans with compiled programs under one kind of draws.

    `network` has its kernels encoded. Where a batch holds few images, calls have `slots` times as
    many, for as many nodes at once: `packed` compiles these programs. Where several devices run a
    trial each, what belongs to a trial has a leading axis over them. `substitutes`: what a layer's
    lost neurons give, [C] each.
    """

    def __init__(
        self,
        programs: Programs,
        draws: Draws,
        network: Quantized,
        seed: UInt32[Array, "2"],
        *,
        judge: Judge,
        substitutes: Sequence[Float[np.ndarray, "_"]] = (),
        slots: int = 1,
        packed: Callable[[], Programs] | None = None,
    ) -> None:
        if programs.mesh is not None:  # to every device once, not with every call
            network = jax.device_put(network, NamedSharding(programs.mesh, PartitionSpec()))
        self.programs, self._draws, self._network, self._seed = programs, draws, network, seed
        self._pack, self._judge = packed, judge
        self._substitutes = substitutes
        self._keepers = keepers(draws.shared, network.layers)
        self._parts = [part_of(network, stage) for stage in programs.stages]
        self._wiring = wiring_by_stage(network) if draws.link else None
        makers = {
            value: (number, place)
            for number, stage in enumerate(programs.stages)
            for place, value in enumerate(stage.outputs)
        }
        self._inputs = [[makers[value] for value in stage.inputs] for stage in programs.stages]
        self._logits = [*programs.stages[-1].outputs].index(network.program.output)  # pyright: ignore
        self._own = [self._own_kernel(layer) for layer in range(len(network.layers))]
        # The axis of the images: behind that of the devices, where there are several.
        self._packing = Packing(slots, 0 if programs.mesh is None else 1)

    @cached_property
    def row_bytes(self) -> int:
        """The most memory that one row takes on a device, with a kernel in the making."""
        row = Row((), (CLEAN,) * len(self._network.layers))
        plan = Plan.of(self.programs.stages, [row])
        return self.bytes_of(plan) + max(made.output_bytes for made in self.programs.strike)

    def bytes_of(self, plan: Plan) -> int:
        """The most memory that a plan takes at once on a device: values and struck kernels."""
        kernels = sum(self.programs.strike[kernel.layer].output_bytes for kernel in plan.kernels)
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
        if isinstance(kernel.strike, Hits):
            how, places, *_ = kernel.strike
            fmt, mesh = self._network.format, self.programs.mesh
            at = compile_places(how, places, fmt, codes.shape, mesh)
            spots = spots_of(kernel.strike, self.programs.trials)
            return at(self._per_trial(Spots(*(each[:, 0] for each in spots))), codes)[0]
        columns = self._draws.columns  # by trial, or by neuron and the same in every trial
        shape = (1, -1, columns) if self._draws.copies else (-1, columns)
        limits = np.frombuffer(kernel.strike, np.uint32).reshape(shape)
        limits = np.broadcast_to(limits, (self.programs.trials, *limits.shape[1:]))
        trials = np.array(kernel.trials, np.uint32)
        image = np.full(self.programs.trials, kernel.image, np.uint32)
        struck = self._per_trial((limits, trials, image))
        return self.programs.strike[kernel.layer](struck, (codes, number, self._seed))[0]

    def outcomes(
        self, plan: Plan, kernels: Kernels, images: Images
    ) -> Shaped[np.ndarray, "R D B ..."]:
        """The judge's answer for every row of the plan, trial and image, padding included."""
        left, values = list(plan.reads), dict[int, Value]()
        answers = dict[int, Shaped[np.ndarray, "D B ..."]]()
        for call in groups(plan, self.programs.stages, self._packing.slots):
            seen = images if len(call.nodes) == 1 else self._repeated(images)
            made = self._run(plan, call, values, kernels, seen)
            if call.stage == len(self.programs.stages) - 1:
                answers |= self._judged(call, made[self._logits], seen)
            for slot, number in enumerate(call.nodes):
                values[number] = Value(made, slot if len(call.nodes) > 1 else None)
            for number in (n for each in call.nodes for n in released(plan, each, left)):
                del values[number]
        return np.stack([answers[answer] for answer in plan.answers])

    def _repeated(self, images: Images) -> Images:
        """The batch once for every slot; only the first stage needs the images themselves."""
        times = {name: self._slots_over(getattr(images, name)) for name in Judged._fields}
        return Images(None, indices=np.tile(images.indices, self._packing.slots), **times)

    def _slots_over(self, each: Any) -> Any:
        return None if each is None else np.concatenate([each] * self._packing.slots)

    def _judged(
        self, call: Group, logits: Array, images: Images
    ) -> dict[int, Shaped[np.ndarray, "D B ..."]]:
        """The answers for each node. Waiting for them keeps the host from running ahead of the
        device, whose buffers are taken when a call is dispatched."""
        judge = compile_judge(self._judge, self._of(call).logits, self.programs.mesh)
        made = np.asarray(judge(logits, Judged(images.labels, images.reference))[0])
        answers = made[None] if self.programs.mesh is None else made
        parts = np.split(answers, self._slots_of(call), axis=1)
        return dict(zip(call.nodes, parts, strict=False))

    def _run(
        self,
        plan: Plan,
        call: Group,
        values: Mapping[int, Value],
        kernels: Kernels,
        images: Images,
    ) -> tuple[Array, ...]:
        nodes = [plan.nodes[number] for number in call.nodes]
        layer = self.programs.stages[call.stage].layer
        number, substitute = np.uint32(layer or 0), self._substitute_of(layer)
        wiring = self._wiring[call.stage] if self._wiring and call.stage else None
        part = self._parts[call.stage]
        given = Given(part, images.indices, number, self._seed, substitute, wiring)
        if call.stage == 0:
            return self.programs.first((), (images.images, given))
        read = tuple(
            self._packing.gathered([values[node.parents[place]] for node in nodes], output)
            for place, (_, output) in enumerate(self._inputs[call.stage])
        )
        slots = self._slots_of(call)
        crossing = self._crossing(nodes, images, slots, len(read))
        if layer is None:
            return self._program(call)(Met(read, **crossing), given)
        codes = self._kernel_for(kernel_of(self.programs.stages, nodes[0]), nodes, kernels, images)
        neurons = self._network.layers[layer].neurons
        faults = met(self._draws, self.programs.trials, nodes, images.indices, slots, neurons)
        limits, trials, by = self._per_trial(faults)
        here = {"limits": limits, "trials": trials, "by": by}
        return self._program(call)(Met(read, codes, **{**here, **crossing}), given)

    def _crossing(
        self, nodes: Sequence[Node], images: Images, slots: int, read: int
    ) -> dict[str, Any]:
        """What strikes the values that a call reads on their way, and in which trials."""
        if not self._draws.link:
            return {}
        devices, size = self.programs.trials, len(images.indices) // slots
        links = on_the_way(self._draws, devices, nodes, slots, size, read)
        trials = trials_of(devices, nodes, slots, size)
        return {"trials": self._per_trial(trials), "links": self._per_trial(links)}

    def _substitute_of(self, layer: int | None) -> Float[np.ndarray, "C"] | None:
        """What a layer's lost neurons give, where neurons can be lost."""
        if layer is None or not self._draws.copies:
            return None
        return self._substitutes[layer]

    def _kernel_for(
        self, kernel: Kernel | None, nodes: Sequence[Node], kernels: Kernels, images: Images
    ) -> Array:
        if kernel is None:
            return self._own[self.programs.stages[nodes[0].stage].layer]  # pyright: ignore
        if kernel.trials and self._draws.scope == "image":  # used once: by this very call
            return self.kernel(kernel._replace(image=int(images.indices[0])))
        return kernels.take(kernel, len(nodes))

    def _codes(self, layer: int) -> Array:
        return self._network.parameters.layers[self._network.layers[layer].name].kernel

    def _own_kernel(self, layer: int) -> Array:
        """The network's own kernel; on several devices, one of them on each."""
        codes, mesh = self._codes(layer), self.programs.mesh
        if mesh is None:
            return codes
        each = np.broadcast_to(np.asarray(codes), (mesh.size, *codes.shape))
        return jax.device_put(each, NamedSharding(mesh, PartitionSpec("trials")))

    def _per_trial(self, stacked: Any) -> Any:
        """[D, …] as the programs take it: the axis over devices only where there are several."""
        alone = self.programs.mesh is None
        return jax.tree.map(lambda each: each[0], stacked) if alone else stacked

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
