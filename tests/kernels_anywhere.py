"""Imported before any kernel: they run on the GPU where there is one, else on the CPU.

On the CPU Triton's interpreter runs them, which it decides when a kernel is defined.
"""

from __future__ import annotations

import os

import pytest

from tests.gpu_here import torch_has_a_gpu

torch = pytest.importorskip("torch")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS warns: not deterministic
DEVICE = "cuda" if torch_has_a_gpu() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
