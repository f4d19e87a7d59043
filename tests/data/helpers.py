"""Images and files of images, and what a refused data set says."""

import numpy as np
import pytest
from PIL import Image

from afpjax.config.sections import Data
from afpjax.data.dataset import load
from afpjax.inputs.errors import InputError

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def saved(path, **arrays):
    """Settings of an `.npz` data set of these arrays."""
    np.savez(path, **arrays)
    return Data(name="npz", path=str(path))


def paint(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def read(split):
    """All images of a split."""
    return split.take(range(len(split)))


def refused(data, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        load(data, **{"image_size": 8, "classes": 10, **options})
    assert "\n" not in str(caught.value)
