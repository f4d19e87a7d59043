"""PyTorch's layers in NumPy, in its layouts (NCHW, OIHW): what the zoo is held against."""

# pyright: reportMissingImports=false
import jax
import numpy as np
from scipy.special import erf

from afpjax.models import zoo

#: What runs once need not run fast.
QUICK = {"xla_backend_optimization_level": 0}


def drawn(name, *, image_size, width, classes=5, seed=0):
    """A network whose every array is drawn, as (apply_fn, params, `Layers` of the same arrays)."""
    size = dict(classes=classes, width=width)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        last = jax.tree_util.keystr(path[-1:], simple=True)
        if last == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        if last in ("scale", "var", "layer_scale"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(0, 0.1, leaf.shape)

    shapes = zoo.params_of(zoo._abstract(name, **size))
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw(path, leaf).astype(np.float32), shapes
    )
    apply_fn = zoo.apply_fn_of(name, image_size=image_size, **size)
    return apply_fn, params, Layers(zoo.state_dict(params))


def images(size):
    """Two images [2, 3, size, size]."""
    return np.random.default_rng(size).normal(size=(2, 3, size, size)).astype(np.float32)


def assert_same(network, forward, size):
    """The zoo's logits are those of `forward(layers, images)`, which reads every array."""
    apply_fn, params, layers = network
    quick = jax.jit(apply_fn, compiler_options=QUICK)
    got = quick(params, images(size).transpose(0, 2, 3, 1))
    expected = forward(layers, images(size).astype(np.float64))
    assert got.shape == expected.shape
    assert layers.read == set(layers.arrays), "arrays that torchvision's network does not have"
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


class Layers:
    """A state dict's layers, by their dotted names; `read` is what was asked for."""

    def __init__(self, arrays):
        self.arrays, self.read = arrays, set()

    def __call__(self, name):
        self.read.add(name)
        return self.arrays[name].astype(np.float64)

    def conv(self, name, x, *, stride=1, padding=0, bias=True):
        kernel = self(f"{name}.weight")
        outputs, inputs, *window = kernel.shape
        groups = x.shape[1] // inputs
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        rows, columns = ((n - w) // stride + 1 for n, w in zip(x.shape[2:], window, strict=True))
        kernel = kernel.reshape(groups, outputs // groups, inputs, *window)
        made = np.zeros((len(x), groups, outputs // groups, rows * columns))
        for r, c in np.ndindex(*window):
            read = x[:, :, r : r + rows * stride : stride, c : c + columns * stride : stride]
            read = read[:, :, :rows, :columns].reshape(len(x), groups, inputs, rows * columns)
            made += kernel[:, :, :, r, c] @ read
        made = made.reshape(len(x), outputs, rows, columns)
        return made + self(f"{name}.bias")[:, None, None] if bias else made

    def linear(self, name, x):
        return x @ self(f"{name}.weight").T + self(f"{name}.bias")

    def batch_norm(self, name, x):
        mean, var = self(f"{name}.running_mean"), self(f"{name}.running_var")
        factor = self(f"{name}.weight") / np.sqrt(var + 1e-5)
        shift = self(f"{name}.bias") - mean * factor
        return x * factor[:, None, None] + shift[:, None, None]

    def layer_norm(self, name, x):
        """Over the channels, axis 1."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        return x * self(f"{name}.weight").reshape(shape) + self(f"{name}.bias").reshape(shape)


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def max_pool(x, window, stride, *, ceil=False):
    """PyTorch's rule: with `ceil`, windows may hang over the edge but must start inside."""
    rounded = np.ceil if ceil else np.floor
    sizes = [int(rounded((n - window) / stride)) + 1 for n in x.shape[2:]]
    sizes = [s - ((s - 1) * stride >= n) for s, n in zip(sizes, x.shape[2:], strict=True)]
    made = np.zeros((*x.shape[:2], *sizes))
    for r, c in np.ndindex(*sizes):
        top, left = r * stride, c * stride
        made[:, :, r, c] = x[:, :, top : top + window, left : left + window].max((2, 3))
    return made


def average_to(x, size):
    """PyTorch's adaptive averages: each bin from floor to ceil of its share of the pixels."""
    made = np.zeros((*x.shape[:2], size, size))
    for r, c in np.ndindex(size, size):
        (top, bottom), (left, right) = (
            (int(np.floor(i * n / size)), int(np.ceil((i + 1) * n / size)))
            for i, n in ((r, x.shape[2]), (c, x.shape[3]))
        )
        made[:, :, r, c] = x[:, :, top:bottom, left:right].mean((2, 3))
    return made
