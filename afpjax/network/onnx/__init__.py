"""ONNX files as networks: read, lifted, specialised to one image size, run by JAX operators."""

from afpjax.network.onnx.load import OnnxModel, load_onnx, read_onnx
from afpjax.network.onnx.torch_module import from_torch

__all__ = ["OnnxModel", "from_torch", "load_onnx", "read_onnx"]
