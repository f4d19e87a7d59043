"""Single faults: a forward pass in NumPy with one bit of one stored weight flipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.evaluate.evaluator import Evaluator
from afpjax.faults.model import FaultModel, thresholds
from afpjax.faults.sites import Fault, Site, check_site
from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import quantize
from afpjax.network.trace import trace


def one_by_one(sites):
    return [Fault.at(site) for site in sites]


def test_elements_of_a_convolution_are_counted_row_by_row():
    """A 1x2 kernel over two pixels, written out; a constant scale, two's complement, and the bias.

    The kernel is [1, 2, 3, 2]: elements run over taps, then channels in, then channels out.
    """
    rng = np.random.default_rng(1)
    kernel = rng.integers(-40, 40, (1, 2, 3, 2)) / 16
    x = rng.integers(-40, 40, (30, 1, 2, 3)) / 16
    layout = ("NHWC", "HWIO", "NHWC")

    def apply_fn(p, x):
        made = jax.lax.conv_general_dilated(x, p, (1, 1), "VALID", dimension_numbers=layout)
        return made.reshape(-1, 2) + jnp.asarray([[0.25, -0.5]])

    network = trace(apply_fn, jnp.asarray(kernel, jnp.float32), jnp.ones((1, 1, 2, 3)))
    quantized = quantize(network, QFormat(8, 4))
    assert [layer.kind for layer in network.layers] == ["conv"]

    def logits(codes):
        values = np.where(codes > 127, codes - 256, codes).reshape(6, 2) / 16
        return x.reshape(-1, 6) @ values + [0.25, -0.5]

    codes = (kernel * 16).astype(int).reshape(-1) & 255
    labels = logits(codes).argmax(1).astype(np.int32)
    sites = [Site(0, element, bit) for element in range(12) for bit in range(8)]
    expected = []
    for site in sites:
        struck = codes.copy()
        struck[site.element] ^= 1 << site.bit
        expected.append(logits(struck).argmax(1) == labels)
    evaluator = Evaluator(quantized, jnp.asarray(x, jnp.float32), labels, 0)
    got = evaluator.evaluate_sites(one_by_one(sites))
    np.testing.assert_array_equal(got, np.stack(expected))
    assert not got.all()


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site(3, 0, 0), "the network has the layers 0 to 2"),
        (Site(-1, 0, 0), "the network has the layers 0 to 2"),
        (Site(1, 64, 0), "layer `b` has weights 0 to 63"),
        (Site(0, 47, 16), "the format has the bits 0 to 15"),
    ],
)
def test_sites_that_do_not_exist_are_refused_in_one_line(quantized, site, message):
    with pytest.raises(InputError, match=message) as raised:
        check_site(site, quantized.layers, 16)
    assert str(raised.value).startswith(f"Site(layer={site.layer}, element={site.element}, bit=")
    assert "\n" not in str(raised.value)


def test_sites_are_remembered_and_equal_ones_run_once(quantized, images, labels):
    """Those named by NumPy's integers too; and no sites have no answers."""
    memory: dict[bytes, bytes] = {}
    evaluator = Evaluator(quantized, images, labels, 0, memory=memory)
    sites = [Site(0, 3, 15), Site(2, 5, 14), Site(*np.array([0, 3, 15]))]
    counted: list[int] = []
    seen = evaluator.evaluate_sites(one_by_one(sites), counted.append)
    assert evaluator.evaluations == len(memory) == 2 and sum(counted) == 3
    np.testing.assert_array_equal(seen[0], seen[2])
    assert repr(sites[2]) == repr(sites[0])
    again = Evaluator(quantized, images, labels, 0, memory=memory)
    np.testing.assert_array_equal(again.evaluate_sites(one_by_one(sites[::-1])), seen[::-1])
    assert again.evaluations == 0
    assert again.evaluate_sites([]).shape == (0, len(images))


def test_sites_and_draws_do_not_get_in_each_others_way(quantized, images, labels):
    """One memory for both: what is asked for last has the answer that it has alone."""
    faults = FaultModel(weight_rate=0.3, activation_rate=0.3)
    limits = thresholds(faults, quantized, np.zeros((1, 3), np.int32))
    alone = Evaluator(quantized, images, labels, 4).evaluate(faults, limits, [0, 1])
    evaluator = Evaluator(quantized, images, labels, 4)
    at = evaluator.evaluate_sites(one_by_one([Site(0, 0, 15)]))
    clean = evaluator.clean()
    np.testing.assert_array_equal(evaluator.evaluate(faults, limits, [0, 1]), alone)
    np.testing.assert_array_equal(evaluator.evaluate_sites(one_by_one([Site(0, 0, 15)])), at)
    np.testing.assert_array_equal(clean, np.asarray(quantized(images)).argmax(1) == labels)
