"""The part of `gpu.check` with sessions, on a GPU that is none and ONNX Runtime's CPU provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.benchmarks.gpu import sessions
from sshr_deploy.benchmarks.gpu.sessions import Graphs
from sshr_deploy.errors import MissingExtraError
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.engines.kinds import ONNX_CUDA
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.machine import gpus as gpu_module
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER, Provider
from tests.runtime.fake_gpu import SM
from tests.runtime.fake_kernels import make_mask_kernels
from tests.runtime.sessions import small_graph
from tests.runtime.sessions.fake_tensorrt_session import install_fake_tensorrt

PROVIDER = Provider(CPU_PROVIDER, "gpu", buffers="cpu", on_trial={"faster": "1"})


@pytest.fixture
def graphs(tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr(sessions, "_STREAMED", 2)
    monkeypatch.setattr(sessions, "_SETTLE_S", 0.0)
    install_fake_tensorrt(monkeypatch, make_mask_kernels(tmp_path / "kernels", SM))
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (Gpu(0, "a card", SM, "580", 1024),))
    size = (2, PATCH_PX, PATCH_PX, 3)
    patches = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    expected = small_graph.expected(patches)
    reference = ReferenceSet(patches, np.full((2, 2), PATCH_PX), expected, "NumPy", "noise")
    paths = {Precision.FP32: small_graph.writer(tmp_path)("FLOAT")}
    return Graphs(paths, reference, profile, gflop_per_patch=2.0)


def _rows(graphs: Graphs) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    sessions.measure_sessions(
        graphs,
        provider=PROVIDER,
        batches=(2, 1),
        seconds=0.001,
        on_step=lambda _: None,
        on_row=rows.append,
    )
    return rows


def test_each_choice_of_options_is_timed_and_compared(graphs: Graphs) -> None:
    rows = _rows(graphs)
    assert [(row["form"], row["batch"]) for row in rows] == [
        ("onnx-cuda fp32", 2),
        ("onnx-cuda fp32", 1),
        ("onnx-cuda fp32 faster=1", 2),
        ("onnx-cuda fp32 faster=1", 1),
    ]
    for row in rows:
        assert row["labels_on_device"] and row["notes"] == []
        assert row["mask_agreement"] == 1
        assert row["patches_per_s"] == pytest.approx(row["batch"] * 1e3 / row["stream_ms"])
        assert row["tflop_per_s"] == pytest.approx(row["patches_per_s"] * 2e-3)
        assert len(row["samples_ms"]) >= 5


def test_no_time_is_told_of_wrong_cams(graphs: Graphs) -> None:
    cams = graphs.reference.cams
    other = replace(cams, cam_deep=cams.cam_deep[::-1])
    rows = _rows(replace(graphs, reference=replace(graphs.reference, cams=other)))
    assert len(rows) == 2
    for row in rows:
        assert row["failed"].startswith("CAMs differ from PyTorch by ")
        assert "median_ms" not in row


def test_an_onnxruntime_without_cuda_leaves_the_part_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU_PROVIDER])
    assert ONNX_CUDA.provider is not None
    with pytest.raises(MissingExtraError, match="onnxruntime-gpu is not installed: pip install"):
        sessions.check_provider(ONNX_CUDA.provider)
