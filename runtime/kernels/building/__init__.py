"""Compiles the kernels, and runs them without a GPU; for development and training."""
