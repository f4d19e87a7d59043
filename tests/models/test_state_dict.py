"""Names and layouts of PyTorch: what each array is called, and that each number is in its place."""

# pyright: reportMissingImports=false
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afpjax.inputs.errors import InputError
from afpjax.models import zoo
from afpjax.models.state_dict import from_state_dict, state_dict


class Sample(nnx.Module):
    """One of every layer that the zoo has, none as large as another along any axis that matters."""

    def __init__(self, classes: int):
        rngs = nnx.Rngs(0)
        grouped = nnx.Conv(6, 10, (3, 4), feature_group_count=2, rngs=rngs)
        self.features = nnx.List([grouped, nnx.BatchNorm(10, rngs=rngs)])
        self.block = nnx.List([nnx.List([nnx.LayerNorm(10, rngs=rngs)])])
        self.layer_scale = nnx.Param(jnp.arange(10.0).reshape(10, 1, 1))
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(10, classes, rngs=rngs)


SHAPES = {
    "block.0.0.bias": (10,),
    "block.0.0.weight": (10,),
    "fc.bias": (5,),
    "fc.weight": (5, 10),
    "features.0.bias": (10,),
    "features.0.weight": (10, 3, 3, 4),
    "features.1.bias": (10,),
    "features.1.running_mean": (10,),
    "features.1.running_var": (10,),
    "features.1.weight": (10,),
    "layer_scale": (10, 1, 1),
}


def numbered(shapes):
    """Arrays of whole numbers, no two of them alike."""
    sizes = np.cumsum([0, *(np.prod(shape) for shape in shapes.values())])
    return {
        name: np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)
        for (name, shape), start in zip(shapes.items(), sizes, strict=False)
    }


def loaded(arrays, classes=5, where="here"):
    return from_state_dict(arrays, zoo.params_of(Sample(classes)), where, classes=classes)


def refusal(arrays, classes=5):
    with pytest.raises(InputError) as caught:
        loaded(arrays, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_and_shapes_are_pytorchs_and_random_state_is_no_parameter():
    params = zoo.params_of(Sample(5))
    assert {name: array.shape for name, array in state_dict(params).items()} == SHAPES
    assert "drop" not in params


def test_every_number_is_where_pytorch_has_it():
    arrays = numbered(SHAPES)
    params = loaded(arrays)
    kernel, dense = params["features"][0]["kernel"], params["fc"]["kernel"]
    assert kernel.shape == (3, 4, 3, 10)
    for o, i, r, c in np.ndindex(10, 3, 3, 4):
        assert kernel[r, c, i, o] == arrays["features.0.weight"][o, i, r, c]
    for o, i in np.ndindex(5, 10):
        assert dense[i, o] == arrays["fc.weight"][o, i]
    norm = params["features"][1]
    for name, found in {
        "layer_scale": params["layer_scale"],
        "features.1.weight": norm["scale"],
        "features.1.running_mean": norm["mean"],
        "features.1.running_var": norm["var"],
        "block.0.0.weight": params["block"][0][0]["scale"],
    }.items():
        np.testing.assert_array_equal(found, arrays[name])


def test_out_and_in_again_changes_nothing():
    params = zoo.params_of(Sample(5))
    again = loaded(state_dict(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_floats_of_any_width_and_batch_counters_are_taken(dtype):
    arrays = {n: (a / 64).astype(dtype) for n, a in numbered(SHAPES).items()}
    arrays["features.1.num_batches_tracked"] = np.array(7)
    found = loaded(arrays)["fc"]["kernel"]
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, arrays["fc.weight"].T.astype(np.float32))


def test_missing_unknown_and_wrongly_shaped_tensors_are_named_in_one_line():
    arrays = numbered(SHAPES)
    del arrays["block.0.0.weight"]
    arrays["head.weight"] = arrays["fc.bias"]
    arrays["fc.weight"] = np.zeros((10, 26), np.float32)
    arrays["fc.bias"] = np.zeros(5, np.int64)
    text = refusal(arrays)
    assert text.startswith("here; ")
    for part in (
        "missing: `block.0.0.weight`",
        "unknown: `head.weight`",
        "wrong shape: `fc.weight` is [10, 26], not [5, 10]",
        "no floats: `fc.bias` (int64)",
    ):
        assert part in text
    # A long list is cut short.
    text = refusal({"other": np.zeros(1, np.float32)})
    assert "missing: `block.0.0.bias`, `block.0.0.weight`, `fc.bias` and 8 more; unknown" in text


@pytest.mark.parametrize(
    ("name", "shape"),
    [("fc.weight", (5, 11)), ("features.1.weight", (5,)), ("fc.bias", ()), ("fc.bias", (6,))],
)
def test_other_shapes_are_not_taken_for_another_class_count(name, shape):
    """Where other tensors differ too, or two of them are for different counts."""
    text = refusal(numbered(SHAPES), classes=7)
    assert "the file is for 5 classes" in text and "set model.classes = 5" in text
    text = refusal(numbered(SHAPES) | {name: np.zeros(shape, np.float32)}, classes=7)
    assert "wrong shape: `fc.bias`" in text and "the file is for" not in text
