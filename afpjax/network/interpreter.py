"""The one interpreter: run a program on one image, with a hook at every layer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float, Num

from afpjax.inputs.checks import shaped
from afpjax.inputs.errors import InputError
from afpjax.network.layers import Layer, LayerGraph
from afpjax.network.program import (
    LayerCall,
    LayerParameters,
    Operand,
    Parameters,
    Program,
    Step,
    Value,
)

#: Computes a layer, from its read copy of the input and its parameters.
Hook = Callable[[LayerCall, Array, LayerParameters], Array]


def affine(call: LayerCall, image: Array, parameters: LayerParameters) -> Array:
    """The plain hook: the layer as it was traced, in float32 or wider."""
    kernel, bias = parameters
    wide = np.promote_types(image.dtype, kernel.dtype)
    output = call.linear(image.astype(wide), kernel.astype(wide))
    return output if bias is None else output + call.per_output(bias.astype(output.dtype))


def execute(
    program: Program,
    parameters: Parameters,
    image: Array,
    hook: Hook = affine,
) -> Array:
    """Logits [classes] of one image; `hook` computes every layer from its read copy of the input.

    Everything else is bound as it was traced. Map it over images with `jax.vmap`: kernels then keep
    their shape, and a convolution sees one ordinary batch. The image is cast to the dtype that the
    program was traced for. Raises `InputError` for one of another shape, or for fractions where the
    program takes integers.
    """
    environment: dict[Value, Array] = dict(
        zip(program.constants, parameters.constants, strict=True)
    )
    environment[program.image] = checked_image(program, image)
    run_steps(program.steps, environment, parameters.layers, hook)
    return _read(environment, program.output)


def run_steps(
    steps: Iterable[Step],
    environment: dict[Value, Array],
    layers: Mapping[str, LayerParameters],
    hook: Hook = affine,
) -> None:
    """Run some steps of a program on one image; `environment` gains the values that they make."""
    for step in steps:
        operands = [_read(environment, operand) for operand in step.inputs]
        if isinstance(step, LayerCall):
            output = hook(step, operands[0], layers[step.layer.name])
            environment[step.output] = output.astype(step.dtype)
        else:
            environment.update(zip(step.outputs, step.bind(*operands), strict=True))


def _read(environment: Mapping[Value, Array], operand: Operand) -> Any:
    """A value's array; a literal is a NumPy scalar."""
    return operand.val if isinstance(operand, core.Literal) else environment[operand]


def checked_image(program: Program, image: Array) -> Array:
    """One image in the dtype that the program was traced for, its shape and dtype checked."""
    if jnp.shape(image) != program.image_shape:
        raise InputError(
            f"images: one has the shape {jnp.shape(image)}, but the network takes "
            f"{program.image_shape}"
        )
    floats = [jnp.issubdtype(dtype, jnp.floating) for dtype in (image.dtype, program.image_dtype)]
    if floats == [True, False]:
        raise InputError(
            f"images: they are {image.dtype}, but the network was traced for "
            f"{program.image_dtype}; give it images of that dtype"
        )
    return image.astype(program.image_dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Network:
    """A program of layers with its folded parameters; a pytree whose leaves are the parameters."""

    program: Program = field(metadata={"static": True})
    parameters: Parameters

    @property
    def graph(self) -> LayerGraph:
        return self.program.graph

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.program.graph.layers

    def summary(self) -> str:
        """A table of the layers with totals, and what of the network is no layer."""
        return self.program.summary()

    def __call__(self, images: Num[Any, "B ..."]) -> Float[Array, "B classes"]:
        """Logits of a batch of images, in floating point, as the traced function gives them."""
        images = shaped("images", images, self.program.image_shape)
        return run_float(self.program, self.parameters, images)


@partial(jax.jit, static_argnums=0)
def run_float(
    program: Program, parameters: Parameters, images: Num[Any, "B ..."]
) -> Float[Array, "B classes"]:
    """Logits of a batch of images, without quantisation or faults."""
    return jax.vmap(lambda image: execute(program, parameters, image))(images)
