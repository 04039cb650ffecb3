"""TensorRT and TensorRT-RTX engines, built on the machine that runs them."""
