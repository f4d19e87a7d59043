"""The step size over a training, however short."""

# pyright: reportMissingImports=false
import numpy as np
import pytest

from afpjax.models.training.recipe import climbing


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_the_step_size_climbs_to_its_peak_and_falls_whatever_the_number_of_steps(steps):
    """A training of a single step used to end in optax's ValueError."""
    sizes = np.array([float(np.asarray(climbing(0.3, steps)(step))) for step in range(steps)])
    climb = min(max(1, round(steps / 10)), steps - 1)
    fall = 0.5 * (1 + np.cos(np.pi * np.arange(steps - climb) / (steps - climb)))
    expected = 0.3 * np.concatenate([np.arange(climb) / max(climb, 1), fall])
    np.testing.assert_allclose(sizes, expected, atol=1e-6)
