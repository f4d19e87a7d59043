"""Data sets as configured: how images are framed and normalised."""

import numpy as np
import pytest
from PIL import Image

from afpjax.config.sections import Data
from afpjax.data.dataset import Preset, load, normalise
from afpjax.data.images import Frame
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import image_size
from tests.data.helpers import paint, pixels, refused, saved


def test_normalise_is_the_plain_formula():
    images, mean, std = pixels(2, 3, 4, 3), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    got = normalise(images, mean, std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_own_mean_and_std_are_taken_one_for_all_channels_or_one_each(tmp_path):
    path = saved(tmp_path / "set.npz", images=pixels(2, 8, 8, 3), labels=np.zeros(2, int)).path
    for mean, std in (((0.5,), (0.25,)), ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))):
        found = load(Data(name="npz", path=path, mean=mean, std=std), image_size=8, classes=2)
        assert (found.mean, found.std) == (mean * (3 // len(mean)), std * (3 // len(std)))
    refused(Data(name="npz", path=path, mean=(0.5, 0.5)), "data.mean: 2 values .* 3 channels")


CLASSES = {"folder": 1, "npz": 2}  # of one image: a folder's classes are those that it has
#: Any network's, at a size of 16; ImageNet's own numbers would be right by chance.
PRESET = Preset(resize=20, crop=16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def by_hand(photo, resize, rows, columns=None):
    """Pillow's answer: the shorter side to `resize`, the middle of so many rows and columns."""
    picture, columns = Image.fromarray(photo), columns or rows
    width, height = (each * resize // min(picture.size) for each in picture.size)
    left, top = (width - columns) // 2, (height - rows) // 2
    small = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return small[top : top + rows, left : left + columns]


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_a_preset_says_how_images_are_resized_cut_and_normalised(tmp_path, name):
    photo = pixels(40, 81, 3)
    paint(tmp_path / "a" / "photo.png", photo)
    saved(tmp_path / "set.npz", images=photo[None], labels=[0])
    path = str(tmp_path if name == "folder" else tmp_path / "set.npz")

    def made(image_size=16, preset: Preset | None = PRESET, **settings):
        data = Data(name=name, path=path, **settings)
        found = load(data, image_size=image_size, classes=CLASSES[name], preset=preset)
        return found.test.take([0]).images[0], found.mean, found.std

    image, mean, std = made()
    np.testing.assert_array_equal(image, by_hand(photo, 20, 16))
    assert (mean, std) == (PRESET.mean, PRESET.std)
    image, mean, std = made(resize=24, mean=(0.9,))
    np.testing.assert_array_equal(image, by_hand(photo, 24, 16))
    assert (mean, std) == ((0.9,) * 3, PRESET.std)
    assert made(std=(0.7,))[1:] == (PRESET.mean, (0.7,) * 3)
    # At another image size, and without a preset, the data set's own rules hold.
    image, mean, std = made(image_size=12)
    np.testing.assert_array_equal(image, by_hand(photo, 12, 12))
    assert (mean, std) == made(preset=None)[1:] != (PRESET.mean, PRESET.std)
    np.testing.assert_array_equal(made(preset=None)[0], by_hand(photo, 16, 16))


def test_a_preset_for_colours_does_not_normalise_grey_images(tmp_path):
    paint(tmp_path / "a" / "1.png", pixels(20, 20))
    data = Data(name="folder", path=str(tmp_path))
    found = load(data, image_size=16, classes=1, channels=1, preset=PRESET)
    assert (found.mean, found.std) == ((0.449,), (0.226,)) and found.test.shape == (16, 16, 1)


def loaded(tmp_path, name, photo, size, **settings):
    """One image of a folder or an `.npz` as a network of this size reads it."""
    paint(tmp_path / "a" / "photo.png", photo)
    saved(tmp_path / "set.npz", images=photo[None], labels=[0])
    path = str(tmp_path if name == "folder" else tmp_path / "set.npz")
    data = Data(name=name, path=path, **settings)
    split = load(data, image_size=size, classes=CLASSES[name]).test
    image = split.take([0]).images[0]
    assert split.shape == image.shape == (*size, 3)
    return image


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_images_that_are_not_square_are_read_as_they_are(tmp_path, name):
    """A network of 49 x 10 images could be given no images."""
    photo = pixels(49, 10, 3)
    for settings in ({}, {"resize": 10}, {"crop": (49, 10)}):
        found = loaded(tmp_path, name, photo, (49, 10), **settings)
        np.testing.assert_array_equal(found, photo)


@pytest.mark.parametrize("name", ["folder", "npz"])
@pytest.mark.parametrize(
    ("shape", "size", "resize", "least"),
    [
        ((40, 80), (16, 20), 0, 16),  # 16 x 32, cut to 20 columns
        ((40, 80), (16, 32), 0, 16),  # of the same aspect: nothing to cut
        ((80, 40), (48, 12), 0, 24),  # 48 x 24, cut to 12 columns
        ((40, 40), (50, 10), 0, 50),  # enlarged: 50 x 50
        ((40, 80), (16, 20), 24, 24),
    ],
)
def test_what_is_not_square_is_cut_from_the_least_that_covers_it(
    tmp_path, name, shape, size, resize, least
):
    photo = pixels(*shape, 3)
    found = loaded(tmp_path, name, photo, size, resize=resize)
    np.testing.assert_array_equal(found, by_hand(photo, least, *size))


@pytest.mark.parametrize("seed", range(10))
def test_the_least_that_covers_an_image_covers_it_by_less_than_a_pixel(seed):
    rng = np.random.default_rng(seed)
    rows, columns, height, width = (int(side) for side in rng.integers(1, 300, 4))
    frame = Frame(0, image_size(rows, columns), 1, Image.Resampling.BILINEAR)
    across, down = frame.resized(width, height)
    scale = max(rows / height, columns / width)
    assert rows <= down and columns <= across and (rows == down or columns == across)
    assert abs(down - height * scale) < 1 and abs(across - width * scale) < 1


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_a_resize_that_leaves_too_little_says_how_much_is_enough(tmp_path, name):
    photo, said = pixels(40, 80, 3), "data.resize: 12 makes 12 x 24 pixels .* 40 x 80, too few"
    with pytest.raises(InputError, match=f"{said} for 30 x 10; raise it to 30 or leave it out"):
        loaded(tmp_path, name, photo, (30, 10), resize=12)
    loaded(tmp_path, name, photo, (30, 10), resize=30)
    refused(Data(crop=7), "data.crop: 7 is not model.image_size, 8")
    refused(Data(resize=9), "data.resize: 9 is smaller than the 10 pixels", image_size=(49, 10))
    refused(Data(crop=49), r"data.crop: 49 is not .* 49 10 \(rows columns\)", image_size=(49, 10))
