"""ONNX files as networks: the way in for whatever was trained elsewhere."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from afpjax.inputs.checks import instance, whole
from afpjax.inputs.errors import InputError, one_line
from afpjax.inputs.image_size import ImageSize, image_size, pixels, rows_columns, words
from afpjax.network.interpreter import Network
from afpjax.network.onnx.file import WHERE, OnnxGraph, read_graph
from afpjax.network.onnx.plan import OnnxPlan, Parameter, plan
from afpjax.network.trace import trace

#: What networks for photographs read, where a file leaves the size of its images free.
FREE_SIZE = 224
_LAYERS = ("Conv", "Gemm", "MatMul")
_CHANNELS = (1, 3, 4)  # of images, as the last axis: grey, colour, colour and depth

Params = dict[str, Array | np.ndarray]


class OnnxModel(NamedTuple):
    """An ONNX file as a JAX callable: `apply_fn(params, images)` with images [B, *image_shape]."""

    apply_fn: Callable[[Any, Array], Array]
    params: dict[str, np.ndarray]  # float32, by the names of the file's tensors
    image_shape: tuple[int, ...]  # (rows, columns, channels), or (features,)


def load_onnx(
    path: str | Path, image_size: ImageSize | None = None, *, fold: bool = True
) -> Network:
    """Read a trained image classifier from an `.onnx` file and trace it.

    The network takes float32 images [B, rows, columns, channels] (NHWC, whatever the file's own
    layout; [B, features] where the file takes vectors) and gives logits [B, classes]. Operator sets
    7 to 21, weights inside the file or beside it, floats of any width (widened to float32). Layers
    are named after the file's tensors (`layer1.0.conv1`), or after the node where an exporter made
    the tensor's name up. `image_size`, in pixels, one number for a square or (rows, columns), is
    for what the file leaves free (default 224); `fold` is `trace`'s. Raises `InputError`, by the
    name of the file and of the node, for what cannot be read or run, an operator without an
    implementation, a file of several inputs or outputs, and a graph without a convolution or dense
    layer.
    """
    model = read_onnx(path, image_size)
    sample = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    with _naming(Path(path)):
        return trace(model.apply_fn, model.params, sample, fold=fold)


def read_onnx(path: str | Path, image_size: ImageSize | None = None) -> OnnxModel:
    """An `.onnx` file as a function and its parameters, for `trace`; see `load_onnx`.

    `apply_fn(params, images)`: float32 [B, *image_shape] -> float32 [B, classes]. It raises
    `InputError` for images of another shape.
    """
    instance("path", path, str | Path, "the path of an .onnx file")
    if image_size is not None:
        image_size = _checked(image_size)
    with _naming(Path(path)):
        graph = read_graph(Path(path))
        shape = _image_shape(graph, image_size)
        planned = plan(graph, shape)
        _refuse_no_layers(graph, planned)
        _refuse_not_finite(graph, planned)
    channels_last = len(shape) == 4 and not _channels_first(graph)
    image_shape = shape[1:] if channels_last or len(shape) == 2 else (*shape[2:], shape[1])

    def one(params: Params, image: Float[Array, "1 ..."]) -> Float[Array, "1 classes"]:
        entrance = jnp.moveaxis(image, -1, 1) if image.ndim == 4 and not channels_last else image
        logits = planned.execute(params, graph.image, entrance, graph.output)
        return _flat(logits, graph.path)

    def apply_fn(params: Params, images: Float[Array, "B ..."]) -> Float[Array, "B classes"]:
        _refuse_images(graph.path, images.shape[1:], image_shape)
        images, params = jnp.asarray(images, jnp.float32), jax.tree.map(jnp.asarray, params)
        if images.shape[0] == 1:
            return one(params, images)
        # A graph may hold a batch of one in its shapes.
        return jax.vmap(lambda image: one(params, image[None])[0])(images)

    return OnnxModel(apply_fn, planned.parameters, image_shape)


def _checked(size: Any) -> ImageSize:
    """One whole number or two, as the caller gave them."""
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2:
        raise InputError(f"image_size: needs one number, or (rows, columns), got {len(sides)}")
    return image_size(*(whole("image_size", side, 1) for side in sides))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever goes wrong is an `InputError` with the file's name: damage has as many words as
    there are libraries below. What these warn of on the way is left out: a line beside the one."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{WHERE}: {path}: {error}") from error
    except Exception as error:
        raise InputError(
            f"{WHERE}: {path} cannot be read ({one_line(error)}); export it again"
        ) from error


def _image_shape(graph: OnnxGraph, size: ImageSize | None) -> tuple[int, ...]:
    """The file's shape for one image, its free sides filled in."""
    declared = graph.image_shape
    if len(declared) == 2 and declared[1]:
        return (1, declared[1])
    axes = (2, 3) if _channels_first(graph) else (1, 2)
    channels = declared[6 - sum(axes)] if len(declared) == 4 else None
    if channels is None:
        held = " x ".join(str(size or "free") for size in declared) or "unknown shape"
        raise InputError(
            f"{WHERE}: {graph.path} reads arrays of {held}; afpjax needs images, [N, channels, "
            "rows, columns], with the channels fixed"
        )
    given = rows_columns(FREE_SIZE if size is None else size)
    rows, columns = (declared[axis] or own for axis, own in zip(axes, given, strict=True))
    own = image_size(rows, columns)
    if size is not None and own != size:
        raise InputError(
            f"{WHERE}: {graph.path} reads images of {pixels(own)} pixels, not {words(size)}; set "
            f"model.image_size to {words(own)}"
        )
    filled = [1, channels, channels, channels]
    filled[axes[0]], filled[axes[1]] = rows, columns
    return tuple(filled)


def _channels_first(graph: OnnxGraph) -> bool:
    shape = graph.image_shape
    return len(shape) < 4 or shape[1] in _CHANNELS or shape[3] not in _CHANNELS


def _flat(logits: Array, path: Path) -> Array:
    """Logits [1, classes], without axes of one pixel."""
    if logits.ndim < 2 or logits.shape[0] != 1 or any(size != 1 for size in logits.shape[2:]):
        raise InputError(
            f"{WHERE}: {path} gives {list(logits.shape)} for one image; afpjax needs logits, "
            "[N, classes]"
        )
    return logits.reshape(1, -1)


def _refuse_images(path: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        shapes = [" x ".join(map(str, shape)) for shape in (wanted, found)]
        raise InputError(f"{WHERE}: {path} takes images of {shapes[0]}, these are {shapes[1]}")


def _refuse_not_finite(graph: OnnxGraph, planned: OnnxPlan) -> None:
    for name, array in planned.parameters.items():
        if not np.isfinite(array).all():
            raise InputError(
                f"{WHERE}: {graph.path}: {name} holds NaN or infinity; export finite weights"
            )


def _refuse_no_layers(graph: OnnxGraph, planned: OnnxPlan) -> None:
    for step in planned.steps:
        weights = any(isinstance(operand, Parameter) for operand in step.operands[:2])
        if step.node.op_type in _LAYERS and weights:
            return
    raise InputError(
        f"{WHERE}: {graph.path} has no convolution or dense layer with fixed weights; "
        "afpjax places layers on devices, and this has none"
    )
