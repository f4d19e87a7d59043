"""Batches: every image once, the same from memory and from a stream, read in the background."""

# pyright: reportMissingImports=false
import threading
import time
import warnings

import numpy as np
import pytest

from afpjax.data.images import Unreadable, UnreadableWarning
from afpjax.models.training import batches
from afpjax.models.training.batches import Batches

from .. import tiny


def numbered(count, broken=()):
    """Images that say which they are."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(3, np.uint8)
    return tiny.split_of(images, np.arange(count, dtype=np.int32), broken)


@pytest.fixture
def streaming(monkeypatch):
    monkeypatch.setattr(batches, "IN_MEMORY", 0)


def epoch(given, *args):
    return [(images[:, 0, 0, 0].tolist(), labels.tolist()) for images, labels in given.epoch(*args)]


@pytest.mark.parametrize("limit", [0, 2**32])
def test_an_epoch_holds_each_image_once_and_leaves_out_the_incomplete_batch(monkeypatch, limit):
    monkeypatch.setattr(batches, "IN_MEMORY", limit)
    given = Batches(numbered(23), 4)
    assert (given.count, given.size, given.steps) == (23, 4, 5)
    first = epoch(given, (7,), 0)
    seen = [place for images, _ in first for place in images]
    assert len(first) == 5 and len(set(seen)) == 20
    assert all(images == labels for images, labels in first)
    assert epoch(given, (7,), 0) == first, "a seed and an epoch decide the order"
    assert epoch(given, (7,), 1) != first and epoch(given, (8,), 0) != first
    assert epoch(given, (7,), 0, 3) == first[3:]
    assert given.first(6)[:, 0, 0, 0].tolist() == list(range(6))
    assert len(given.first(100)) == 23


def test_a_set_in_memory_is_read_once_and_told_and_smaller_by_unreadable_images():
    told = []
    with pytest.warns(UnreadableWarning):
        given = Batches(numbered(10, broken=(3, 4)), 4, lambda *args: told.append(args))
        assert (given.count, given.steps) == (8, 2)
    for number in range(2):
        seen = {place for images, _ in epoch(given, (0,), number) for place in images}
        assert seen == set(range(10)) - {3, 4}
    assert told == [(n, 10) for n in range(1, 11)]
    few = Batches(numbered(3), 64)
    assert (few.size, few.steps) == (3, 1), "fewer images than a batch are one batch"


def test_in_a_stream_others_of_the_batch_stand_in_for_unreadable_images(streaming):
    given = Batches(numbered(8, broken=(1,)), 8)
    with pytest.warns(UnreadableWarning):
        ((images, labels),) = epoch(given, (0,), 0)
    assert images == labels and len(images) == 8
    assert set(images) == set(range(8)) - {1}


def test_an_image_that_stops_the_run_stops_it_from_the_background_too(streaming):
    split = numbered(8)

    def image(place):
        raise Unreadable("image 5 is broken", "5")

    broken = tiny.Split(split.labels, split.shape, image, split.stamp, parallel=False)
    with pytest.raises(Unreadable, match="image 5 is broken"):
        epoch(Batches(broken, 4), (0,), 0)


def test_a_stream_is_read_at_most_two_batches_ahead_while_one_is_used(streaming):
    taken, lock = [], threading.Lock()
    split = numbered(40)

    def image(place):
        with lock:
            taken.append(place)
        return split.image(place)

    given = Batches(tiny.Split(split.labels, split.shape, image, split.stamp, parallel=False), 4)
    for used, _ in enumerate(given.epoch((0,), 0), start=1):
        wanted = min(4 * (used + 2), 40)
        deadline = time.monotonic() + 10
        while len(taken) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(taken) == wanted, "nothing was read while this batch was used"
        time.sleep(0.005)
        assert len(taken) == wanted, "more was read than needed"


def test_leaving_an_epoch_half_way_leaves_no_reader_behind(streaming):
    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream = Batches(numbered(40), 4).epoch((0,), 0)
        next(stream)
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before
