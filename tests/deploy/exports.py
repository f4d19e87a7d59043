"""Exports made in memory, and what onnxruntime makes of them."""

import numpy as np

from afpjax.deploy.local_runner import LocalRunner
from afpjax.deploy.onnx.export import ExportedFiles, ExportInfo, export_mapping, export_placement
from afpjax.network.fixed_point import QFormat
from afpjax.network.quantized import Quantized, quantize
from afpjax.network.trace import trace

ABOUT = ExportInfo("toy", (0.5,), (0.25,), "given")
FLOAT = QFormat(kind="float32")
NAMES = ("edge", "hub", "spare")


def drawn(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def quantized_of(apply_fn, params, images, fmt=FLOAT) -> Quantized:
    return quantize(trace(apply_fn, params, images), fmt, images)


def mapped(quantized, mapping=None, *, devices=NAMES, batch=1) -> ExportedFiles:
    """One device after the other, unless a mapping is given."""
    if mapping is None:
        mapping = np.arange(len(quantized.layers)) % len(devices)
    return export_mapping(quantized, np.asarray(mapping), devices, ABOUT, batch=batch)


def placed(quantized, placement, substitutes, *, devices=NAMES, batch=1) -> ExportedFiles:
    return export_placement(quantized, placement, substitutes, devices, ABOUT, batch=batch)


def runner_of(exported: ExportedFiles) -> LocalRunner:
    return LocalRunner(exported.manifest, exported.files, threads=1)


def assert_near(got, expected, tolerance=1e-5):
    """Within a share of the range of what is expected."""
    expected = np.asarray(expected)
    span = float(np.ptp(expected)) or 1.0
    np.testing.assert_allclose(got, expected, atol=tolerance * span, rtol=0)
