"""The part of `gpu.check` with two streams, on a GPU that is none; see `fake_gpu`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.gpu import mask_streams
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.kernels import manifest
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import SM, FakeGpu
from tests.runtime.fake_kernels import KERNELS, Code, make_mask_kernels


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    folder = make_mask_kernels(tmp_path / "cubins", SM)
    monkeypatch.setattr(manifest, "default_folder", lambda: folder)
    return install_fake_gpu(monkeypatch)


def test_two_streams_replay_their_graphs(gpu: FakeGpu) -> None:
    file = io.StringIO()
    figures = mask_streams.check_streams(PartOutput(file, 60.0), replays=3, batch=1)
    rows = [json.loads(line)["row"] for line in file.getvalue().splitlines()]
    assert [(row["stream"], row["launches"], row["wrong_labels"]) for row in rows] == [
        (0, 3, 0),
        (1, 3, 0),
    ]
    assert figures == {"library": "cuda-core 1.2.2"}


def test_labels_that_nobody_wrote_are_found(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(*arguments: Any) -> None:
        """Leaves the labels as they are from the third launch on."""
        launches.append(1)
        if len(launches) <= 4:
            code.run(*arguments)

    launches: list[int] = []
    code = KERNELS[plan.MASK.function]
    monkeypatch.setitem(KERNELS, plan.MASK.function, Code(code.layout, lazy))
    with pytest.raises(SshrDeployError, match=r"stream 0, launch 2 of its graph: 50176 of 50176"):
        mask_streams.check_streams(PartOutput(io.StringIO(), 60.0), replays=3, batch=1)
