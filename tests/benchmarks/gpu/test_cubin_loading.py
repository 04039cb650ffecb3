"""The part of `gpu.check` that loads precompiled kernels, on stand-ins for driver and libraries."""

from __future__ import annotations

import ctypes
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sshr_deploy.benchmarks.gpu import cubin_loading
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.errors import KernelError, MissingExtraError, SshrDeployError
from sshr_deploy.runtime.machine.gpus import Gpu
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import SM
from tests.runtime.fake_kernels import make_mask_kernels
from tests.runtime.kernels.kernel_folder import make_kernels


def rows_of(file: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line)["row"] for line in file.getvalue().splitlines()]


def test_kernels_are_loaded_by_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = make_mask_kernels(tmp_path / "cubins", SM)
    monkeypatch.setattr(cubin_loading, "default_folder", lambda: folder)
    install_fake_gpu(monkeypatch)
    file = io.StringIO()
    figures = cubin_loading.load_cubins(PartOutput(file, 60.0))
    assert figures["loaded"] == 2
    assert figures["library"] == "cuda-core 1.2.2"
    assert [row["kernel"] for row in rows_of(file)] == ["cam_to_mask ranges", "cam_to_mask mask"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A driver that keeps what it was asked to load, on a machine with no library for CUDA."""

    def without(index: int = 0, library: str = "auto") -> None:
        raise MissingExtraError("cuda-core", "gpu")

    monkeypatch.setattr(cubin_loading, "open_device", without)
    monkeypatch.setattr(cubin_loading, "first_gpu", lambda: Gpu(0, "A", 89, "580.1", 1))
    monkeypatch.setattr(cubin_loading, "default_folder", lambda: make_kernels(tmp_path / "cubins"))
    loaded: list[bytes] = []

    def load(module: object, code: bytes) -> int:
        loaded.append(code)
        return 0

    library = SimpleNamespace(
        loaded=loaded,
        cuInit=lambda flags: 0,
        cuDevicePrimaryCtxRetain=lambda context, device: 0,
        cuCtxSetCurrent=lambda context: 0,
        cuModuleLoadData=load,
        cuModuleGetFunction=lambda function, module, name: 0,
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_without_a_library_the_driver_loads_all_of_its_sm(driver: SimpleNamespace) -> None:
    file = io.StringIO()
    figures = cubin_loading.load_cubins(PartOutput(file, 60.0))
    archs = [row["arch"] for row in rows_of(file)]
    assert archs == ["sm_80", "sm_86", "sm_89"] * 2  # of SM 8.9 and of lesser ones
    assert len(driver.loaded) == figures["loaded"] == 6
    assert driver.loaded[0] == b"machine code of sm_80/hfrm_cam-fp16-nhwc-n4.cubin"


def test_one_that_does_not_load_is_named(driver: SimpleNamespace) -> None:
    driver.cuModuleLoadData = lambda module, code: 209 if b"sm_86" in code else 0
    file = io.StringIO()
    with pytest.raises(SshrDeployError, match=r"2 of 6 kernels for SM 8\.9 do not load"):
        cubin_loading.load_cubins(PartOutput(file, 60.0))
    failed = [row["file"] for row in rows_of(file) if "failed" in row]
    assert failed == ["sm_86/hfrm_cam-fp16-nhwc-n4.cubin", "sm_86/cam_to_mask-n4.cubin"]
    assert "cuModuleLoadData failed with error 209" in rows_of(file)[1]["failed"]


def test_a_machine_without_a_driver(
    driver: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(KernelError, match="NVIDIA's driver cannot be loaded: libcuda"):
        cubin_loading.load_cubins(PartOutput(io.StringIO(), 60.0))
