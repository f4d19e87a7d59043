"""Augmentation, against windows cut with NumPy and Pillow's resampling."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from afpjax.models.training import augment

SIDE = 16


@pytest.fixture(scope="module")
def image():
    """No pixel of it is black, and no part of it looks like another."""
    return np.random.default_rng(0).integers(1, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def augmented(kind, image, count=400, key=0):
    batch = jnp.asarray(np.repeat(image[None], count, axis=0))
    made = jax.jit(augment.augmented, static_argnums=0)(kind, jax.random.key(key), batch)
    assert made.dtype == jnp.uint8 and made.shape == batch.shape
    return np.asarray(made)


def windows(image):
    """Every image that a shift by up to an eighth can give -> its place."""
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    return {wide[r : r + SIDE, c : c + SIDE].tobytes(): (r, c) for r in range(5) for c in range(5)}


def test_rows_and_columns_move_by_an_eighth_of_their_own_and_black_comes_in(image):
    """Of 16 x 8 pixels; a key decides it, and "none" changes nothing."""
    narrow = image[:, :8]
    wide = np.pad(narrow, ((2, 2), (1, 1), (0, 0)))
    places = {wide[r : r + 16, c : c + 8].tobytes() for r in range(5) for c in range(3)}
    made = augmented("shift", narrow)
    assert {each.tobytes() for each in made} == places
    assert (augmented("shift", narrow) == made).all()
    assert (augmented("shift", narrow, key=6) != made).any()
    assert (augmented("none", narrow) == narrow).all()


def test_a_shifted_image_is_mirrored_or_not_whatever_its_place(image):
    plain, turned = windows(image), windows(image[:, ::-1])
    made = [each.tobytes() for each in augmented("shift-flip", image, 2000)]
    mirrored = np.array([each in turned for each in made])
    assert all((each in plain) != (each in turned) for each in made)
    assert abs(mirrored.mean() - 0.5) < 5 * np.sqrt(0.25 / 2000)
    found = {turned[each] for each, is_so in zip(made, mirrored, strict=True) if is_so}
    assert len(found) == 25, "mirrored images stand in some places only"


def test_a_part_is_a_third_to_all_of_the_area_and_nearly_square():
    rows, columns = 32, 48
    top, left, height, width = np.asarray(
        augment.boxes(jax.random.key(1), 4000, rows, columns), np.float64
    ).T
    slack = 1e-3
    assert (top >= 0).all() and (top + height <= rows + slack).all()
    assert (left >= 0).all() and (left + width <= columns + slack).all()
    area, aspect = height * width / (rows * columns), width / height
    whole = (height < rows - slack) & (width < columns - slack)  # sides that were not cut
    assert (area <= 1 + slack).all() and (area[whole] >= 0.35 - slack).all()
    assert (aspect[whole] >= 3 / 4 - slack).all() and (aspect[whole] <= 4 / 3 + slack).all()
    # Small parts are never cut: below 0.5 the area is uniform and the aspect log-uniform.
    small = area < 0.5
    assert whole[small].all()
    assert abs(small.mean() - 0.15 / 0.65) < 5 * np.sqrt(0.231 * 0.769 / 4000)
    logs = np.log(aspect[small]) / np.log(4 / 3)
    assert abs(logs.mean()) < 5 * np.sqrt(1 / 3 / small.sum())
    assert abs((np.abs(logs) < 0.5).mean() - 0.5) < 5 * np.sqrt(0.25 / small.sum())
    # A part lies anywhere that it fits, rows and columns drawn apart.
    down, across = top / (rows - height).clip(1e-9), left / (columns - width).clip(1e-9)
    for share in (down[whole], across[whole]):
        assert abs(share.mean() - 0.5) < 5 * np.sqrt(1 / 12 / whole.sum())
    assert abs(np.corrcoef(down[whole], across[whole])[0, 1]) < 5 / np.sqrt(whole.sum())


def test_a_part_is_enlarged_as_pillow_does_bilinearly(image):
    parts = np.asarray(augment.boxes(jax.random.key(2), 50, SIDE, SIDE))
    made = augment.resampled(jnp.asarray(np.repeat(image[None], 50, axis=0)), jnp.asarray(parts))
    for got, (top, left, height, width) in zip(np.asarray(made), parts.astype(float), strict=True):
        box = (left, top, min(left + width, SIDE), min(top + height, SIDE))
        wanted = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
        # Pillow rounds after each axis, and its weights to 1/2^22.
        assert np.abs(np.asarray(wanted).astype(int) - got).max() <= 1


def test_random_parts_differ_from_image_to_image_and_half_are_mirrored():
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8)[None, :, None] * 10, (SIDE, SIDE, 3))
    made = augmented("crop-flip", ramp, 2000).astype(int)
    falls = made[:, 0, 0, 0] > made[:, 0, -1, 0]
    assert abs(falls.mean() - 0.5) < 5 * np.sqrt(0.25 / 2000)
    assert len({each.tobytes() for each in made}) > 500
