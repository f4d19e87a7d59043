"""Tensors between layers and values that cross a link: who makes them, and who needs them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.network.layers import Tensor
from afpjax.network.stages import transfer_ends, transfers
from afpjax.network.trace import trace

SHAPES = dict(a=(6, 8), b=(8, 8), c=(8, 8), d=(16, 4), e=(8, 4))


def program_of(apply_fn, shapes=SHAPES):
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    return trace(apply_fn, params, jnp.ones((1, 6))).program


def two_heads(hidden, p):
    return hidden @ p["b"] + hidden @ p["c"]


def joined(first, p):
    second = first @ p["b"]
    return jnp.concatenate([first, second, second @ p["c"]], axis=1)


#: Sizes of kernels, a function, and the tensors counted by hand.
TENSORS = {
    "a chain passes one tensor from layer to layer": (
        dict(a=(6, 8), b=(8, 5), c=(5, 2)),
        lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"],
        [Tensor(-1, (0,), 6), Tensor(0, (1,), 8), Tensor(1, (2,), 5)],
    ),
    "two readers of one value share a tensor; the sum runs where layer 2 runs": (
        dict(a=(6, 8), b=(8, 2), c=(8, 2)),
        lambda p, x: two_heads(jnp.tanh(x @ p["a"]), p),
        [Tensor(-1, (0,), 6), Tensor(0, (1, 2), 8), Tensor(1, (2,), 2)],
    ),
    "the input goes to every layer and join that reads it": (
        dict(a=(6, 6), b=(6, 2), c=(6, 2)),
        lambda p, x: (x + x @ p["a"]) @ p["b"] + x @ p["c"],
        [Tensor(-1, (0, 2), 6), Tensor(0, (1,), 6), Tensor(1, (2,), 2)],
    ),
    "pooling runs where its layer runs: four numbers cross, not sixteen": (
        dict(a=(6, 16), b=(4, 2)),
        lambda p, x: (x @ p["a"]).reshape(x.shape[0], 4, 4).max(2) @ p["b"],
        [Tensor(-1, (0,), 6), Tensor(0, (1,), 4)],
    ),
    "a concatenation needs all but its last operand sent": (
        dict(a=(6, 4), b=(4, 5), c=(5, 6), d=(15, 2)),
        lambda p, x: joined(x @ p["a"], p) @ p["d"],
        [Tensor(-1, (0,), 6), Tensor(0, (1, 2), 4), Tensor(1, (2,), 5), Tensor(2, (3,), 15)],
    ),
    "parameters and what is made of them cross nothing": (
        dict(a=(6, 4), s=(1, 4), b=(4, 2)),
        lambda p, x: (
            jnp.tanh(jnp.tanh(x @ p["a"]) * (jnp.broadcast_to(p["s"], (1, 4)) * 2)) @ p["b"]
        ),
        [Tensor(-1, (0,), 6), Tensor(0, (1,), 4)],
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_those_counted_by_hand(name):
    shapes, apply_fn, tensors = TENSORS[name]
    assert program_of(apply_fn, shapes).graph.tensors == tuple(tensors)


def residual(p, x):
    first = jax.nn.relu(x @ p["a"])
    second = jax.nn.relu(first @ p["b"]) + first
    return (jax.nn.relu(second @ p["c"]) + second + first) @ p["e"]


def branched(p, x):
    """A value with three readers, a concatenation that runs on its own, a sum of two heads."""
    first = jax.nn.relu(x @ p["a"])
    both = jnp.concatenate([first @ p["b"], jnp.tanh(first @ p["c"])], axis=1)
    return both @ p["d"] + first @ p["e"]


def compared(p, x):
    """The image goes to two layers and a join, and a comparison's outcome to another."""
    first = x @ p["a"]
    chosen = jnp.where(first > 0, first @ p["b"], first)
    return (chosen + x[:, :1]) @ p["e"] + jnp.tile(x, 2)[:, :8] @ p["c"][:, :4]


@pytest.fixture(params=[residual, branched, compared], scope="module")
def program(request):
    return program_of(request.param)


def test_values_are_made_and_read_where_the_graph_has_them(program):
    """Value by value: the producer, and the other layers on whose devices it is needed."""
    values = {}
    for transfer in transfers(program):
        maker, readers = values.setdefault(transfer.number, (transfer.maker, set()))
        assert maker == transfer.maker
        readers.update({transfer.reader} - {maker})
    sent = [(maker, tuple(sorted(readers))) for _, (maker, readers) in sorted(values.items())]
    graph = [(tensor.producer, tensor.consumers) for tensor in program.graph.tensors]
    assert [value for value in sent if value[1]] == graph


def test_each_stage_has_its_own_transfers(program):
    every, ends = transfers(program), (0, *transfer_ends(program))
    for stage in range(len(ends) - 1):
        assert {transfer.stage for transfer in every[ends[stage] : ends[stage + 1]]} <= {stage}
    assert ends[-1] == len(every)


def test_a_value_has_the_word_of_the_first_layer_that_reads_it():
    every = transfers(program_of(branched))
    words = {transfer.number: transfer.word for transfer in every}
    # The image; `first`, read by b; the halves, read by d once joined; their join, by d; and the
    # heads, which no layer reads: the last one's.
    assert list(words.values()) == [0, 1, 3, 3, 3, 4, 4]
    made = {transfer.number: (transfer.maker, transfer.by_layer) for transfer in every}
    layer, join = True, False
    assert [made[number] for number in range(7)] == [
        (-1, join), (0, layer), (1, layer), (2, layer), (2, join), (3, layer), (4, layer)
    ]  # fmt: skip
