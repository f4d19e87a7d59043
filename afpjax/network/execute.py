"""The one interpreter: run a program on one image, with a hook at every layer."""

from collections.abc import Callable

from jax.extend import core
from jaxtyping import Array

from afpjax.network.program import (
    LayerCall,
    LayerParameters,
    Operand,
    Parameters,
    Program,
    Value,
)

Hook = Callable[[LayerCall, Array, LayerParameters], Array]


def affine(call: LayerCall, image: Array, parameters: LayerParameters) -> Array:
    """The plain hook: the layer as it was traced, in the image's dtype."""
    kernel, bias = parameters
    output = call.linear(image, kernel.astype(image.dtype))
    return output if bias is None else output + call.per_output(bias.astype(output.dtype))


def execute(program: Program, parameters: Parameters, image: Array, hook: Hook = affine) -> Array:
    """Logits [classes] of one image; `hook` computes every layer from its read copy of the input.

    Everything else is bound as it was traced. Map it over images with `jax.vmap`: kernels then
    keep their shape, and a convolution sees one ordinary batch.
    """
    environment: dict[Value, Array] = dict(
        zip(program.constants, parameters.constants, strict=True)
    )
    environment[program.image] = image

    def read(operand: Operand) -> Array:
        return operand.val if isinstance(operand, core.Literal) else environment[operand]

    for step in program.steps:
        if isinstance(step, LayerCall):
            layer = parameters.layers[step.layer.name]
            environment[step.output] = hook(step, read(step.input), layer)
        else:
            outputs = step.bind(*map(read, step.inputs))
            environment.update(zip(step.outputs, outputs, strict=True))
    return read(program.output)
