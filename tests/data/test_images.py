"""Splits: what is taken is read, in order, by threads; unreadable images stop or are skipped."""

import os
import shutil
import signal
import threading
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from afpjax.config.sections import Data
from afpjax.data import image_files
from afpjax.data.dataset import load
from afpjax.data.image_arrays import in_memory
from afpjax.data.images import Images, Split, Unreadable, UnreadableWarning
from afpjax.inputs.errors import InputError
from tests.data.helpers import pixels

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs of one class, each of its own grey level."""
    (tmp_path / "cat").mkdir()
    for number in range(12):
        Image.new("RGB", (20, 10), (20 * number,) * 3).save(tmp_path / "cat" / f"{number:02}.png")
    return tmp_path


def split_of(folder, corrupt="stop", **settings) -> Split:
    data = Data(name="folder", path=str(folder), corrupt=corrupt, **settings)
    return load(data, image_size=8, classes=1).test


def levels(images):
    return (images.images[:, 4, 4, 0] // 20).tolist()


def test_only_the_images_that_are_taken_are_opened(folder, monkeypatch):
    opened = []
    real = image_files.decoded

    def decoded(path, *rest):
        opened.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(image_files, "decoded", decoded)
    split = split_of(folder)
    assert len(split) == 12 and split.shape == (8, 8, 3) and opened == []
    split.fingerprint()
    assert opened == []
    taken = split.take([7, 2, 7])
    assert levels(taken) == [7, 2, 7] and sorted(opened) == ["02.png", "07.png", "07.png"]
    assert taken.images.dtype == np.uint8 and taken.labels.dtype == np.int32


def test_more_images_than_the_queue_holds_keep_their_order():
    labels = np.arange(3000, dtype=np.int32)
    images = np.zeros((3000, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = labels // 256, labels % 256
    split = replace(in_memory(Images(images, labels)), parallel=True)
    told = []
    taken = split.take(np.arange(3000)[::-1], lambda done, _: told.append(done))
    np.testing.assert_array_equal(taken.images, images[::-1])
    np.testing.assert_array_equal(taken.labels, labels[::-1])
    assert told == list(range(1, 3001))


def test_images_in_memory_come_as_they_are_and_labels_with_them():
    held = Images(pixels(9, 6, 6, 2), np.arange(9, dtype=np.int32))
    split, told = in_memory(held), []
    taken = split.take(range(8, 0, -2), lambda *args: told.append(args))
    np.testing.assert_array_equal(taken.images, held.images[8:0:-2])
    assert taken.labels.tolist() == [8, 6, 4, 2] and len(told) == 4
    assert split.take([]).images.shape == (0, 6, 6, 2)
    with pytest.raises(IndexError):
        split.take([9])


def test_reading_stops_at_the_first_failure():
    """Not: fifty thousand queued reads go on, and the error is told at their end."""
    begun = []

    def image(place):
        begun.append(place)
        if place == 3:
            raise Unreadable("data.path: 3 is no readable image", "3")
        return np.zeros((2, 2, 1), np.uint8)

    labels = np.zeros(50_000, np.int32)
    split = Split(labels, (2, 2, 1), image, lambda: ())
    threads = threading.active_count()
    with pytest.raises(Unreadable, match="3 is no readable image"):
        split.take(range(50_000))
    assert len(begun) <= 1024 and threads_fall_to(threads)


def threads_fall_to(count):
    """An interrupt may come while a thread starts; that one ends by itself, a moment later."""
    deadline = time.monotonic() + 5
    while threading.active_count() > count and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() == count


@pytest.mark.parametrize("moment", [5, 100])  # while reads are queued; while they are waited for
def test_an_interrupt_stops_the_threads(moment):
    # A shell's background jobs inherit that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, main = [], threading.main_thread().ident
    assert main is not None

    def image(place):
        begun.append(place)
        if place == moment:
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.002)
        return np.zeros((2, 2, 1), np.uint8)

    split = Split(np.zeros(5000, np.int32), (2, 2, 1), image, lambda: ())
    threads = threading.active_count()
    try:
        with pytest.raises(KeyboardInterrupt):
            split.take(range(5000))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) < 1000 and threads_fall_to(threads)


def damage(folder, *numbers, content: bytes | str = b"no image"):
    content = content.encode() if isinstance(content, str) else content
    for number in numbers:
        (folder / "cat" / f"{number:02}.png").write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda path: path.write_bytes(b""), "is no readable image .*; repair or remove it"),
        (cut, "is no readable image .*; repair or remove it"),
        (lambda path: path.write_text(POINTER), "is a git-LFS pointer; fetch it with `git lfs"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_an_unreadable_image_stops_the_run_and_is_named(folder, harm, expected):
    damage(folder, 9)
    split = split_of(folder)
    harm(folder / "cat" / "03.png")
    said = f"03.png {expected}.*; data.corrupt = skip leaves"
    with pytest.raises(InputError, match=said) as caught:
        split.take(range(12))
    assert "\n" not in str(caught.value)
    assert levels(split.take([2, 4])) == [2, 4]


def test_skipped_images_are_counted_and_the_first_are_named(folder):
    damage(folder, 9, 1, 4)
    with pytest.warns(UnreadableWarning) as caught:
        taken = split_of(folder, "skip").take([11, 9, 1, 4, 0])
    message = "3 of 5 images are unreadable and left out: cat/09.png, cat/01.png and 1 more"
    assert [str(each.message) for each in caught] == [message]
    assert levels(taken) == [11, 0] and taken.labels.tolist() == [0, 0]
    damage(folder, 1, content=POINTER)
    pointer = r"^1 of 2 images is unreadable and left out: cat/01.png \(git-LFS pointer\)$"
    with pytest.warns(UnreadableWarning, match=pointer):
        split_of(folder, "skip").take([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert levels(split_of(folder, "skip").take([0, 2])) == [0, 2]


def test_labels_are_left_out_with_their_images(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "1.png")
    (tmp_path / "b" / "1.png").write_bytes(b"")
    data = Data(name="folder", path=str(tmp_path), corrupt="skip")
    with pytest.warns(UnreadableWarning, match="1 of 3 images is unreadable"):
        taken = load(data, image_size=8, classes=3).test.take(range(3))
    assert taken.labels.tolist() == [0, 2] and len(taken.images) == 2


def test_where_no_image_can_be_read_nothing_is_skipped(folder):
    damage(folder, 1, 2, content=POINTER)
    with pytest.raises(InputError, match=r"none of 2 images can be read; .*02.png is a git-LFS"):
        split_of(folder, "skip").take([2, 1])


def test_a_files_fingerprint_is_its_name_size_and_time(folder, tmp_path_factory):
    first = split_of(folder).fingerprint()
    assert isinstance(first, bytes) and split_of(folder).fingerprint() == first
    elsewhere = tmp_path_factory.mktemp("other") / "moved"
    shutil.copytree(folder, elsewhere)  # keeps times
    assert split_of(elsewhere).fingerprint() == first
    file = folder / "cat" / "05.png"
    found = file.stat()
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))
    later = split_of(folder).fingerprint()
    file.write_bytes(file.read_bytes() + b"0")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))
    longer = split_of(folder).fingerprint()
    file.rename(file.with_name("13.png"))
    renamed = split_of(folder).fingerprint()
    fewer = split_of(folder, images=11).fingerprint()
    framed = split_of(folder, resize=9).fingerprint()
    assert len({first, later, longer, renamed, fewer, framed}) == 6


def test_an_arrays_fingerprint_is_its_contents():
    images, labels = pixels(4, 6, 6, 3), np.arange(4, dtype=np.int32)

    def fingerprint(images, labels):
        return in_memory(Images(images, labels)).fingerprint()

    first = fingerprint(images, labels)
    assert fingerprint(images.copy(), labels.copy()) == first
    changed = images.copy()
    changed[2, 3, 4, 1] ^= 1
    others = [
        fingerprint(changed, labels),
        fingerprint(images, labels[::-1].copy()),
        fingerprint(images[::-1], labels),
        fingerprint(images[:3], labels[:3]),
    ]
    assert len({first, *others}) == 5
