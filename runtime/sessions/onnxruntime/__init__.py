"""ONNX Runtime: on the processor, and on NVIDIA GPUs by its providers."""
