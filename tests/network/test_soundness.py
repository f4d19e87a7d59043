"""Guessing is said of networks that guess and of no other; a format that decides is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import afpjax
from afpjax.network import soundness

CLASSES, PIXELS = 10, 12
rng = np.random.default_rng(0)
CENTRES = rng.normal(size=(CLASSES, PIXELS)).astype(np.float32)
LABELS = rng.integers(0, CLASSES, 128).astype(np.int32)
IMAGES = CENTRES[LABELS] + 0.2 * rng.normal(size=(128, PIXELS)).astype(np.float32)
PARAMS = {"first": np.eye(PIXELS, dtype=np.float32), "last": CENTRES.T.copy()}
SAMPLE = jax.ShapeDtypeStruct((1, PIXELS), jnp.float32)


def apply_fn(params, images):
    """The nearest centre: a classifier that is nearly always right."""
    bias = -(CENTRES**2).sum(axis=1)[None] / 2
    return images @ params["first"] @ params["last"] + bias


@pytest.fixture(scope="module")
def network():
    return afpjax.trace(apply_fn, PARAMS, SAMPLE)


@pytest.fixture(scope="module")
def quantized(network):
    return afpjax.quantize(network, afpjax.QFormat(16, 8))


def kinds(found):
    return [note.kind for note in found]


def test_a_sound_network_needs_no_note(quantized):
    assert soundness.notes(quantized, IMAGES, LABELS) == []


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_counted_from_another_number_are_found(quantized, shift):
    kept = (LABELS + shift >= 0) & (LABELS + shift < CLASSES)
    (note,) = soundness.notes(quantized, IMAGES[kept], LABELS[kept] + shift)
    assert note.kind == "chance" and note.facts["accuracy"] < 0.1
    assert f"the answers are the labels {-shift:+d} for" in note.text


def test_another_scale_is_found(quantized):
    raw = 100 - 40 * IMAGES
    own = {"its own scale": lambda: IMAGES}
    note, saturated = soundness.notes(quantized, raw, LABELS, readings=own)
    assert saturated.kind == "format"
    assert "with its own scale it gets" in note.text and note.kind == "chance"


def test_likely_causes_are_named_where_none_is_found(quantized):
    mixed = rng.permutation(LABELS)
    (note,) = soundness.notes(quantized, IMAGES, mixed)
    for cause in ("labels counted from another", "data.mean", "NCHW", "never trained"):
        assert cause in note.text
    assert "\n" not in note.text


@pytest.mark.parametrize(("classes", "share"), [(10, 0.1), (2, 0.5), (1000, 0.002), (4, 0.7)])
def test_guessing_is_said_of_guesses_and_never_of_a_few_unlucky_images(classes, share):
    """Exactly, by summing over all outcomes: binomial probabilities of saying so."""
    better = share + (1 - share) * max(0.15, share)
    for count in (1, 2, 5, 10, 30, 64, 256, 1000):
        said = [k for k in range(count + 1) if soundness.is_guessing(k, count, share)]
        assert stats.binom.pmf(said, count, better).sum() <= 0.001
        if count <= 5 and share < 0.2:
            assert not said
    at_256 = [k for k in range(257) if soundness.is_guessing(k, 256, share)]
    assert stats.binom.pmf(at_256, 256, share).sum() >= 0.9


def test_a_format_that_values_leave_is_named_with_one_that_does(network):
    """Inputs up to 20 in Q2.6: most of them saturate; fraction bits by range would do."""
    scaled = {**PARAMS, "first": PARAMS["first"] / 16}
    wide = afpjax.trace(apply_fn, scaled, SAMPLE)
    narrow = afpjax.quantize(wide, afpjax.QFormat(8, 6))
    (note,) = soundness.notes(narrow, IMAGES * 16, LABELS)
    assert note.kind == "format"
    assert note.facts["accuracy"] < note.facts["float_accuracy"] - 0.1
    beyond = (np.abs(IMAGES * 16) > 127.5 / 64).mean()
    assert note.facts["saturated"]["first"] == pytest.approx(beyond, abs=1e-6) and beyond > 0.5
    assert "first (" in note.text
    instead = {"format.bits = 8, format.frac = 1", "format.bits = 8, format.scale = tensor"}
    instead |= {"format.bits = 8, format.scale = channel", "format.bits = 16, format.frac = 9"}
    assert note.facts["instead"] in instead and "measured on these images" in note.text
    assert note.facts["accuracy_instead"] >= note.facts["float_accuracy"] - 0.02
