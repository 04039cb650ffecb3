from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES
from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession
from tests.runtime.fake_gpu import SM, FakeGpu
from tests.runtime.fake_kernels import make_mask_kernels
from tests.runtime.sessions.fake_tensorrt_runtime import FakeTensorRt, make_plan
from tests.runtime.sessions.fake_tensorrt_session import (
    BATCHES,
    CLASSES,
    LIBRARIES,
    Opener,
    install_fake_tensorrt,
)


@pytest.fixture(scope="session")
def mask_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mask_kernels(tmp_path_factory.mktemp("cubins") / "kernels", SM)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, mask_kernels: Path) -> FakeTensorRt:
    return install_fake_tensorrt(monkeypatch, mask_kernels)


@pytest.fixture
def gpu(trt: FakeTensorRt) -> FakeGpu:
    return trt.gpu


@pytest.fixture(params=DEVICE_LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opener(tmp_path: Path, trt: FakeTensorRt) -> Opener:
    def open_session(plan: bytes | None = None, **changes: Any) -> TensorRtSession:
        path = tmp_path / "engine.plan"
        path.write_bytes(make_plan(CLASSES, BATCHES) if plan is None else plan)
        settings = {"engine": "tensorrt", "precision": "fp16", "batches": BATCHES, **changes}
        return TensorRtSession(path, CLASSES, **settings, made_by=LIBRARIES[settings["engine"]])

    return open_session
