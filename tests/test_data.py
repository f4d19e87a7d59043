"""Data sets as configured: how images are framed and normalised."""

import numpy as np
import pytest
from PIL import Image

from afpjax.data import Preset, load, normalise
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


def test_normalise_is_the_plain_formula():
    images, mean, std = pixels(2, 3, 4, 3), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    got = normalise(images, mean, std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_own_mean_and_std_are_taken_one_for_all_channels_or_one_each(tmp_path):
    path = saved(tmp_path / "set.npz", images=pixels(2, 8, 8, 3), labels=np.zeros(2, int)).path
    data = Data(name="npz", path=path, mean=(0.5,), std=(0.1, 0.2, 0.3))
    found = load(data, image_size=8, classes=2)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    refused(Data(name="npz", path=path, mean=(0.5, 0.5)), "data.mean: 2 values .* 3 channels")


def test_resize_and_crop_are_pillows_on_the_whole_image(tmp_path):
    photo = pixels(40, 61, 3)
    paint(tmp_path / "a" / "photo.png", photo)
    data = Data(name="folder", path=str(tmp_path), resize=20, crop=16)
    found = load(data, image_size=16, classes=1)
    small = Image.fromarray(photo).resize((61 * 20 // 40, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(small)[2:18, 7:23]  # 30 x 20 pixels, the middle 16 x 16
    np.testing.assert_array_equal(found.test.take([0]).images[0], expected)


#: Any network's, at a size of 16; ImageNet's own numbers would be right by chance.
PRESET = Preset(resize=20, crop=16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def by_hand(photo, resize, side):
    """Pillow's answer: the shorter side to `resize`, the middle square of `side`."""
    picture = Image.fromarray(photo)
    width, height = (each * resize // min(picture.size) for each in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    small = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return small[top : top + side, left : left + side]


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_a_preset_says_how_images_are_resized_cut_and_normalised(tmp_path, name):
    photo = pixels(40, 80, 3)  # twice as wide as high, so that all margins are even
    paint(tmp_path / "a" / "photo.png", photo)
    saved(tmp_path / "set.npz", images=photo[None], labels=[0])
    path = str(tmp_path if name == "folder" else tmp_path / "set.npz")

    def made(image_size=16, preset: Preset | None = PRESET, **settings):
        data = Data(name=name, path=path, **settings)
        found = load(data, image_size=image_size, classes=1, preset=preset)
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


def test_a_crop_that_is_not_the_images_size_or_too_large_is_refused():
    refused(Data(crop=7), "data.crop: 7 is not model.image_size, 8")
    refused(Data(resize=7), "data.resize: 7 is smaller than the 8 pixels")
