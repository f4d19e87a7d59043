"""A network and a data set that train in seconds; as a program, a training that may be killed."""

# pyright: reportMissingImports=false
import sys

import jax
import numpy as np
from flax import nnx

from afpjax.config import sections
from afpjax.data import dataset as data
from afpjax.data.images import Split
from afpjax.faults.model import FaultModel
from afpjax.models import train, zoo
from afpjax.network.fixed_point import QFormat

MODEL = sections.Model(name="tiny", classes=2, image_size=8, width=1.0)
SETTINGS = sections.Train(
    epochs=6,
    batch=16,
    learning_rate=0.02,
    fault_epochs=3,
    fault_learning_rate=0.01,
    checkpoint_minutes=525_600.0,
)
STEPS = 6 * 2  # 40 images in batches of 16
CONDITIONS = train.Conditions(
    FaultModel(bits=range(3), weight_rate=(0.3, 0.0), activation_rate=(0.3, 0.0)),
    QFormat(8, scale="tensor"),
    calibration=8,
)


class Tiny(nnx.Module):
    """Five layers: convolutions, batch norm, dropout, and two dense ones over the mean pixel."""

    def __init__(self, *, classes: int, width: float, rngs: nnx.Rngs):
        channels = round(4 * width)
        self.conv1 = nnx.Conv(3, channels, (3, 3), strides=2, padding=1, rngs=rngs)
        self.bn1 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (1, 1), rngs=rngs)
        self.conv3 = nnx.Conv(channels, channels, (1, 1), rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)
        self.hidden = nnx.Linear(channels, channels, rngs=rngs)
        self.fc = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.bn1(self.conv1(images)))
        hidden = self.conv3(nnx.relu(self.conv2(hidden))).mean((1, 2))
        return self.fc(self.dropout(nnx.relu(self.hidden(nnx.relu(hidden)))))


def split_of(images, labels, broken=()):
    """A split of these arrays, without the images whose places are in `broken`."""

    def image(place):
        if place in broken:
            raise data.Unreadable(f"image {place} is broken", str(place))
        return images[place]

    def stamp():
        return [images.tobytes()]

    return Split(labels, images.shape[1:], image, stamp, parallel=False, skip=bool(broken))


def arrays(count=40):
    """Bright against dark images, with noise: learnt in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 2
    images = rng.integers(0, 160, (count, 8, 8, 3)) + 95 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def dataset():
    split = split_of(*arrays())
    return data.Dataset(split, split, (0.5,) * 3, (0.25,) * 3)


def equal(one, other):
    """Whether two trees have the same structure and the same bits."""
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other))


if __name__ == "__main__":  # FAULTS: the cache folder comes from the environment
    from dataclasses import replace

    zoo.NETWORKS["tiny"] = Tiny
    settings = replace(SETTINGS, checkpoint_minutes=0.0, faults=sys.argv[1] == "faults")
    train.trained(MODEL, settings, dataset(), seed=3, conditions=CONDITIONS)
