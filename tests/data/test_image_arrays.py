"""Digits, `.npz` files and CIFAR-10: whole, checked and refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from afpjax.config.sections import Data
from afpjax.data.dataset import load
from tests.data.helpers import pixels, read, refused, saved


def test_digits_are_all_there_split_evenly_and_for_good():
    found, again = (load(Data(), image_size=32, classes=10) for _ in range(2))
    assert found.train is not None
    train = read(found.train)
    assert train.images.shape == (1000, 32, 32, 3) and len(found.test) == 797
    assert found.train.shape == found.test.shape == (32, 32, 3)
    np.testing.assert_array_equal(read(found.test).images, read(again.test).images)
    together = np.bincount(load_digits(return_X_y=True)[1])
    share = np.bincount(found.train.labels) / together
    assert np.abs(share - 1000 / 1797).max() < 0.01, "the split is not stratified"
    assert (train.images[..., 0] == train.images[..., 2]).all()


def test_digits_at_their_own_size_are_scikit_learns_and_no_image_is_in_both_splits():
    found = load(Data(), image_size=8, classes=10, channels=1)
    assert found.train is not None
    both = np.concatenate([read(found.train).images, read(found.test).images])[..., 0]
    expected = np.rint(load_digits(return_X_y=True)[0] * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, expected))
    train = read(found.train).images / 255
    assert found.mean == pytest.approx((train.mean(),))
    assert found.std == pytest.approx((train.std(),))


def test_an_npz_comes_back_as_it_was_and_is_measured_whole(tmp_path):
    images, labels = pixels(20, 8, 8, 3), np.arange(20) % 5
    data = saved(tmp_path / "set.npz", images=images, labels=labels)
    found = load(Data(name="npz", path=data.path, images=7), image_size=8, classes=5)
    assert found.train is None and len(found.test) == 7
    np.testing.assert_array_equal(read(found.test).images, images[:7])
    np.testing.assert_array_equal(read(found.test).labels, labels[:7])
    assert found.test.labels.dtype == np.int32
    assert found.mean == pytest.approx((images / 255).mean((0, 1, 2)))
    assert found.std == pytest.approx((images / 255).std((0, 1, 2)))


def cifar_file(path, images, labels):
    records = [
        bytes([n]) + i.transpose(2, 0, 1).tobytes() for i, n in zip(images, labels, strict=True)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(records))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar_is_read_colour_plane_by_colour_plane(tmp_path, inner):
    images, labels = pixels(7, 32, 32, 3), [3, 1, 4, 1, 5, 9, 2]
    cifar_file(tmp_path / inner / "data_batch_1.bin", images[:2], labels[:2])
    cifar_file(tmp_path / inner / "data_batch_2.bin", images[2:5], labels[2:5])
    cifar_file(tmp_path / inner / "test_batch.bin", images[5:], labels[5:])
    found = load(Data(name="cifar10", path=str(tmp_path)), image_size=32, classes=10)
    assert found.train is not None
    both = np.concatenate([read(found.train).images, read(found.test).images])
    np.testing.assert_array_equal(both, images)
    assert [*found.train.labels, *found.test.labels] == labels
    assert found.mean == (0.4914, 0.4822, 0.4465)


def test_labels_beyond_the_classes_and_cut_or_missing_cifar_files_are_refused(tmp_path):
    refused(Data(), r"digits: labels: label 9 is not in 0\.\.7; .*set model.classes", classes=8)
    data = Data(name="cifar10", path=str(tmp_path))
    refused(data, "test_batch.bin does not exist")
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 + 5))
    refused(data, "has 3078 bytes, no multiple of 3073")
    cifar_file(tmp_path / "test_batch.bin", pixels(2, 32, 32, 3), [3, 10])
    refused(data, r"test_batch.bin: labels: label 10 is not in 0\.\.9; .*set model.classes")


GOOD = dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(labels=np.arange(5)), "4 images but 5 labels"),
        (dict(images=np.zeros((4, 8, 8, 3), np.float32)), "images are float32; save them as uint8"),
        (dict(images=np.zeros((4, 8, 8), np.uint8)), r"images have shape \(4, 8, 8\)"),
        (dict(images=np.zeros((4, 8, 8, 2), np.uint8)), "2 channels, the network reads 3"),
        (dict(images=np.zeros((4, 0, 8, 3), np.uint8)), "none may be empty"),
        (dict(images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.arange(0)), "there are no images"),
        (dict(labels=np.array([{}] * 4)), "no readable .npz file of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, match):
    refused(saved(tmp_path / "set.npz", **{**GOOD, **change}), match)


def test_a_second_npz_holds_the_training_images(tmp_path):
    data = saved(tmp_path / "test.npz", **GOOD)
    images, labels = pixels(6, 8, 8, 3), np.arange(6)
    train = saved(tmp_path / "train.npz", images=images, labels=labels).path
    both = Data(name="npz", path=data.path, train_path=train, images=2)
    found = load(both, image_size=8, classes=10)
    assert found.train is not None and len(found.test) == 2
    assert found.train.shape == (8, 8, 3) and found.train.labels.tolist() == labels.tolist()
    np.testing.assert_array_equal(read(found.train).images, images)
    assert found.mean == pytest.approx((images / 255).mean((0, 1, 2))), "not of training images"


def test_training_images_that_do_not_fit_are_refused(tmp_path):
    path = saved(tmp_path / "test.npz", **GOOD).path
    train = str(tmp_path / "train.npz")
    data = Data(name="npz", path=path, train_path=train)
    refused(data, r"data.train_path: .*train.npz does not exist")
    saved(Path(train), images=GOOD["images"], labels=np.full(4, 11))
    refused(data, r"data.train_path: .*train.npz: labels: label 11 is not in 0\.\.9")
    saved(Path(train), images=np.zeros((4, 8, 8, 2), np.uint8), labels=np.arange(4))
    refused(data, r"data.train_path: .*: images have 2 channels, the network reads 3")
    refused(Data(train_path=train), "data.train_path: only for data.name = npz, not for `digits`")
