"""Batches of training images: from memory, or read while the network learns from the last ones."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from afpjax.data.images import Images, Split

#: Told how many images are read, and of how many.
Reading = Callable[[int, int], Any]

IN_MEMORY = 2**32  # bytes of a training set that is read once and kept; a larger one is streamed
_AHEAD = 2  # batches that are read in advance


def _unheard(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Batches:
    """A training set, cut into batches of at most `wanted` images.

    A set of up to `IN_MEMORY` bytes is read at the first use and kept; of a larger one, each batch
    is read in the background while the one before it is used. Images that cannot be read and are
    skipped (`data.corrupt`) leave a set in memory smaller; in a streamed batch, others of the same
    batch stand in for them, so that every batch has one shape.
    """

    split: Split
    wanted: int
    reading: Reading = _unheard

    @cached_property
    def kept(self) -> Images | None:
        """The whole set, or None where it is streamed."""
        if len(self.split) * int(np.prod(self.split.shape)) > IN_MEMORY:
            return None
        return self.split.take(np.arange(len(self.split)), self.reading)

    @property
    def count(self) -> int:
        return len(self.split) if self.kept is None else len(self.kept.labels)

    @property
    def size(self) -> int:
        """Images in a batch."""
        return min(self.wanted, self.count)

    @property
    def steps(self) -> int:
        """Whole batches in an epoch; what is left over is left out."""
        return self.count // self.size

    def first(self, count: int) -> UInt8[np.ndarray, "N H W C"]:
        """The first images, for calibration."""
        if self.kept is not None:
            return self.kept.images[:count]
        return self.split.take(np.arange(min(count, self.count))).images

    def epoch(self, seeds: tuple[int, ...], epoch: int, first: int = 0) -> Iterator[Images]:
        """The batches of one epoch from number `first` on, in the epoch's own order."""
        order = np.random.default_rng((*seeds, epoch)).permutation(self.count)
        chosen = order[: self.steps * self.size].reshape(self.steps, self.size)[first:]
        if self.kept is None:
            yield from self._streamed(chosen)
        else:
            for places in chosen:
                yield Images(self.kept.images[places], self.kept.labels[places])

    def _streamed(self, chosen: Int[np.ndarray, "steps B"]) -> Iterator[Images]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            waiting: list[Future[Images]] = []
            for places in chosen:
                waiting.append(reader.submit(self._read, places))
                if len(waiting) > _AHEAD:
                    yield waiting.pop(0).result()
            for batch in waiting:
                yield batch.result()

    def _read(self, places: Int[np.ndarray, " B"]) -> Images:
        images = self.split.take(places)
        again = np.arange(len(places)) % len(images.labels)
        return Images(images.images[again], images.labels[again])
