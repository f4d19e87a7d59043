"""Fault-aware placement of neural networks on edge accelerators."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from afpjax.network.start import prepare

if TYPE_CHECKING:
    from afpjax.command.functions import campaign as campaign
    from afpjax.command.functions import export as export
    from afpjax.command.functions import online_phase as online_phase
    from afpjax.command.functions import profile as profile
    from afpjax.command.functions import run_job as run_job
    from afpjax.evaluate.evaluator import accuracy as accuracy
    from afpjax.evaluate.expected import expected_metric as expected_metric
    from afpjax.faults.model import FaultModel as FaultModel
    from afpjax.hardware.platform import Platform as Platform
    from afpjax.hardware.platform import load_platform as load_platform
    from afpjax.inputs.errors import InputError as InputError
    from afpjax.network.fixed_point import QFormat as QFormat
    from afpjax.network.interpreter import Network as Network
    from afpjax.network.onnx import from_torch as from_torch
    from afpjax.network.onnx import load_onnx as load_onnx
    from afpjax.network.quantized import Quantized as Quantized
    from afpjax.network.quantized import quantize as quantize
    from afpjax.network.trace import trace as trace
    from afpjax.network.trace import trace_with_refold as trace_with_refold
    from afpjax.neurons.distribute import distribute as distribute
    from afpjax.neurons.importance import importance as importance
    from afpjax.neurons.placement import Placement as Placement
    from afpjax.search.partition import Front as Front
    from afpjax.search.partition import partition as partition

__version__ = "0.11.0"

prepare(os.environ)

# Imported at first use: `python -m afpjax.run --help` must not wait for JAX.
_HOMES = {
    "campaign": "command.functions",
    "export": "command.functions",
    "online_phase": "command.functions",
    "profile": "command.functions",
    "run_job": "command.functions",
    "InputError": "inputs.errors",
    "accuracy": "evaluate.evaluator",
    "expected_metric": "evaluate.expected",
    "FaultModel": "faults.model",
    "Platform": "hardware.platform",
    "load_platform": "hardware.platform",
    "QFormat": "network.fixed_point",
    "Network": "network.interpreter",
    "from_torch": "network.onnx",
    "load_onnx": "network.onnx",
    "Quantized": "network.quantized",
    "quantize": "network.quantized",
    "trace": "network.trace",
    "trace_with_refold": "network.trace",
    "distribute": "neurons.distribute",
    "importance": "neurons.importance",
    "Placement": "neurons.placement",
    "Front": "search.partition",
    "partition": "search.partition",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "models":
        return import_module(f"{__name__}.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
