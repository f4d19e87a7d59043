"""Pooling against loops that follow PyTorch's documentation."""

# pyright: reportMissingImports=false
import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.models import pooling

from . import plain


def numbers(rows, columns):
    return np.random.default_rng(0).normal(size=(2, rows, columns, 3)).astype(np.float32) - 3


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (5, 4)])
def test_max_pools_are_pytorchs_at_every_size(window, stride, ceil):
    for rows in (1, 4, 5, 6, 7, 11):
        x = numbers(rows, 12 + window - rows)
        expected = plain.max_pool(x.transpose(0, 3, 1, 2), window, stride, ceil=ceil)
        got = pooling.max_pool(jnp.asarray(x), window, stride, ceil=ceil)
        np.testing.assert_array_equal(got, expected.transpose(0, 2, 3, 1))


def test_averages_are_pytorchs_where_bins_divide_overlap_and_repeat():
    for rows in (1, 4, 6, 12, 13):
        x = numbers(rows, 15 - rows)
        expected = plain.average_to(x.transpose(0, 3, 1, 2).astype(np.float64), 6)
        got = pooling.average_to(jnp.asarray(x), 6)
        np.testing.assert_allclose(got, expected.transpose(0, 2, 3, 1), rtol=1e-6)
