"""A network and labelled images that are in memory, in place of those that a file names."""

from typing import Any, NamedTuple

import numpy as np

from afpjax.data.dataset import Dataset, normalisation_of
from afpjax.data.images import Split
from afpjax.inputs import checks
from afpjax.inputs.errors import InputError
from afpjax.network.interpreter import Network
from afpjax.network.quantized import Quantized


class Labelled(NamedTuple):
    """Images [N, ...] and their class numbers [N], as a caller has them."""

    images: Any  # bytes [N, rows, columns, C], or numbers as the network reads them
    labels: Any
    train: tuple[Any, Any] | None = None  # more of both, to calibrate and to score neurons with
    mean: tuple[float, ...] = ()  # per channel of bytes, of values in [0, 1]; empty: measured
    std: tuple[float, ...] = ()


class Given(NamedTuple):
    """What a caller of a job as a function hands over."""

    network: Network
    quantized: Quantized | None  # where the caller chose the number format
    data: Dataset | None

    @classmethod
    def of(cls, network: Any, labelled: Labelled | None) -> "Given":
        """Of a traced network, or of one in its number format.

        InputError: what is no network, images of another shape than it reads, not finite or
        without labels.
        """
        _refuse_others(network)
        data = None if labelled is None else _dataset(network, labelled)
        if not isinstance(network, Quantized):
            return cls(network, None, data)
        if network.encoded:
            raise InputError("network: its kernels are codes; give what afpjax.quantize made")
        return cls(Network(network.program, network.parameters), network, data)

    @property
    def dataset(self) -> Dataset:
        if self.data is None:
            raise InputError("images, labels: this job measures on labelled images; give both")
        return self.data


def settings_of_network(network: Any) -> dict[str, Any]:
    """`section.key` -> value of what follows from a network; InputError for what is none."""
    _refuse_others(network)
    program = network.program
    found: dict[str, Any] = {"model.classes": max(2, program.classes)}
    if len(program.image_shape) == 3:
        rows, columns, channels = program.image_shape
        size = rows if rows == columns else [rows, columns]
        found |= {"model.image_size": size, "model.channels": channels}
    if isinstance(network, Quantized):
        fmt = network.format
        found["format.kind"] = fmt.kind
        if fmt.kind == "fixed":
            frac = fmt.frac if fmt.scale == "global" else min(fmt.frac, fmt.bits - 1)  # unused
            found |= {"format.bits": fmt.bits, "format.frac": frac}
            found |= {"format.scale": fmt.scale, "format.step": fmt.step}
    return found


def _refuse_others(network: Any) -> None:
    if not isinstance(network, Network | Quantized):
        raise InputError(
            "network: needs one from afpjax.trace, load_onnx or quantize, got "
            f"{checks.shown(network)}"
        )


def _dataset(network: Network | Quantized, given: Labelled) -> Dataset:
    test, train = _split("images", "labels", network, given.images, given.labels), None
    if given.train is not None:
        train = _split("train[0]", "train[1]", network, *given.train)
        if train.dtype != test.dtype:
            raise InputError(
                f"train[0]: {train.dtype}, but images are {test.dtype}; give both alike"
            )
    if test.dtype != np.uint8 and (given.mean or given.std):
        raise InputError("mean, std: are for bytes; images that are numbers are read as they are")
    pixels = given.images if given.train is None else given.train[0]
    return Dataset(train, test, *normalisation_of(np.asarray(pixels), given.mean, given.std))


def _split(
    where: str, of_labels: str, network: Network | Quantized, images: Any, labels: Any
) -> Split:
    program = network.program
    pixels = checks.batch(where, checks.array(where, images), program.image_shape)
    classes = np.asarray(checks.class_numbers(labels, program.classes, of_labels), np.int32)
    checks.same_count(pixels, classes)
    pixels = np.asarray(pixels)
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    return Split(
        classes,
        pixels.shape[1:],
        lambda index: pixels[index],
        lambda: [np.ascontiguousarray(pixels).data],
        parallel=False,
        dtype=pixels.dtype,
    )
