"""Runs rows: plans what they share, cuts the plan to fit in memory, and keeps every core busy.

A *chunk* is a plan for rows that run together; one chunk on one batch of images is the unit that
cores share out. Units are independent, but for the faulty kernels, made once for all batches.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from functools import cached_property
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num, Shaped

from afpjax.evaluate.execution import Execution, Kernels
from afpjax.evaluate.metric import LOGITS, RIGHT, Metric
from afpjax.evaluate.plan import CLEAN, Plan, PlanRow, in_order
from afpjax.evaluate.programs import ImageBatch, Prepare, Programs, Shapes, compile_programs
from afpjax.faults.spec import FaultSpec
from afpjax.inputs.errors import InputError
from afpjax.network import compiler, self_check
from afpjax.network.digest import digest
from afpjax.network.quantized import Quantized, encoded

BATCH = 64  # images per forward pass; a last batch is padded
ROWS = 64  # the most rows of a chunk: what an interrupt may cost
_FULL = "RESOURCE_EXHAUSTED"

Outcome = Shaped[np.ndarray, "D B ..."]  # by trial and image, as the metric gives it


class Chunk(NamedTuple):
    """Rows that run together."""

    numbers: list[int]  # of the rows, among those that were asked for
    plan: Plan
    kernels: Kernels


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
        self._mesh = compiler.mesh()
        self._call = BATCH  # images of a call, fewer where memory is short
        self._room = memory_bytes or compiler.memory_bytes()
        self._ready: tuple[FaultSpec, int, Execution] | None = None

    @property
    def trials(self) -> int:
        """How many trials run at once, one on each device."""
        return 1 if self._mesh is None else self._mesh.size

    def _size(self, spec: FaultSpec) -> int:
        """Images of a batch: one, where each has kernels of its own."""
        return 1 if spec.scope == "image" else min(self._call, len(self._images))

    def _slots(self, spec: FaultSpec) -> int:
        """How many nodes a call has room for: more than one where images are few.

        One in float formats: a product rounds otherwise in a larger call, and what an outcome
        is must not depend on what is asked, or remembered, beside it. One too where a metric
        compares bits: fixed point may round beyond 2^24.
        """
        floats = self._network.format.kind != "fixed"
        alone = spec.scope == "image" or floats or self._metric.exact
        return 1 if alone else self._call // self._size(spec)

    @cached_property
    def fingerprint(self) -> bytes:
        """A digest of what its outcomes follow from: network, images, labels, draws, arithmetic."""
        network = self._network
        how = f"{network.format} {network.units}"
        data = (self._substitutes, self._images, self._labels, self._seed)
        return digest(network.program, how, network, data)

    def with_metric(self, metric: Metric) -> "Engine":
        """The same engine with another metric, and fault-free logits where it needs them."""
        other = copy(self)
        other._metric, other._ready = metric, None
        other._reference = self.clean_logits() if metric.compares else None
        return other

    def clean_logits(self) -> Float[np.ndarray, "N classes"]:
        """Fault-free logits of every image."""
        if self._reference is None:
            ((_, logits),) = self.with_metric(LOGITS).run(FaultSpec(), [self._clean])
            return logits[0]
        return self._reference

    @property
    def _clean(self) -> PlanRow:
        return PlanRow((0,) * self.trials, (CLEAN,) * len(self._network.layers))

    def clean_rate(self, spec: FaultSpec, seconds: float = 0.5) -> float:
        """Fault-free images per second, with batches on every core at once."""
        execution = self._execution(spec)
        plan = Plan.of(execution.programs.stages, [self._clean])
        batches, workers = list(self._batches(spec)), compiler.workers()
        size = len(batches[0].indices) * self.trials

        def run(number: int) -> None:
            batch = batches[number % len(batches)]
            execution.outcomes(plan, Kernels(execution.kernel, {}), batch)

        def keep_on(first: int) -> int:
            done, start = 0, monotonic()
            while monotonic() - start < seconds or not done:
                run(first + done)
                done += 1
            return done

        run(0)  # what is not yet compiled is compiled now
        start = monotonic()
        with ThreadPoolExecutor(workers) as pool:
            done = sum(pool.map(keep_on, range(workers)))
        return done * size / (monotonic() - start)

    def run(
        self, spec: FaultSpec, rows: Sequence[PlanRow]
    ) -> Generator[tuple[int, Outcome], None, None]:
        """The outcome of every row, with its number among `rows`, chunk by chunk, in any order.

        A chunk for which memory does not reach after all runs again in halves, a single row with
        half the images at a time. Raises `InputError` where not even one image fits.
        """
        pending, most = in_order(rows), ROWS * self._slots(spec)
        while pending:
            failed: list[list[int]] = []
            for numbers, outcomes in self._attempt(spec, rows, pending, most):
                if outcomes is None:
                    failed.append(numbers)
                else:
                    yield from zip(numbers, outcomes, strict=True)
            if failed:
                most = max(map(len, failed)) // 2 or self._fewer_images()
            pending = [number for numbers in failed for number in numbers]

    def _fewer_images(self) -> int:
        """Halve the images of a call, now that single rows do not fit; rows to go on with."""
        if self._call == 1:
            raise InputError(
                "memory: the device has no room for a single image of this network; use a "
                "smaller network or image_size, or a device with more memory"
            )
        self._call //= 2
        return 1

    def _attempt(
        self, spec: FaultSpec, rows: Sequence[PlanRow], numbers: list[int], most: int
    ) -> Iterator[tuple[list[int], list[Outcome] | None]]:
        """Chunks' row numbers and outcomes; None for chunks that memory had no room for."""
        execution, workers = self._execution(spec), compiler.workers()
        batches = list(self._batches(spec))
        every = -(-len(numbers) * len(batches) // workers)  # something for every core
        cut = (min(most, every), len(batches), self._room // workers)
        chunks = list(self._chunks(execution, rows, numbers, *cut))
        with ThreadPoolExecutor(workers) as pool:
            units = [
                [pool.submit(execution.outcomes, chunk.plan, chunk.kernels, b) for b in batches]
                for chunk in chunks
            ]
            try:
                while chunks:  # what is done is let go, faulty kernels above all
                    yield chunks.pop(0).numbers, self._joined(units.pop(0))
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
        return list(np.concatenate(parts, axis=2)[:, :, : len(self._images)])

    def _chunks(
        self,
        execution: Execution,
        rows: Sequence[PlanRow],
        numbers: list[int],
        most: int,
        batches: int,
        room: int,
    ) -> Iterator[Chunk]:
        """Rows in order, halved until they are `most` and fit in `room` bytes at once."""
        if len(numbers) <= max(most, 1):
            plan = Plan.of(execution.programs.stages, [rows[number] for number in numbers])
            if len(numbers) == 1 or execution.bytes_of(plan) <= room:
                uses = {kernel: uses * batches for kernel, uses in plan.kernels.items()}
                yield Chunk(numbers, plan, Kernels(execution.kernel, uses))
                return
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            yield from self._chunks(execution, rows, half, most, batches, room)

    def _execution(self, spec: FaultSpec) -> Execution:
        """Programs for batches as large as leave room for a row on every core, kept for reuse."""
        while self._ready is None or self._ready[:2] != (spec, self._call):
            self._ready = spec, self._call, self._compiled(spec)
            if self._ready[2].row_bytes * compiler.workers() > self._room and self._call > 1:
                self._call //= 2
        return self._ready[2]

    def _compiled(self, spec: FaultSpec) -> Execution:
        batch, slots = next(self._batches(spec)), self._slots(spec)

        def programs(times: int) -> Programs:
            many = ImageBatch(*(np.repeat(array, times, axis=0) for array in batch[:3]))
            return compile_programs(spec, self._prepare, Shapes.of(self._network, many), self._mesh)

        return Execution(
            programs(1),
            spec,
            self._network,
            self._seed,
            metric=self._metric,
            substitutes=self._substitutes,
            slots=slots,
            packed=lambda: programs(slots),
        )

    def _batches(self, spec: FaultSpec) -> Iterator[ImageBatch]:
        """Batches of one fixed size; padding has the label -1, and its outcomes are cut off."""
        count, size = len(self._images), self._size(spec)
        for start in range(0, count, size):
            part, missing = slice(start, start + size), max(0, start + size - count)
            reference = self._reference
            yield ImageBatch(
                _padded(self._images[part], missing),
                np.pad(self._labels[part], (0, missing), constant_values=-1),
                np.arange(start, start + size, dtype=np.uint32),
                None if reference is None else _padded(reference[part], missing),
            )


def _padded(part: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) if missing else part
