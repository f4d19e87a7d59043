"""Data sets: read as they are, framed as configured, and refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from afpjax.data import load, normalise
from afpjax.errors import InputError
from afpjax.sections import Data

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return Data(name="npz", path=str(path))


def paint(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def refused(data, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        load(data, **{"image_size": 8, "classes": 10, **options})
    assert "\n" not in str(caught.value)


def test_digits_are_all_there_split_evenly_and_for_good():
    found = load(Data(), image_size=32, classes=10)
    again = load(Data(), image_size=32, classes=10)
    assert found.train is not None and again.train is not None
    assert found.train.images.shape == (1000, 32, 32, 3) and len(found.test.images) == 797
    np.testing.assert_array_equal(found.test.images, again.test.images)
    together = np.bincount(load_digits(return_X_y=True)[1])
    share = np.bincount(found.train.labels) / together
    assert np.abs(share - 1000 / 1797).max() < 0.01, "the split is not stratified"
    assert (found.train.images[..., 0] == found.train.images[..., 2]).all()


def test_digits_at_their_own_size_are_scikit_learns_and_no_image_is_in_both_splits():
    found = load(Data(), image_size=8, classes=10, channels=1)
    assert found.train is not None
    both = np.concatenate([found.train.images, found.test.images])[..., 0]
    expected = np.rint(load_digits(return_X_y=True)[0] * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, expected))
    train = found.train.images / 255
    assert found.mean == pytest.approx((train.mean(),)) and found.std == pytest.approx(
        (train.std(),)
    )


def test_normalise_is_the_plain_formula():
    images, mean, std = pixels(2, 3, 4, 3), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    got = normalise(images, mean, std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_an_npz_comes_back_as_it_was_and_is_measured_whole(tmp_path):
    images, labels = pixels(20, 8, 8, 3), np.arange(20) % 5
    data = saved(tmp_path / "set.npz", images=images, labels=labels)
    found = load(Data(name="npz", path=data.path, images=7), image_size=8, classes=5)
    assert found.train is None
    np.testing.assert_array_equal(found.test.images, images[:7])
    np.testing.assert_array_equal(found.test.labels, labels[:7])
    assert found.test.labels.dtype == np.int32
    assert found.mean == pytest.approx((images / 255).mean((0, 1, 2)))
    assert found.std == pytest.approx((images / 255).std((0, 1, 2)))


def test_own_mean_and_std_are_taken_one_for_all_channels_or_one_each(tmp_path):
    path = saved(tmp_path / "set.npz", images=pixels(2, 8, 8, 3), labels=np.zeros(2, int)).path
    data = Data(name="npz", path=path, mean=(0.5,), std=(0.1, 0.2, 0.3))
    found = load(data, image_size=8, classes=2)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    refused(Data(name="npz", path=path, mean=(0.5, 0.5)), "data.mean: 2 values .* 3 channels")


def test_an_image_of_one_colour_has_no_zero_deviation(tmp_path):
    data = saved(tmp_path / "x.npz", images=np.full((2, 8, 8, 1), 7, np.uint8), labels=[0, 1])
    found = load(data, image_size=8, classes=2)
    assert found.mean == pytest.approx((7 / 255,) * 3) and min(found.std) > 0


def test_resize_and_crop_are_pillows_on_the_whole_image(tmp_path):
    photo = pixels(40, 61, 3)
    paint(tmp_path / "a" / "photo.png", photo)
    data = Data(name="folder", path=str(tmp_path), resize=20, crop=16)
    found = load(data, image_size=16, classes=1)
    small = Image.fromarray(photo).resize((61 * 20 // 40, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(small)[2:18, 7:23]  # 30 x 20 pixels, the middle 16 x 16
    np.testing.assert_array_equal(found.test.images[0], expected)


def test_a_crop_that_is_not_the_images_size_or_too_large_is_refused():
    refused(Data(crop=7), "data.crop: 7 is not model.image_size, 8")
    refused(Data(resize=7), "data.resize: 7 is smaller than the 8 pixels")


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
    np.testing.assert_array_equal(np.concatenate([found.train.images, found.test.images]), images)
    assert [*found.train.labels, *found.test.labels] == labels
    assert found.mean == (0.4914, 0.4822, 0.4465)
    few = load(Data(name="cifar10", path=str(tmp_path)), image_size=32, classes=10, train_images=3)
    assert few.train is not None and list(few.train.labels) == labels[:3]


def test_a_cut_or_missing_cifar_file_is_refused(tmp_path):
    data = Data(name="cifar10", path=str(tmp_path))
    refused(data, "test_batch.bin does not exist")
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 + 5))
    refused(data, "has 3078 bytes, no multiple of 3073")


def test_folders_are_classes_in_sorted_order_and_take_turns(tmp_path):
    for name, count in (("b", 3), ("a", 2), ("c", 1)):
        for number in range(count):
            grey = np.full((8, 8), 10 * number + ord(name), np.uint8)
            paint(tmp_path / name / f"{number}.png", grey)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    told = []
    found = load(
        Data(name="folder", path=str(tmp_path)),
        image_size=8,
        classes=3,
        progress=lambda *args: told.append(args),
    )
    assert list(found.test.labels) == [0, 1, 2, 0, 1, 1]
    shades = [ord("a"), ord("b"), ord("c"), ord("a") + 10, ord("b") + 10, ord("b") + 20]
    assert found.test.images[:, 0, 0].tolist() == [[shade] * 3 for shade in shades]
    assert told == [(done, 6) for done in range(1, 7)]
    assert found.train is None


def test_train_and_val_below_one_folder_are_the_splits(tmp_path):
    paint(tmp_path / "train" / "x" / "1.jpg", pixels(9, 8, 3))
    paint(tmp_path / "train" / "y" / "1.jpg", pixels(9, 8, 3))
    data = Data(name="imagenet", path=str(tmp_path))
    refused(data, "a folder `train` but neither `val` nor `test`", classes=2)
    paint(tmp_path / "val" / "x" / "2.jpg", pixels(8, 8, 3))
    refused(data, "the class folders of its splits differ", classes=2)
    (tmp_path / "val" / "y").mkdir()
    found = load(data, image_size=8, classes=2)
    assert found.train is not None and found.train.images.shape == (2, 8, 8, 3)
    assert list(found.test.labels) == [0]
    assert found.mean == (0.485, 0.456, 0.406)


def tiny_imagenet(root):
    (root / "wnids.txt").write_text("n02\nn01\n")
    shades = {"val_0.png": 10, "val_1.png": 20, "val_2.png": 30}
    for name, shade in shades.items():
        paint(root / "val" / "images" / name, np.full((8, 8), shade, np.uint8))
    lines = [
        "val_0.png\tn02\t0\t0\t7\t7",
        "val_1.png\tn01\t0\t0\t7\t7",
        "val_2.png\tn02\t0\t0\t7\t7",
    ]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    for wnid in ("n01", "n02"):
        paint(root / "train" / wnid / "images" / f"{wnid}_0.png", pixels(8, 8, 3))
    return Data(name="tiny-imagenet", path=str(root))


def test_tiny_imagenet_takes_labels_from_its_annotations(tmp_path):
    found = load(tiny_imagenet(tmp_path), image_size=8, classes=2)
    assert list(found.test.labels) == [1, 0, 1]
    assert found.test.images[:, 3, 3, 0].tolist() == [10, 20, 30]
    assert found.train is not None and list(found.train.labels) == [0, 1]


def test_tiny_imagenet_with_a_class_that_is_not_listed_is_refused(tmp_path):
    data = tiny_imagenet(tmp_path)
    (tmp_path / "wnids.txt").write_text("n01\nn03\n")
    refused(data, "val_annotations.txt: no class in `val_0.png", classes=2)
    (tmp_path / "wnids.txt").unlink()
    refused(data, "wnids.txt does not exist", classes=2)


def test_a_corrupt_image_is_named(tmp_path):
    for number in range(5):
        paint(tmp_path / "a" / f"{number}.png", pixels(30, 30, 3))
    data = Data(name="folder", path=str(tmp_path))
    whole = (tmp_path / "a" / "3.png").read_bytes()
    for bad in (b"", b"not an image", whole[: len(whole) // 2]):
        (tmp_path / "a" / "3.png").write_bytes(bad)
        refused(data, "3.png is no readable image", classes=1)
    (tmp_path / "a" / "3.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256")
    refused(data, "3.png is a git-LFS pointer", classes=1)


def test_folders_without_images_or_with_other_classes_are_refused(tmp_path):
    data = Data(name="folder", path=str(tmp_path))
    refused(data, "has no class folders")
    (tmp_path / "a").mkdir()
    refused(data, "no images in", classes=1)
    refused(data, "has 1 classes but model.classes is 10")
    refused(Data(name="folder", path=str(tmp_path / "b")), "b is no folder")
    refused(Data(name="folder"), "data.path: say where the `folder` data set lies")


GOOD = dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.arange(4))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(labels=np.arange(5)), "4 images but 5 labels"),
        (dict(labels=np.array([0, 1, 2, 10])), r"label 10 is not in 0\.\.9; set model.classes"),
        (dict(labels=np.array([0, -1, 2, 3])), "label -1 is not in"),
        (dict(labels=np.ones(4)), "labels are float64; save them as integers"),
        (dict(labels=np.ones((4, 1), int)), r"labels have shape \(4, 1\)"),
        (dict(images=np.zeros((4, 8, 8, 3), np.float32)), "images are float32; save them as uint8"),
        (dict(images=np.zeros((4, 8, 8), np.uint8)), r"images have shape \(4, 8, 8\)"),
        (dict(images=np.zeros((4, 8, 8, 2), np.uint8)), "2 channels, the network reads 3"),
        (dict(images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.arange(0)), "there are no images"),
        (dict(labels=np.array([{}] * 4)), "no readable .npz file of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, match):
    refused(saved(tmp_path / "set.npz", **{**GOOD, **change}), match)


def test_files_that_are_no_npz_are_refused(tmp_path):
    path = tmp_path / "set.npz"
    data = saved(path, **GOOD)
    whole = path.read_bytes()
    refused(saved(path, images=GOOD["images"], other=1), "has no `labels`, it holds images, other")
    for bad in (b"", b"text", whole[: len(whole) // 2], whole.replace(b"\0" * 50, b"\1" * 50, 1)):
        path.write_bytes(bad)
        refused(data, "no readable .npz file of plain arrays")
    with path.open("wb") as file:
        np.save(file, GOOD["images"])
    refused(data, "no readable .npz file of plain arrays")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(data, "is a git-LFS pointer; fetch it with `git lfs pull`")
    path.unlink()
    refused(data, "set.npz does not exist")
    path.mkdir()
    refused(data, "set.npz is a folder")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    data = saved(tmp_path / "set.npz", **GOOD)

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(data, "set.npz cannot be read: Permission denied")


def test_real_npz_sets_load_whole(shared_data):
    path = shared_data / "cifar10_test1000.npz"
    found = load(Data(name="npz", path=str(path)), image_size=32, classes=10)
    np.testing.assert_array_equal(found.test.images, np.load(path)["images"])
