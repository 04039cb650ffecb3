# ruff: noqa: N802  the names are NVML's
from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from sshr_deploy.runtime.machine.nvml import GpuLoad, GpuState, gpu_loads, gpu_states


class NvmlError(Exception):
    pass


class Stand:
    """The calls of pynvml that are used: GPU 0 tells all, 1 no memory and no load, 2 is lost."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

    def __init__(self, gpus: int = 3) -> None:
        self.gpus, self.open = gpus, 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return "NVIDIA RTX"

    def nvmlDeviceGetUUID(self, gpu: int) -> str:
        return f"GPU-{gpu}"

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:
        if gpu:
            raise NvmlError("Not Supported")
        return SimpleNamespace(used=1 << 30, total=16 << 30)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:
        if gpu:
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetClockInfo(self, gpu: int, clock: int) -> int:
        return {self.NVML_CLOCK_SM: 1410, self.NVML_CLOCK_MEM: 7000}[clock]

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 68_500

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        if gpu:
            raise NvmlError("Not Supported")
        return 1_250_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: int) -> int:
        if gpu:
            raise NvmlError("Not Supported")
        return 0x1 | 0x4 | 0x40  # idle is no reason to be slow


def test_each_gpu_tells_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    monkeypatch.setitem(sys.modules, "pynvml", stand)
    assert gpu_states() == [
        GpuState(0, "NVIDIA RTX", "GPU-0", 1 << 30, 16 << 30, 61, 0.97),
        GpuState(1, "NVIDIA RTX", "GPU-1", None, None, 61, None),
    ]
    assert stand.open == 0


def test_how_each_gpu_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    monkeypatch.setitem(sys.modules, "pynvml", stand)
    assert gpu_loads() == [
        GpuLoad(0, 61, 1410, 7000, 68.5, 1250.0, ("power cap", "heat (hardware)")),
        GpuLoad(1, 61, 1410, 7000, 68.5, None, None),
    ]
    assert stand.open == 0


def test_no_gpu_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_states() == []
    assert gpu_loads() == []


def test_no_gpu_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()

    def no_driver() -> None:
        raise NvmlError("NVML Shared Library Not Found")

    monkeypatch.setattr(stand, "nvmlInit", no_driver)
    monkeypatch.setitem(sys.modules, "pynvml", stand)
    assert gpu_states() == []


def test_the_package_has_the_names_that_are_used() -> None:
    pynvml = pytest.importorskip("pynvml")
    used = [name for name in vars(Stand) if name.startswith(("nvml", "NVML"))]
    assert [name for name in used if not hasattr(pynvml, name)] == []
    gpu_states(), gpu_loads()  # whatever there is here
