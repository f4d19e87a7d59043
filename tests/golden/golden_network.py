"""A network for golden runs: a residual, a depthwise layer and two branches, on 16-pixel digits.

Its weights are kept beside it, as training rounds differently on other machines:
`python tests/golden/golden_network.py` makes them anew.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHAPES: dict[str, tuple[int, ...]] = {
    "stem": (3, 3, 3, 8),
    "block": (3, 3, 8, 8),
    "depthwise": (3, 3, 1, 8),
    "pointwise": (1, 1, 8, 16),
    "left": (1, 1, 16, 8),
    "right": (3, 3, 16, 8),
    "head": (16, 10),
}
WEIGHTS = Path(__file__).with_name("golden_weights.npz")


def _convolved(value, kernel, stride=1, groups=1):
    return lax.conv_general_dilated(
        value,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def logits(params, images):
    def biased(name, value):
        return value + params[f"{name}_bias"].reshape((1,) * (value.ndim - 1) + (-1,))

    value = jax.nn.relu(biased("stem", _convolved(images, params["stem"], 2)))
    value = jax.nn.relu(biased("block", value + _convolved(value, params["block"])))
    value = jax.nn.relu(_convolved(value, params["depthwise"], 2, groups=8))
    value = jax.nn.relu(biased("pointwise", _convolved(value, params["pointwise"])))
    branches = [_convolved(value, params[name]) for name in ("left", "right")]
    value = jax.nn.relu(jnp.concatenate(branches, axis=-1)).mean(axis=(1, 2))
    return biased("head", value @ params["head"])


def network() -> tuple[Any, dict[str, Any]]:
    with np.load(WEIGHTS) as file:
        return logits, {name: jnp.asarray(file[name]) for name in file.files}


def _train() -> None:
    import optax

    from afpjax.config.config import load
    from afpjax.config.work import SILENT, Work
    from afpjax.experiment import prepare

    experiment = prepare(load(WEIGHTS.with_name("golden.toml"), {}), Work({}, SILENT))
    training, test = experiment.train, experiment.dataset.test
    assert training is not None
    known, others = (each.take(np.arange(len(each))) for each in (training, test))
    images, labels = np.asarray(experiment.inputs(known)), known.labels
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32)
        for name, s in SHAPES.items()
    }
    for name in ("stem", "block", "pointwise", "head"):
        params[f"{name}_bias"] = jnp.zeros(SHAPES[name][-1], jnp.float32)
    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, 1500))
    state = optimiser.init(params)

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            found = optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
            return found.mean()

        change, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, change), state

    for _ in range(1500):
        chosen = rng.integers(0, len(images), 64)
        params, state = step(params, state, images[chosen], labels[chosen])
    kept = {name: np.round(np.asarray(value) * 4096) / 4096 for name, value in params.items()}
    found = np.asarray(logits(kept, experiment.inputs(others))).argmax(axis=1)
    print(f"{(found == others.labels).mean():.3f} of {len(found)} test images are right")
    np.savez_compressed(WEIGHTS, **{n: v.astype(np.float32) for n, v in kept.items()})  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    _train()
