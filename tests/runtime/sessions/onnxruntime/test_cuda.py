"""ONNX Runtime between buffers of a `Device`: the real one, on its CPU provider and a fake GPU.

The fake's memory is the host's, so ONNX Runtime can be given its pointers as memory of the CPU; and
it copies only when a stream is waited for, so that a run that starts too early reads garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.machine import gpus as gpu_module
from sshr_deploy.runtime.machine.gpus import Gpu
from sshr_deploy.runtime.sessions.onnxruntime import cuda as onnxruntime_cuda
from sshr_deploy.runtime.sessions.onnxruntime.cuda import OnnxRuntimeCudaSession
from sshr_deploy.runtime.sessions.onnxruntime.providers import CPU_PROVIDER, Provider
from tests.runtime.fake_gpu import SM, FakeGpu
from tests.runtime.fake_kernels import KERNELS
from tests.runtime.session_contract import SessionContract, Subject, check_masks, masks_of, noise
from tests.runtime.sessions.fake_tensorrt_session import install_fake_tensorrt
from tests.runtime.sessions.small_graph import Graph, expected, writer

CARD = Gpu(0, "a card", SM, "580.95.05", 16384)
BATCH = 4
Open = Callable[..., OnnxRuntimeCudaSession]


SETTINGS = {
    "engine": "onnx-cuda",
    "provider": Provider(CPU_PROVIDER, "gpu", buffers="cpu"),
    "precision": "fp32",
    "batch": BATCH,
}


def _put_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_module, "find_gpus", lambda: (CARD,))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Graph = writer(tmp_path_factory.mktemp("graphs"))
    return make("FLOAT")


class TestOnTheDevice(SessionContract):
    @pytest.fixture(scope="class", params=DEVICE_LIBRARIES)
    @classmethod
    def subject(
        cls, request: pytest.FixtureRequest, mask_kernels: Path, graph: Path
    ) -> Iterator[Subject]:
        settings: Any = {**SETTINGS, "library": request.param}
        with pytest.MonkeyPatch.context() as monkeypatch:
            install_fake_tensorrt(monkeypatch, mask_kernels)
            _put_card(monkeypatch)
            yield Subject(
                open=lambda: OnnxRuntimeCudaSession(graph, 3, **settings),
                expected=expected,
                engine="onnx-cuda",
            )


@pytest.fixture
def opened(graph: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Open:
    _put_card(monkeypatch)
    settings: Any = {**SETTINGS, "library": "cuda-core"}
    return lambda **changes: OnnxRuntimeCudaSession(graph, 3, **{**settings, **changes})


def test_the_device_makes_the_masks_in_parts(opened: Open, gpu: FakeGpu) -> None:
    with opened() as session:
        assert session.info.notes == ()
        assert "onnxruntime" in session.info.library and "cuda-core" in session.info.library
        allocations = gpu.allocations
        for _ in range(2):
            gpu.launches.clear()
            (found,) = masks_of(session, [noise(6)])
            assert [launch.grid for launch in gpu.launches] == [
                (9, 4, 1), (7, 28, 4), (9, 2, 1), (7, 28, 2)
            ]  # fmt: skip
        assert gpu.allocations == allocations, "memory is allocated once"
        check_masks(found, session.infer(noise(6)), 1.0)
    assert (gpu.memory, gpu.pinned) == ({}, {})


@pytest.mark.parametrize("why", ["no kernels", "no device"])
def test_without_kernels_or_device_the_cpu_makes_them_and_says_so(
    opened: Open, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no kernels":
        monkeypatch.delitem(KERNELS, plan.MASK.function)
        said = "no label maps on the GPU: cuda-core 1.2.2 cannot load cam_to_mask mask"
    else:
        said = "no label maps on the GPU: "
        monkeypatch.setattr(gpu, "load", None)
        monkeypatch.setattr(onnxruntime_cuda, "open_device", _no_device)
    with opened() as session:
        (note,) = session.info.notes
        assert note.startswith(said)
        (found,) = masks_of(session, [noise(2)])
        check_masks(found, session.infer(noise(2)), 1.0)
    assert gpu.launches == []


def _no_device(index: int, library: str) -> Any:
    from sshr_deploy.errors import KernelError

    raise KernelError("no CUDA device can be used")


def test_a_fault_of_the_device_is_one_line(opened: Open, gpu: FakeGpu) -> None:
    session = opened()
    gpu.fault = "an illegal memory access was encountered"
    with pytest.raises(SessionError, match=r"failed: .*illegal memory access") as caught:
        list(masks_of(session, [noise(1)]))
    assert "\n" not in str(caught.value)
    gpu.fault = ""
    session.close()


def test_nan_of_the_engine_is_found(
    opened: Open, monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    run = onnxruntime.InferenceSession.run_with_iobinding

    def spoilt(self: Any, binding: Any, run_options: Any = None) -> None:
        run(self, binding, run_options)
        for start, memory in list(gpu.memory.items()):  # every buffer of the device
            size = (len(memory) - 256) // 4
            gpu.view(start, np.float32, (size,))[:] = np.nan

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", spoilt)
    with opened() as session, pytest.raises(SessionError, match="NaN or infinite values"):
        list(masks_of(session, [noise(1)]))
