"""What of a network its layers are, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np

import afpjax
from afpjax.inputs.notes import covered
from afpjax.network.trace import outline, trace

rng = np.random.default_rng(0)
WORDS, CHANNELS, PLACES, CLASSES = 50, 16, 7, 4


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


PARAMS = {
    "table": normal(WORDS, CHANNELS),
    "position": normal(1, PLACES, CHANNELS),
    "query": normal(CHANNELS, CHANNELS),
    "key": normal(CHANNELS, CHANNELS),
    "scale": normal(CHANNELS),
    "head": {"kernel": normal(CHANNELS, CLASSES), "bias": normal(CLASSES)},
    "never": normal(3),
}
SAMPLE = jax.ShapeDtypeStruct((1, PLACES), jnp.int32)


def transformer(params, words):
    x = params["table"][words] + params["position"]
    query, key = x @ params["query"], x @ params["key"]
    weights = jax.nn.softmax(jnp.einsum("btc,bsc->bts", query, key))
    x = jnp.einsum("bts,bsc->btc", weights, x)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + jnp.float32(1e-5))
    x = x * params["scale"][None, None]
    return x.mean(1) @ params["head"]["kernel"] + params["head"]["bias"][None]


def test_what_is_no_layer_is_counted_by_kind():
    found = trace(transformer, PARAMS, SAMPLE).program.coverage
    assert found.macs == 2 * PLACES * CHANNELS**2 + CHANNELS * CLASSES
    assert found.other_macs == {"products of two activations": 2 * PLACES**2 * CHANNELS}
    assert found.parameters == 2 * CHANNELS**2 + CHANNELS * CLASSES
    assert found.other_parameters == {
        "biases and scales folded into layers": CLASSES,
        "embedding tables": WORDS * CHANNELS,
        "scales, shifts and positions outside layers": (PLACES + 1) * CHANNELS,
        "unused": 3,
    }
    elements = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert found.parameters + sum(found.other_parameters.values()) == elements
    assert found.macs_share == 3648 / (3648 + 1568)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), PARAMS)
    assert outline(transformer, shapes, SAMPLE).coverage == found, "shapes alone say the same"


def test_products_in_a_loop_count_once_a_round():
    def looped(params, x):
        y = x @ params["a"]
        y = jax.lax.scan(lambda h, _: (jnp.tanh(h * (h @ h.T)), None), y[0][:, None], None, 5)[0]
        return y.T @ params["b"]

    params = {"a": normal(6, 1), "b": normal(1, 3)}
    sample = jax.ShapeDtypeStruct((1, 6), jnp.float32)
    assert trace(looped, params, sample).program.coverage.other_macs == {"loops and branches": 5}


def test_a_kernel_that_layers_share_is_one_and_folded_scales_are_named():
    def twice(params, x):
        x = jax.nn.relu(x @ params["w"] * params["s"][None])
        return jax.nn.relu(x @ params["w"] * params["s"][None]) @ params["h"]

    params = {"w": normal(8, 8), "s": normal(8), "h": normal(8, 2)}
    found = trace(twice, params, jax.ShapeDtypeStruct((1, 8), jnp.float32)).program.coverage
    assert (found.macs, found.parameters) == (144, 80)
    assert found.other_parameters == {"biases and scales folded into layers": 8}
    assert covered(found.record()).startswith("Layers have all of the multiply-accumulates")


def test_the_summary_has_every_layer_totals_and_what_is_outside():
    network = trace(transformer, PARAMS, SAMPLE)
    text = network.summary()
    for layer in network.layers:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{layer.name} "))
        assert f"{layer.macs:,}" in line and f"{layer.weights:,}" in line
    assert "3 layers" in text and "3,648" in text
    assert "Layers have 69.9 % of the multiply-accumulates" in text
    assert "products of two activations (1,568 MACs)" in text
    quantized = afpjax.quantize(network, afpjax.QFormat(12, 6))
    assert quantized.summary().startswith(text) and "bits=12, frac=6" in quantized.summary()
