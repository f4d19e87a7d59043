"""Which layer should be protected first?  The gradient of accuracy by each layer's fault rate.

python examples/gradient_by_rate.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import afpjax


def logits(params, pixels):
    for kernel in params["hidden"]:
        pixels = jax.nn.relu(pixels @ kernel)
    return pixels @ params["head"]


def entropy(params, pixels, digits):
    each = optax.softmax_cross_entropy_with_integer_labels(logits(params, pixels), digits)
    return each.mean()


pixels, digits = (jnp.asarray(each) for each in load_digits(return_X_y=True))
pixels = pixels.astype(jnp.float32) / 16
draw = np.random.default_rng(0).normal
params = {
    "hidden": [jnp.asarray(draw(size=(a, b)) / 8, jnp.float32) for a, b in ((64, 32), (32, 32))],
    "head": jnp.asarray(draw(size=(32, 10)) / 6, jnp.float32),
}
optimiser = optax.adam(1e-2)
state = optimiser.init(params)
for _ in range(200):
    updates, state = optimiser.update(jax.grad(entropy)(params, pixels, digits), state)
    params = optax.apply_updates(params, updates)
int8 = afpjax.quantize(afpjax.trace(logits, params, pixels[:1]), afpjax.QFormat(8, 4))


def accuracy(logits, digits):
    return (logits.argmax(axis=1) == digits).astype(jnp.float32)


@jax.jit
def under_faults(rates):  # of each layer's weights, in bit 6
    return afpjax.expected_metric(
        accuracy, int8, pixels[:200], digits[:200], weight_rate=rates, bits=(6,), trials=1024
    )


rates = jnp.full(3, 0.003)
print(f"accuracy at 0.3 % in every layer: {under_faults(rates):.3f}")
for layer, slope in zip(int8.layers, jax.grad(under_faults)(rates), strict=True):
    print(f"{layer.name}: {slope / 1000:+.4f} for each 0.1 % more flips")
