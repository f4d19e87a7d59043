"""Control flow: it runs as it is, and a layer inside it is refused by its name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from afpjax.inputs.errors import InputError
from afpjax.network.trace import trace


def _in_while(params, images):
    kernel = params["stack"]["kernel"][0]
    return lax.while_loop(lambda h: h.sum() > 1, lambda h: jnp.tanh(h @ kernel), images)


def _in_cond(params, images):
    kernel = params["stack"]["kernel"][0]
    return lax.cond(images.sum() > 0, lambda h: h, jax.jit(lambda h: h @ kernel), images)


@pytest.mark.parametrize("apply_fn", [_in_while, _in_cond])
def test_a_layer_inside_control_flow_is_refused_by_name(apply_fn, normal):
    params = {"stack": {"kernel": normal(2, 4, 4)}}
    with pytest.raises(InputError, match=r"(while|cond)` holds a layer .*stack\.kernel"):
        trace(apply_fn, params, jnp.ones((1, 4)))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Dense(8, name="first")(images.reshape((images.shape[0], -1)))
        stack = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return stack(name="stack")(hidden, None)[0]


class Block(nn.Module):
    @nn.compact
    def __call__(self, hidden, _):
        return nn.relu(nn.LayerNorm()(hidden) + nn.Dense(8, name="inner")(hidden)), None


def test_a_layer_in_a_scan_is_refused_by_its_own_name(normal):
    """The scan carries a norm's parameters as well; the message names the layer's alone."""
    shapes = jax.eval_shape(Scanned().init, jax.random.key(0), normal(1, 2, 2, 3))
    params = jax.tree.map(lambda leaf: normal(*leaf.shape), shapes)
    message = r"`scan` holds a layer \(stack\.inner: `dot_general`, kernel float32\[8,8\] of "
    with pytest.raises(InputError, match=message + r"params\.stack\.inner\.kernel\)"):
        trace(Scanned().apply, params, normal(1, 2, 2, 3))
