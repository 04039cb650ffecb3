"""Builds TensorRT engines from ONNX, with either library."""
