"""Trees of images: class folders, Tiny-ImageNet, ImageNet's flat validation folder."""

import numpy as np
import pytest

from afpjax.config.sections import Data
from afpjax.data.dataset import load
from tests.data.helpers import paint, pixels, read, refused


def shade(path, level):
    paint(path, np.full((8, 8), level, np.uint8))


def test_folders_are_classes_in_sorted_order_and_take_turns(tmp_path):
    for name, count in (("b", 3), ("a", 2), ("c", 1)):
        for number in range(count):
            shade(tmp_path / name / f"{number}.png", 10 * number + ord(name))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._0.png").write_text("what macOS leaves beside an image")
    (tmp_path / ".cache").mkdir()
    found = load(Data(name="folder", path=str(tmp_path)), image_size=8, classes=3)
    assert list(found.test.labels) == [0, 1, 2, 0, 1, 1]
    shades = [ord("a"), ord("b"), ord("c"), ord("a") + 10, ord("b") + 10, ord("b") + 20]
    assert read(found.test).images[:, 0, 0].tolist() == [[level] * 3 for level in shades]
    assert found.train is None
    few = load(Data(name="folder", path=str(tmp_path), images=4), image_size=8, classes=3)
    assert list(few.test.labels) == [0, 1, 2, 0]


def test_folders_named_by_numbers_are_in_their_order(tmp_path):
    """Sorted as text, 10 comes before 2, and every label from there on is wrong."""
    for number in range(11):
        shade(tmp_path / str(number) / "1.png", 20 * number)
    found = read(load(Data(name="folder", path=str(tmp_path)), image_size=8, classes=11).test)
    assert found.images[:, 0, 0, 0].tolist() == [20 * label for label in found.labels.tolist()]
    (tmp_path / "x").mkdir()
    found = load(Data(name="folder", path=str(tmp_path)), image_size=8, classes=12).test
    assert read(found).images[2, 0, 0, 0] == 200  # 0, 1, 10, as text again


def test_train_and_val_below_one_folder_are_the_splits(tmp_path):
    paint(tmp_path / "train" / "x" / "1.jpg", pixels(9, 8, 3))
    paint(tmp_path / "train" / "y" / "1.jpg", pixels(9, 8, 3))
    data = Data(name="imagenet", path=str(tmp_path))
    refused(data, "a folder `train` but neither `val` nor `test`", classes=2)
    paint(tmp_path / "val" / "x" / "2.jpg", pixels(8, 8, 3))
    refused(data, "the class folders of its splits differ", classes=2)
    (tmp_path / "val" / "y").mkdir()
    found = load(data, image_size=8, classes=2)
    assert found.train is not None and read(found.train).images.shape == (2, 8, 8, 3)
    assert list(found.test.labels) == [0]
    assert found.mean == (0.485, 0.456, 0.406)
    (tmp_path / "train").rename(tmp_path / "other")
    alone = load(data, image_size=8, classes=2)
    assert alone.train is None and list(alone.test.labels) == [0]


def tiny_imagenet(root):
    (root / "wnids.txt").write_text("n02\nn01\n")
    lines = []
    for number, wnid in enumerate(("n02", "n01", "n02")):
        shade(root / "val" / "images" / f"val_{number}.png", 10 * number + 10)
        lines.append(f"val_{number}.png\t{wnid}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for wnid in ("n01", "n02"):
        paint(root / "train" / wnid / "images" / f"{wnid}_0.png", pixels(8, 8, 3))
    return Data(name="tiny-imagenet", path=str(root))


@pytest.mark.parametrize("name", ["tiny-imagenet", "imagenet"])
def test_tiny_imagenet_takes_labels_from_its_annotations(tmp_path, name):
    tiny_imagenet(tmp_path)
    found = load(Data(name=name, path=str(tmp_path)), image_size=8, classes=2)
    assert list(found.test.labels) == [1, 0, 1]
    assert read(found.test).images[:, 3, 3, 0].tolist() == [10, 20, 30]
    assert found.train is not None and list(found.train.labels) == [0, 1]


def test_tiny_imagenet_with_a_class_that_is_not_listed_is_refused(tmp_path):
    data = tiny_imagenet(tmp_path)
    (tmp_path / "wnids.txt").write_text("n01\nn03\n")
    refused(data, "val_annotations.txt: no class in `val_0.png", classes=2)
    (tmp_path / "wnids.txt").unlink()
    refused(data, "wnids.txt does not exist", classes=2)


FLAT = {"ILSVRC2012_val_00000001.JPEG": 40, "ILSVRC2012_val_00000002.JPEG": 160}
ANNOTATIONS = "".join(f"{name}\tn{2 - n}\t1\t1\n" for n, name in enumerate(FLAT))
SOLUTION = "ImageId,PredictionString\n" + "".join(
    f"{name.removesuffix('.JPEG')},n{2 - n} 85 1 499 272 n{2 - n} 1 2 3 4 \n"
    for n, name in enumerate(FLAT)
)


@pytest.mark.parametrize(
    ("images", "listed", "text", "with_train"),
    [
        ("", "val_annotations.txt", ANNOTATIONS, False),
        ("val", "val/val_annotations.txt", ANNOTATIONS, True),
        ("val", "val_annotations.txt", ANNOTATIONS, False),
        ("val", "LOC_val_solution.csv", SOLUTION, True),
        ("val", "val/LOC_val_solution.csv", SOLUTION, False),
    ],
)
def test_a_flat_validation_folder_takes_labels_from_a_file(
    tmp_path, images, listed, text, with_train
):
    for file, level in FLAT.items():
        shade(tmp_path / images / file, level)
    (tmp_path / listed).write_text(text)
    for wnid in ("n1", "n2") if with_train else ():
        shade(tmp_path / "train" / wnid / "1.JPEG", 0)
    found = load(Data(name="imagenet", path=str(tmp_path)), image_size=8, classes=2)
    assert list(found.test.labels) == [1, 0]
    levels = read(found.test).images[:, 3, 3, 0].astype(int)
    assert np.abs(levels - [40, 160]).max() <= 2, "JPEG keeps an even grey"
    assert (found.train is not None) == with_train


def test_labels_of_a_flat_folder_that_are_no_classes_are_refused(tmp_path):
    data = Data(name="imagenet", path=str(tmp_path))
    for file in FLAT:
        shade(tmp_path / "val" / file, 1)
    refused(data, "has no class folders.* needs a val_annotations.txt or LOC_val_solution.csv")
    listed = tmp_path / "val" / "val_annotations.txt"
    listed.write_text(ANNOTATIONS)
    refused(data, "has 2 classes, model.classes is 1000; set model.classes = 2", classes=1000)
    for wnid in ("n1", "n3"):
        shade(tmp_path / "train" / wnid / "1.JPEG", 0)
    refused(data, "val_annotations.txt: no class in `ILSVRC2012_val_00000001.JPEG n2", classes=2)
    listed.write_text("no tabs in here\n")
    refused(data, "val_annotations.txt: no class in `no tabs in here`", classes=2)
    listed.write_text("\n")
    refused(data, "val_annotations.txt lists no images", classes=2)


def test_folders_without_images_or_with_other_classes_are_refused(tmp_path):
    data = Data(name="folder", path=str(tmp_path))
    refused(data, "has no class folders")
    (tmp_path / "a").mkdir()
    refused(data, r"no images in .* \(\.bmp, ", classes=1)
    refused(data, "has 1 classes, model.classes is 10; set model.classes = 1")
    refused(Data(name="folder", path=str(tmp_path / "b")), "b is no readable folder: No such file")
    (tmp_path / "file").write_text("")
    refused(Data(name="imagenet", path=str(tmp_path / "file")), "is no readable folder: Not a dir")
    shade(tmp_path / "a" / "1.png", 1)
    refused(data, "photographs have 1 or 3 channels, the network reads 2", classes=1, channels=2)
