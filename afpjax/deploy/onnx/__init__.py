"""Parts of a network written as ONNX, one file for each device."""
