"""Wires: what crosses is what the cost model charges, as the word of the layer that reads it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.hardware import cost_tables, load_platform, mapping_cost
from afpjax.network.stages import ends, wires
from afpjax.network.trace import trace

SHAPES = dict(a=(6, 8), b=(8, 8), c=(8, 8), d=(16, 4), e=(8, 4))


def chain(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["e"]


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


NETWORKS = {each.__name__: each for each in (chain, residual, branched, compared)}


@pytest.fixture(params=NETWORKS, scope="module")
def program(request):
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in SHAPES.items()}
    return trace(NETWORKS[request.param], params, jnp.ones((1, 6))).program


def test_values_cross_as_often_as_the_cost_model_charges(program):
    platform = load_platform(["eyeriss", "simba", "simba-ecc"], "ucie")
    tables = cost_tables(program.graph, platform)
    ones = jnp.ones_like(tables.link_latency_ms)
    cost = jax.jit(lambda mapping: mapping_cost(tables._replace(link_latency_ms=ones), mapping))
    rng, crossed = np.random.default_rng(1), 0
    for _ in range(100):
        mapping = rng.integers(3, size=len(program.graph.layers))
        sent = {
            (wire.number, mapping[wire.reader])
            for wire in wires(program)
            if wire.maker >= 0 and mapping[wire.maker] != mapping[wire.reader]
        }
        assert len(sent) == int(cost(jnp.asarray(mapping, jnp.int32)).link_latency_ms)
        crossed += len(sent)
    assert crossed > 100


def test_values_are_made_and_read_where_the_graph_has_them(program):
    """Value by value: the producer, and the other layers on whose devices it is needed."""
    found = {}
    for wire in wires(program):
        maker, readers = found.setdefault(wire.number, (wire.maker, set()))
        assert maker == wire.maker
        readers.update({wire.reader} - {maker})
    sent = [(maker, tuple(sorted(readers))) for _, (maker, readers) in sorted(found.items())]
    graph = [(tensor.producer, tensor.consumers) for tensor in program.graph.tensors]
    assert [each for each in sent if each[1]] == graph


def test_each_stage_has_its_own_wires(program):
    every, at = wires(program), (0, *ends(program))
    for place in range(len(at) - 1):
        assert {wire.stage for wire in every[at[place] : at[place + 1]]} <= {place}
    assert at[-1] == len(every)


def test_a_value_has_the_word_of_the_first_layer_that_reads_it():
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in SHAPES.items()}
    every = wires(trace(branched, params, jnp.ones((1, 6))).program)
    words = {wire.number: wire.word for wire in every}
    # The image; `first`, read by b; the halves, read by d once joined; their join, by d; and the
    # heads, which no layer reads: the last one's.
    assert list(words.values()) == [0, 1, 3, 3, 3, 4, 4]
    made = {wire.number: (wire.maker, wire.by_layer) for wire in every}
    layer, join = True, False
    assert [made[number] for number in range(7)] == [
        (-1, join), (0, layer), (1, layer), (2, layer), (2, join), (3, layer), (4, layer)
    ]  # fmt: skip
