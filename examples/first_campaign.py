"""A fault campaign on a network of one's own, in memory: no file, no command.

python examples/first_campaign.py
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import afpjax


def logits(params, pixels):
    hidden = jax.nn.relu(pixels @ params["hidden"])
    return hidden @ params["head"]


def trained(params, pixels, digits, steps=200):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, pixels), digits
        ).mean()

    optimiser = optax.adam(1e-2)
    state = optimiser.init(params)
    for _ in range(steps):
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, updates)
    return params


pixels, digits = (jnp.asarray(each) for each in load_digits(return_X_y=True))
pixels = pixels.astype(jnp.float32) / 16
keys = jax.random.split(jax.random.key(0))
start = {
    "hidden": jax.random.normal(keys[0], (64, 32)) / 8,
    "head": jax.random.normal(keys[1], (32, 10)) / 6,
}
network = afpjax.trace(logits, trained(start, pixels[:1000], digits[:1000]), pixels[:1])
int8 = afpjax.quantize(network, afpjax.QFormat(8, scale="tensor"), pixels[:1000])

result = afpjax.campaign(int8, pixels[1000:], digits[1000:], margin=0.05)
for cell in sorted(result.cells, key=lambda cell: -cell.sdc_rate.value)[:5]:
    rate = cell.sdc_rate
    print(f"{cell.layer} bit {cell.bit}: {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]")
