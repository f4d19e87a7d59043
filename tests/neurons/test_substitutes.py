"""What stands in for a lost neuron."""

import jax.numpy as jnp
import numpy as np
import pytest

from afpjax.inputs.errors import InputError
from afpjax.network.fixed_point import QFormat
from afpjax.network.interpreter import affine, execute
from afpjax.network.quantized import quantize
from afpjax.neurons.failures import substitutes


def outputs(network, images):
    """Every layer's output of all images, as the interpreter's hook sees it."""
    seen = {layer.name: [] for layer in network.layers}

    def hook(call, value, parameters):
        made = affine(call, value, parameters)
        axes = [axis for axis in range(made.ndim) if axis not in call.output_axes]
        last = jnp.transpose(made, [*axes, *call.output_axes])
        seen[call.layer.name].append(np.asarray(last).reshape(-1, call.layer.neurons))
        return made

    for image in images:
        execute(network.program, network.parameters, image, hook)
    return [np.concatenate(each) for each in seen.values()]


def test_zero_is_zero(case):
    for layer, each in zip(case.network.layers, substitutes(case.network, "zero"), strict=True):
        assert each.shape == (layer.neurons,) and not each.any()


def test_the_mean_is_over_images_and_positions(case):
    got = substitutes(case.network, "mean", case.images)
    for each, made in zip(got, outputs(case.network, jnp.asarray(case.images)), strict=True):
        np.testing.assert_allclose(each, made.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_the_mean_of_a_quantised_network_is_its_own(case):
    coarse = quantize(case.network, QFormat(bits=8, frac=3))
    assert not np.allclose(
        substitutes(coarse, "mean", case.images)[0],
        substitutes(case.network, "mean", case.images)[0],
        atol=1e-4,
    )


def test_the_bias_is_what_a_neuron_gives_whose_inputs_are_zero(case):
    network = case.network
    for call, each in zip(network.program.calls, substitutes(network, "bias"), strict=True):
        nothing = jnp.zeros(call.layer.input_shape, jnp.float32)
        made = affine(call, nothing, network.parameters.layers[call.layer.name])
        axes = [axis for axis in range(made.ndim) if axis not in call.output_axes]
        last = jnp.transpose(made, [*axes, *call.output_axes]).reshape(-1, call.layer.neurons)
        np.testing.assert_allclose(each, last[0], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "images", "said"), [("median", None, "none of"), ("mean", None, "calibration images")]
)
def test_what_cannot_be_is_refused(case, kind, images, said):
    with pytest.raises(InputError, match=said):
        substitutes(case.network, kind, images)
