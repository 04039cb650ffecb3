from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from sshr_deploy.benchmarks.roofline import gpu_ceilings as module  # noqa: E402
from sshr_deploy.benchmarks.roofline.gpu_ceilings import measure_gpu_ceilings  # noqa: E402
from sshr_deploy.precision import Precision  # noqa: E402


def test_every_precision_has_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    found = measure_gpu_ceilings(Precision, torch.device("cpu"))  # stands in for a GPU
    assert set(found.gflop_per_s) == set(Precision)
    assert found.copy_gb_per_s > 0 and found.threads is None
    assert found.bandwidth(1) == found.copy_gb_per_s
