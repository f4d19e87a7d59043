"""The tensors between layers: who makes them, who needs them, and how large they are."""

import jax
import jax.numpy as jnp
import pytest

from afpjax.network.layers import Tensor
from afpjax.network.trace import trace


@pytest.fixture
def tensors_of(normal):
    def make(apply_fn, **shapes):
        params = {name: normal(*shape) for name, shape in shapes.items()}
        return trace(apply_fn, params, jnp.ones((1, 3))).graph.tensors

    return make


def test_a_chain_passes_one_tensor_from_layer_to_layer(tensors_of):
    def apply_fn(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]

    assert tensors_of(apply_fn, a=(3, 8), b=(8, 5), c=(5, 2)) == (
        Tensor(-1, (0,), 3),
        Tensor(0, (1,), 8),
        Tensor(1, (2,), 5),
    )


def test_two_readers_of_one_value_share_a_tensor(tensors_of):
    def apply_fn(p, x):
        hidden = jnp.tanh(x @ p["a"])
        return hidden @ p["b"] + hidden @ p["c"]

    assert tensors_of(apply_fn, a=(3, 8), b=(8, 2), c=(8, 2)) == (
        Tensor(-1, (0,), 3),
        Tensor(0, (1, 2), 8),
        Tensor(1, (2,), 2),  # the sum runs where layer 2 runs
    )


def test_the_input_goes_to_every_layer_and_join_that_reads_it(tensors_of):
    def apply_fn(p, x):
        return (x + x @ p["a"]) @ p["b"] + x @ p["c"]

    assert tensors_of(apply_fn, a=(3, 3), b=(3, 2), c=(3, 2)) == (
        Tensor(-1, (0, 2), 3),
        Tensor(0, (1,), 3),
        Tensor(1, (2,), 2),
    )


def test_what_is_sent_is_what_was_made_last_not_what_a_layer_wrote(tensors_of):
    """Pooling runs where its layer runs: four numbers cross, not sixteen."""

    def apply_fn(p, x):
        pooled = (x @ p["a"]).reshape(x.shape[0], 4, 4).max(2)
        return pooled @ p["b"]

    assert tensors_of(apply_fn, a=(3, 16), b=(4, 2))[1] == Tensor(0, (1,), 4)


def test_concatenation_needs_all_but_its_last_operand_sent(tensors_of):
    def apply_fn(p, x):
        first = x @ p["a"]
        second = first @ p["b"]
        third = second @ p["c"]
        return jnp.concatenate([first, second, third], axis=1) @ p["d"]

    assert tensors_of(apply_fn, a=(3, 4), b=(4, 5), c=(5, 6), d=(15, 2)) == (
        Tensor(-1, (0,), 3),
        Tensor(0, (1, 2), 4),
        Tensor(1, (2,), 5),
        Tensor(2, (3,), 15),
    )


def test_parameters_and_what_is_made_of_them_cross_nothing(tensors_of):
    def apply_fn(p, x):
        scaled = jnp.broadcast_to(p["s"], (1, 4)) * 2
        return jnp.tanh(jnp.tanh(x @ p["a"]) * scaled) @ p["b"]

    assert tensors_of(apply_fn, a=(3, 4), s=(1, 4), b=(4, 2)) == (
        Tensor(-1, (0,), 3),
        Tensor(0, (1,), 4),
    )
