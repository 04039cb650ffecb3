from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.doctor import probe
from sshr_deploy.runtime.sessions.onnxruntime import opening as onnxruntime_opening
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import SM


def test_the_graph_is_what_it_says() -> None:
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    model = onnx.load_from_string(probe.ONE_CONVOLUTION)
    onnx.checker.check_model(model, full_check=True)
    values = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    (sums,) = reference.ReferenceEvaluator(model).run(None, {"x": values})
    padded = np.pad(values[0, 0], 1)
    wanted = [[padded[y : y + 3, x : x + 3].sum() for x in range(3)] for y in range(3)]
    np.testing.assert_array_equal(sums[0, 0], wanted)


def test_wrong_sums_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]], np.float32)

    class Session:
        def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
            return [feeds["x"] * sums]

    monkeypatch.setattr(onnxruntime_opening, "open_graph", lambda *_: Session())
    probe.provider("onnx-cpu")
    sums[1, 1] = 8
    with pytest.raises(SessionError, match="wrongly"):
        probe.provider("onnx-cpu")


def test_the_gpu_is_opened_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = install_fake_gpu(monkeypatch)
    assert probe.cuda() == {"name": "a fake GPU", "sm": SM, "library": "cuda-core 1.2.2"}
    assert gpu.memory == {}


def test_a_builder_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip("tensorrt_rtx")

    class Broken:
        ILogger = trt.ILogger
        __version__ = "1.7.1.116"

        def Builder(self, logger: Any) -> None:  # noqa: N802
            logger.log(trt.ILogger.Severity.ERROR, "CUDA driver is too old\nmore")
            raise TypeError("factory function returned nullptr")

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", Broken())
    with pytest.raises(SessionError, match=r"no builder: CUDA driver is too old$"):
        probe.builder("tensorrt-rtx")
