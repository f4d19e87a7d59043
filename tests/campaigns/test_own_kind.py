"""A kind of fault is one file: found by its name, it runs in campaigns as the others do."""

from typing import Any

import numpy as np
import pytest

from afpjax.campaigns import masks
from afpjax.campaigns.masks import Cell
from afpjax.campaigns.strata import Single, faults_of, strata
from afpjax.evaluate.evaluator import Evaluator
from afpjax.evaluate.metric import CLASS_SHIFT, OUTCOME
from afpjax.faults import bits, kinds
from afpjax.faults.model import FaultModel

from ..faults.words import draws_of, forward, kernels_of

OWN = '''\
"""A value has all of its faulty bits inverted."""

import numpy as np

from afpjax.faults.kinds import FaultKind


def word(bits):
    return np.uint32(sum(1 << bit for bit in bits))


def inject(codes, draws, bits):
    return draws.change(codes, draws.hits()[0], word(bits), "flip")


def single(start, random, width, length):
    return np.full(start.shape, 3, np.uint64)


KIND = FaultKind(inject, "value", single=single, by_bit=False)
'''


@pytest.fixture
def own_kind(tmp_path, monkeypatch):
    (tmp_path / "all_inverted.py").write_text(OWN)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    return "all-inverted"


@pytest.fixture
def evaluator(quantized, images, labels) -> Evaluator:
    return Evaluator(quantized, images, labels, 2, metric=OUTCOME)


def test_a_campaign_of_masks_runs_with_it(own_kind, evaluator, quantized, images):
    assert own_kind in kinds.names()
    faults = FaultModel(kind=own_kind, bits=(1, 7), weight_rate=0.3, activation_rate=0.0)
    cell = Cell("weights", (0, 1, 2), (0,), 0.3)
    options: dict[str, Any] = dict(trials=3, margin=0.1, confidence=0.95, advance=lambda rows: None)
    (counted,) = masks.run(evaluator, faults, [cell], **options)
    for trial, answers in enumerate(counted.answers):
        kernels = kernels_of(quantized)
        for number, (name, words) in enumerate(kernels.items()):
            (draw, _) = draws_of((2, trial, number, 0), bits.WEIGHTS, words.shape, 2)
            kernels[name] = np.where(draw < round(0.3 * 2**31), words ^ 0b10000010, words)
        said = forward(quantized.format, kernels, np.asarray(images)).argmax(1)
        np.testing.assert_array_equal(answers >> CLASS_SHIFT, said)


def test_a_campaign_of_single_faults_runs_with_it(own_kind, evaluator, quantized, images):
    every: dict[str, Any] = dict(by="network", targets=["weights"], layers=[0, 1, 2], bits=[5])
    (whole,) = strata(quantized, Single(own_kind), **every)
    assert whole.population == 144
    trials = list(faults_of(quantized, whole, range(5), seed=1))
    for fault, answers in zip(trials, evaluator.evaluate_sites(trials), strict=True):
        (((layer, _), sites),) = fault.sites.items()
        assert sites.words.tolist() == [[3]] and fault.how == "flip"
        kernels = kernels_of(quantized)
        kernels["abc"[layer]].reshape(-1)[sites.elements[0, 0]] ^= 3
        said = forward(quantized.format, kernels, np.asarray(images)).argmax(1)
        np.testing.assert_array_equal(answers >> CLASS_SHIFT, said)
