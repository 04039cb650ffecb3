"""Slides on several GPUs or machines, by Ray."""
