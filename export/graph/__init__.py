"""ONNX graphs of the network: made, typed, edited, timed."""
