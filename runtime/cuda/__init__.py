"""CUDA devices, behind cuda-core or pycuda: buffers, streams, kernels."""
