"""Runs rows: plans what they share, cuts the plan to fit in memory, and keeps every core busy.

A *chunk* is a plan for rows that run together; one chunk on one block of images is the unit that
cores and devices share out. Units are independent, but for the faulty kernels, made once for all
blocks that run on a device.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from functools import cached_property, partial
from time import monotonic
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from afpjax.evaluate import sizes
from afpjax.evaluate.calls import Prepare
from afpjax.evaluate.execution import Block, Execution, Kernels, Prepared
from afpjax.evaluate.metric import LOGITS, RIGHT, Metric, Targets
from afpjax.evaluate.plan import Plan
from afpjax.evaluate.programs import Shapes, compile_programs
from afpjax.evaluate.rows import FaultRows, clean_rows
from afpjax.evaluate.words import CallSizes
from afpjax.faults.spec import FaultSpec
from afpjax.inputs.errors import InputError
from afpjax.network import compiler, self_check
from afpjax.network.digest import digest
from afpjax.network.quantized import Quantized, encoded
from afpjax.network.taps import has_taps

ROWS = 64  # the most rows of a chunk where nodes run one by one: what an interrupt may cost
_FULL = "RESOURCE_EXHAUSTED"
_AHEAD = 2  # chunks for each thread that are planned and wait, before what is done is handed on

Outcome = Shaped[np.ndarray, "B ..."]  # by image, as the metric gives it


class Chunk(NamedTuple):
    """Rows that run together."""

    numbers: np.ndarray  # of the rows, among those that were asked for
    prepared: Prepared
    kernels: list[Kernels]  # by device


class Engine:
    """Runs rows of one quantised network on one set of images; see `Evaluator` for arguments."""

    def __init__(
        self,
        quantized: Quantized,
        images: Num[Any, "B ..."],
        labels: Int[Any, " N"],
        seed: Array,
        *,
        prepare: Prepare,
        memory_bytes: int = 0,
        substitutes: Sequence[Float[Any, "_"]] | None = None,
    ) -> None:
        self_check.check()
        zeros = [np.zeros(layer.neurons) for layer in quantized.layers]
        self._substitutes = [np.asarray(of, np.float32) for of in substitutes or zeros]
        self._images, self._labels = np.asarray(images), np.asarray(labels, np.int32)
        self._metric, self._reference = RIGHT, None
        self._network, self._seed, self._prepare = encoded(quantized), seed, prepare
        self._devices = jax.local_devices()
        self._most_images, self._most_rows = len(self._images), sizes.backend().rows
        self._room = memory_bytes or compiler.memory_bytes()
        self._ready: tuple[Any, list[Execution]] | None = None
        self._blocks: tuple[Any, list[list[Block]]] | None = None

    def _sizes(self, spec: FaultSpec) -> CallSizes:
        """What calls have room for.

        In float formats tiles have one node: a product rounds otherwise in a larger one, and what
        an outcome is must not depend on what is asked, or remembered, beside it. One too where a
        metric compares bits: fixed point may round beyond 2^24.
        """
        floats = self._network.format.kind != "fixed"
        graph = self._network.graph
        return sizes.choose(
            graph,
            self._most_images,
            rows=self._most_rows,
            room=self._share,
            alone=floats or self._metric.exact or spec.scope == "image",
            kernels=0 if spec.one_kernel else sizes.kernel_bytes(graph),
        )

    @property
    def _share(self) -> int:
        """Memory of one unit, bytes."""
        devices = len(self._devices)
        return self._room // -(-sizes.threads(devices) // devices)

    @cached_property
    def fingerprint(self) -> bytes:
        """A digest of what its outcomes follow from: network, images, labels, draws, arithmetic."""
        network = self._network
        how = f"{network.format} {network.units}"
        data = (self._substitutes, self._images, self._labels, self._seed)
        return digest(network.program, how, network, data)

    @property
    def plain(self) -> FaultSpec:
        """The programs of fault-free passes, and of faults in single weights.

        In fixed point these are exchanged in the sums, exactly as far as sums are exact.
        """
        fixed = self._network.format.kind == "fixed" and not self._metric.exact
        return FaultSpec(exchanged=int(fixed and all(map(has_taps, self._network.program.calls))))

    def with_metric(self, metric: Metric) -> "Engine":
        """The same engine with another metric, and fault-free logits where it needs them."""
        other = copy(self)
        other._metric, other._ready, other._blocks = metric, None, None
        other._reference = None  # in the programs that it is held against
        other._reference = other.clean_logits() if metric.compares else None
        return other

    def clean_logits(self) -> Float[np.ndarray, "N classes"]:
        """Fault-free logits of every image."""
        if self._reference is None:
            clean = clean_rows(len(self._network.layers))
            ((_, logits),) = self.with_metric(LOGITS).run(self.plain, clean)
            return logits
        return self._reference

    def clean_rate(self, spec: FaultSpec, seconds: float = 0.5) -> float:
        """Fault-free images per second, with blocks on every core and device at once."""
        executions = self._executions(spec)
        blocks = self._on_devices(self._sizes(spec))
        clean = clean_rows(len(self._network.layers))
        prepared = executions[0].prepared(Plan.of(executions[0].programs.stages, clean))
        workers = sizes.threads(len(self._devices))

        def run(number: int) -> int:
            device = number % len(executions)
            block = blocks[device][number % len(blocks[device])]
            executions[device].outcomes(prepared, Kernels({}), block)
            return len(block.indices)

        def keep_on(first: int) -> int:
            done, images, start = 0, 0, monotonic()
            while monotonic() - start < seconds or not done:
                images += run(first + done * workers)
                done += 1
            return images

        for device in range(len(executions)):
            run(device)  # what is not yet compiled is compiled now
        start = monotonic()
        with ThreadPoolExecutor(workers) as pool:
            images = sum(pool.map(keep_on, range(workers)))
        return images / (monotonic() - start)

    def run(self, spec: FaultSpec, rows: FaultRows) -> Generator[tuple[int, Outcome], None, None]:
        """The outcome of every row, with its number among `rows`, chunk by chunk, in any order.

        A chunk for which memory does not reach after all runs again in halves, a single row with
        half the images at a time. Raises `InputError` where not even one image fits.
        """
        pending, most = rows.in_order(), ROWS
        while len(pending):
            failed: list[np.ndarray] = []
            for numbers, outcomes in self._attempt(spec, rows, pending, most):
                if outcomes is None:
                    failed.append(numbers)
                else:
                    yield from zip(numbers.tolist(), outcomes, strict=True)
            pending = np.concatenate(failed) if failed else pending[:0]
            if failed:
                most = max(map(len, failed)) // 2 or self._fewer_images()
                self._most_rows = min(self._most_rows, most)

    def _fewer_images(self) -> int:
        """Halve the images of a call, now that single rows do not fit; rows to go on with."""
        if self._most_images == 1:
            raise InputError(
                "memory: the device has no room for a single image of this network; use a "
                "smaller network or image_size, or a device with more memory"
            )
        self._most_images = self._sizes(FaultSpec()).images // 2
        return 1

    def _attempt(
        self, spec: FaultSpec, rows: FaultRows, numbers: np.ndarray, most: int
    ) -> Iterator[tuple[np.ndarray, list[Outcome] | None]]:
        """Chunks' row numbers and outcomes; None for chunks that memory had no room for."""
        executions, own = self._executions(spec), self._sizes(spec)
        blocks = self._on_devices(own)
        count, devices = len(blocks[0]), len(executions)
        workers = sizes.threads(devices)
        every = -(-len(numbers) * count // workers)  # something for every core
        most = min(most if own.slots == 1 else own.rows, every)
        parts = self._chunks(executions[0], rows, numbers, max(1, most))
        unit, submitted = 0, list[tuple[np.ndarray, list[Future]]]()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for part, prepared in parts:
                    where = [(unit + block) % devices for block in range(count)]
                    unit += count
                    kernels = [prepared.kernels_on(where.count(d)) for d in range(devices)]
                    units = [
                        pool.submit(executions[d].outcomes, prepared, kernels[d], blocks[d][block])
                        for block, d in enumerate(where)
                    ]
                    submitted.append((part, units))
                    if len(submitted) > _AHEAD * workers:
                        part, units = submitted.pop(0)
                        yield part, self._joined(units)
                while submitted:  # what is done is let go, faulty kernels above all
                    part, units = submitted.pop(0)
                    yield part, self._joined(units)
            finally:
                pool.shutdown(cancel_futures=True)

    def _joined(self, units: Sequence[Future]) -> list[Outcome] | None:
        """Outcomes of one chunk on all images, by row; None where memory did not reach."""
        try:
            parts = [unit.result() for unit in units]
        except Exception as error:
            if _FULL not in str(error) and not isinstance(error, MemoryError):
                raise
            return None
        return list(np.concatenate(parts, axis=1)[:, : len(self._images)])

    def _chunks(
        self, execution: Execution, rows: FaultRows, numbers: np.ndarray, most: int
    ) -> Iterator[tuple[np.ndarray, Prepared]]:
        """Rows in order, halved until they are `most` and fit in memory at once."""
        if len(numbers) <= most:
            plan = Plan.of(execution.programs.stages, rows.take(numbers))
            prepared = execution.prepared(plan)
            if len(numbers) == 1 or execution.bytes_of(prepared) <= self._share:
                yield numbers, prepared
                return
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            yield from self._chunks(execution, rows, half, most)

    def _executions(self, spec: FaultSpec) -> list[Execution]:
        """On every device, programs for calls that leave room for a row on every core; kept."""
        while self._ready is None or self._ready[0] != (spec, self._sizes(spec)):
            own = self._sizes(spec)
            self._ready = (spec, own), self._compiled(spec, own)
            if self._ready[1][0].row_bytes > self._share:
                if own.slots > 1:
                    self._most_rows = own.rows // 2
                elif own.images > 1:
                    self._most_images = own.images // 2
        return self._ready[1]

    def _compiled(self, spec: FaultSpec, own: CallSizes) -> list[Execution]:
        shapes = Shapes.of(self._network, self._images[:1])
        devices = self._devices if len(self._devices) > 1 else [None]

        def programs(device: Any, nodes: int) -> Any:
            some = own._replace(nodes=nodes)
            return compile_programs(spec, self._prepare, shapes, some, device)

        return [
            Execution(
                partial(programs, device),
                spec,
                self._network,
                self._seed,
                own,
                metric=self._metric,
                substitutes=self._substitutes,
                device=device,
            )
            for device in devices
        ]

    def _on_devices(self, own: CallSizes) -> list[list[Block]]:
        """All images in blocks of one size, on every device, kept as long as the size is."""
        if self._blocks is None or self._blocks[0] != own.images:
            devices = self._devices if len(self._devices) > 1 else [None]
            on_all = [list(self._cut(own.images, device)) for device in devices]
            self._blocks = own.images, on_all
        return self._blocks[1]

    def _cut(self, size: int, device: Any) -> Iterator[Block]:
        """Blocks of images; padding has the label -1, and its outcomes are cut off."""
        count = len(self._images)
        for start in range(0, count, size):
            part, missing = slice(start, start + size), max(0, start + size - count)
            reference = self._reference
            images = _padded(self._images[part], missing)
            if self._images.nbytes <= self._room // 8:  # or they are sent with every pass
                images = jax.device_put(images, device)
            indices = np.arange(start, start + size, dtype=np.uint32)
            labels = np.pad(self._labels[part], (0, missing), constant_values=-1)
            targets = Targets(
                labels, None if reference is None else _padded(reference[part], missing)
            )
            yield Block(images, *jax.device_put((indices, targets), device))


def _padded(part: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
