"""Puts the stand-in for a GPU, and for both libraries that can drive it, in place."""

from __future__ import annotations

import sys

import pytest

from sshr_deploy.runtime.cuda import pycuda as pycuda_device
from tests.runtime.fake_cuda_core import fake_cuda_core
from tests.runtime.fake_gpu import FakeGpu
from tests.runtime.fake_pycuda import fake_pycuda


def install_fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Until the test ends, `cuda.core` and `pycuda` find one GPU, which is a `FakeGpu`."""
    gpu = FakeGpu()
    for name, module in {**fake_cuda_core(gpu), **fake_pycuda(gpu)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(pycuda_device, "_PRIMARY_CONTEXTS", {})
    return gpu
