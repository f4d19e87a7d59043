"""ONNX files as networks: read, lifted, specialised to one image size, run by JAX operators."""

from afpjax.network.onnx.load import OnnxModel, load_onnx, read_onnx

__all__ = ["OnnxModel", "load_onnx", "read_onnx"]
