"""A traced network: its program and its parameters, ready to run."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float, Num

from afpjax.inputs.checks import shaped
from afpjax.network.execute import execute
from afpjax.network.layers import Layer, LayerGraph
from afpjax.network.program import Parameters, Program
from afpjax.network.summary import summary


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
        return summary(self.program)

    def __call__(self, images: Num[Any, "B ..."]) -> Float[Array, "B classes"]:
        """Logits of a batch of images, in floating point, as the traced function gives them."""
        images = shaped("images", images, self.program.image_shape)
        return run(self.program, self.parameters, images)


@partial(jax.jit, static_argnums=0)
def run(
    program: Program, parameters: Parameters, images: Num[Any, "B ..."]
) -> Float[Array, "B classes"]:
    """Run a program without quantisation or faults."""
    return jax.vmap(lambda image: execute(program, parameters, image))(images)
