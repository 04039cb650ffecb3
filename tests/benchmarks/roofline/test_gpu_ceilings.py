from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from sshr_deploy.benchmarks.roofline import gpu_ceilings as module  # noqa: E402
from sshr_deploy.benchmarks.roofline.gpu_ceilings import measure_gpu_ceilings  # noqa: E402
from sshr_deploy.errors import SshrDeployError  # noqa: E402
from sshr_deploy.precision import Precision  # noqa: E402


def test_every_precision_has_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    found = measure_gpu_ceilings(Precision, torch.device("cpu"))  # stands in for a GPU
    assert set(found.gflop_per_s) == set(Precision)
    assert found.copy_gb_per_s > 0 and found.threads is None
    assert found.bandwidth(1) == found.copy_gb_per_s


def test_a_precision_that_the_gpu_lacks_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("_int_mm_out_cuda not compiled for CUDA 10\nmore lines")

    monkeypatch.setattr(module, "_SECONDS", 0.0)
    monkeypatch.setattr(torch, "_int_mm", refuse)
    found = measure_gpu_ceilings([Precision.INT8, Precision.FP32], torch.device("cpu"))
    assert set(found.gflop_per_s) == {Precision.FP32}
    assert found.not_measured == {Precision.INT8: "_int_mm_out_cuda not compiled for CUDA 10"}


def test_copies_within_its_cache_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    monkeypatch.setattr(module, "_cache_bytes", lambda device: 2**12)
    found = measure_gpu_ceilings([], torch.device("cpu"))
    assert found.cache_bytes == 2**12 and found.cache_gb_per_s is not None
    assert found.bandwidth(2**12) == max(found.cache_gb_per_s, found.copy_gb_per_s)
    assert found.bandwidth(2**12 + 1) == found.copy_gb_per_s


def test_no_memory_for_a_copy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory\nmore lines")

    monkeypatch.setattr(torch, "empty_like", full)
    with pytest.raises(SshrDeployError, match=r"^no copy on the GPU: CUDA out of memory$"):
        measure_gpu_ceilings([], torch.device("cpu"))
