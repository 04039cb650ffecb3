"""What the native TensorRT session says of what it cannot use, and what it leaves behind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.runtime.contract import OUTPUT_NAMES, CamBatch
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.kernels import manifest
from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import FakeGpu
from tests.runtime.fake_kernels import make_mask_kernels
from tests.runtime.session_contract import RULE, masks_of, noise
from tests.runtime.sessions.fake_tensorrt_runtime import FakeTensorRt, make_plan, network
from tests.runtime.sessions.fake_tensorrt_session import (
    BATCHES,
    CLASSES,
    ENGINES,
    LIBRARIES,
    Opener,
    expected_labels,
)


def test_without_graphs_it_says_so(opener: Opener, trt: FakeTensorRt) -> None:
    with opener(library="pycuda") as session:
        (note,) = session.info.notes
        assert note.startswith("no CUDA graph: pycuda cannot capture CUDA graphs")


@pytest.mark.parametrize(
    ("is_capturable", "reason"),
    [
        (True, "cuStreamEndCapture failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
        (False, "tensorrt 11.4.0.106 cannot run the engine: a layer cannot be captured"),
    ],
)
def test_a_capture_that_fails_is_left_and_not_tried_again(
    opener: Opener, trt: FakeTensorRt, is_capturable: bool, reason: str
) -> None:
    trt.is_capturable = is_capturable
    trt.gpu.spoils_captures = is_capturable
    with opener(library="cuda-core") as session:
        for _ in range(5):
            for name in OUTPUT_NAMES:
                found, expected = session.infer(noise(4)), network(noise(4), CLASSES)
                assert np.array_equal(getattr(found, name), getattr(expected, name))
        (note,) = session.info.notes
        assert note.startswith("no CUDA graph: ") and note.endswith(reason)
        assert session.cuda_graphs is None
        assert not trt.gpu.captures
    assert [what for what, _ in trt.gpu.log].count("begin capture") == 1


def test_what_drives_the_gpu_is_told(
    opener: Opener, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opener(engine="tensorrt-rtx") as session:
        assert session.info.library == "tensorrt-rtx 1.7.1.116, cuda-core 1.2.2"
        assert session.info.notes == ()
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with opener() as session:
        assert session.info.library == "tensorrt 11.4.0.106, pycuda 2026.1"
        assert session.info.notes[0] == (
            "cuda-core was not used: cuda-core is not installed: pip install 'sshr-deploy[gpu]'"
        )


def test_code_in_an_engine_runs_only_where_that_is_said(opener: Opener, trt: FakeTensorRt) -> None:
    plan = make_plan(CLASSES, BATCHES, **{"has host code": True})
    with pytest.raises(SessionError, match=r"cannot load .*: host code is not allowed; build it"):
        opener(plan)
    with opener(plan, host_code=True) as session:
        assert trt.host_code_allowed is True
        session.infer(noise(1))
    with opener():
        assert trt.host_code_allowed is False


def test_without_kernels_the_cpu_makes_the_masks(
    opener: Opener, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_mask_kernels(tmp_path / "other", 75)
    monkeypatch.setattr(manifest, "default_folder", lambda: other)
    with opener(library="cuda-core") as session:
        assert session.info.notes == (
            "no label maps on the GPU: no cam_to_mask ranges kernel for SM 8.9 "
            "(there are 7.5); the CPU makes the masks instead",
        )
        batches = [noise(2), noise(4)]
        for batch, found in zip(batches, masks_of(session, batches), strict=True):
            assert np.array_equal(found.labels, expected_labels(batch, RULE))
    assert gpu.launches == []
    (other / "all.cubin").write_bytes(b"changed")
    with opener(library="cuda-core") as session:
        assert "CPU" in session.info.notes[0]


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        (b"no engine", "cannot load .*engine.plan: the magic tag does not match; build it again"),
        (make_plan(4, BATCHES), r"cam_28_1 FLOAT \[-1, 4, 28, 28\].*one of SSHR for 3 classes"),
        (make_plan(3, BATCHES, **{"cam dtype": "HALF"}), "output cam_deep HALF .*FLOAT"),
        (make_plan(3, BATCHES, input="image"), "input image UINT8 .*input patches UINT8"),
        (
            make_plan(3, (1, 8)),
            r"profiles for batches .*\(8, 8, 8\).*the bundle says .*\(4, 4, 4\)",
        ),
        (make_plan(3, (1, 4, 2)), r"says \[\(1, 1, 1\), \(4, 4, 4\)\] and one from 1 to 4"),
        (make_plan(3, BATCHES, profiles=[[1, 1, 1], [4, 4, 4], [2, 2, 4]]), r"\(2, 2, 4\)"),
        (make_plan(3, BATCHES, profiles=[]), r"\[\]"),
    ],
    ids=["garbage", "classes", "dtype", "input", "sizes", "more", "tail", "none"],
)
def test_an_engine_that_is_not_what_was_said_is_refused(
    opener: Opener, gpu: FakeGpu, library: str, plan: bytes, named: str
) -> None:
    with pytest.raises(SessionError, match=named) as caught:
        opener(plan, library=library)
    assert "\n" not in str(caught.value)
    assert not gpu.memory and not gpu.pinned and gpu.contexts == 0


@pytest.mark.parametrize(
    "method",
    [
        "create_execution_context",
        "set_optimization_profile_async",
        "set_input_shape",
        "set_tensor_address",
        "execute_async_v3",
    ],
)
def test_what_the_library_refuses_is_one_line(
    opener: Opener, trt: FakeTensorRt, library: str, method: str
) -> None:
    trt.refusing.add(method)
    with pytest.raises(SessionError, match=f"^tensorrt 11.4.0.106 cannot .*: {method} is refused$"):
        opener(library=library)
    assert not trt.gpu.memory and not trt.gpu.pinned and trt.gpu.contexts == 0
    trt.refusing.clear()
    with opener(library=library) as session:
        trt.refusing.add(method)
        with pytest.raises(SessionError, match=f"cannot .*: {method} is refused$"):
            session.infer(noise(1))  # a profile that was not used yet
        trt.refusing.clear()
        assert np.array_equal(session.infer(noise(1)).prob, network(noise(1), CLASSES).prob)


def test_an_older_error_is_no_reason(opener: Opener, trt: FakeTensorRt) -> None:
    with opener() as session:
        trt.is_silent = True
        session.infer(noise(2))
        trt.refusing.add("execute_async_v3")
        with pytest.raises(SessionError, match=r"cannot run the engine: no reason given$"):
            session.infer(noise(2))


def test_a_library_that_does_not_start_is_named(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine, module in ENGINES.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=f"^{engine} is not installed"):
            opener(engine=engine)


def test_without_a_gpu_the_reason_is_given(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["cuda.core"], "Device", None)
    with pytest.raises(SessionError, match=r"^tensorrt failed: .*cannot open CUDA device 0"):
        opener(library="cuda-core")
    with pytest.raises(SessionError, match=r"none\.plan cannot be read: No such file"):
        TensorRtSession(
            tmp_path / "none.plan",
            3,
            engine="tensorrt",
            made_by=LIBRARIES["tensorrt"],
            precision="fp16",
            batches=BATCHES,
        )


def test_a_fault_of_the_gpu_is_one_line(opener: Opener, gpu: FakeGpu, library: str) -> None:
    session = opener(library=library)
    gpu.fault = "an illegal memory access was encountered"
    with pytest.raises(SessionError, match=f"^tensorrt failed: .*cannot finish: {gpu.fault}$"):
        session.infer(noise(1))
    with pytest.raises(SessionError, match=f"{gpu.fault}$"):
        session.close()
    session.close()
    gpu.fault = ""


def _not_a_number(cams: CamBatch) -> CamBatch:
    cams.cam_28_2[0, 0, 3, 3] = np.nan
    return cams


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_not_a_number, "NaN or infinite values in cam_28_2"),
        (lambda cams: replace(cams, cam_deep=cams.cam_deep - 1), "negative values in cam_deep"),
        (lambda cams: replace(cams, prob=cams.prob + np.inf), "infinite values in prob"),
    ],
)
def test_impossible_outputs_are_refused(
    opener: Opener, trt: FakeTensorRt, change: Any, named: str, library: str
) -> None:
    with opener(library=library) as session:
        trt.change = change
        with pytest.raises(SessionError, match=named):
            session.infer(noise(2))
        with pytest.raises(SessionError, match=named):
            list(masks_of(session, [noise(4)]))
    with pytest.raises(SessionError, match=named):
        opener(library=library)


def test_closing_frees_all_but_what_was_given(opener: Opener, gpu: FakeGpu, library: str) -> None:
    with opener(library=library) as session:
        next(masks_of(session, [noise(4)] * 4))
    assert not gpu.memory and not gpu.pinned and not gpu.graphs and gpu.contexts == 0
    with open_device(0, library) as device:
        with opener(device=device) as session:
            assert session.info.device == device.name
            session.infer(noise(5))
        assert not gpu.memory and not gpu.pinned and not gpu.graphs
        with device.allocate(16) as buffer:
            device.fill(buffer)


def test_contexts_go_before_their_memory(
    opener: Opener, trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = trt.gpu.free
    used: list[object] = []

    def checked(pointer: int) -> None:
        used.extend(c for c in trt.living if pointer in (c.facts.memory, *c.addresses.values()))
        free(pointer)

    monkeypatch.setattr(trt.gpu, "free", checked)
    session = opener()
    session.infer(noise(4))
    assert trt.living
    session.close()
    assert not used and not trt.living


def test_what_was_in_flight_is_not_given_once_it_is_closed(opener: Opener) -> None:
    session = opener()
    running = masks_of(session, [noise(1), noise(2)])
    next(running)
    session.close()
    with pytest.raises(SessionError, match="closed"):
        next(running)


def test_the_real_library_refuses_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    install_fake_gpu(monkeypatch)
    (tmp_path / "engine.plan").write_bytes(b"garbage" * 100)
    with pytest.raises(SessionError, match=r"^tensorrt-rtx 1\..* cannot load .*: .+; build it"):
        TensorRtSession(
            tmp_path / "engine.plan",
            3,
            engine="tensorrt-rtx",
            made_by=LIBRARIES["tensorrt-rtx"],
            precision="fp16",
            batches=BATCHES,
        )
