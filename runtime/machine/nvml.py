"""State of the NVIDIA GPUs of this machine at a moment, from the driver's library (NVML)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class GpuState:
    """One GPU; None for what it does not tell."""

    index: int
    """By place on the bus."""
    name: str
    uuid: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    utilisation: float | None
    """Share of the last second or so in which it computed, 0 to 1."""


def gpu_states() -> list[GpuState]:
    """State of each GPU; none without a GPU, its driver or the package nvidia-ml-py."""
    return _of_each(_state)


@contextmanager
def _opened(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _state(nvml: Any, index: int) -> GpuState:
    gpu, told = nvml.nvmlDeviceGetHandleByIndex(index), _asker(nvml)
    memory = told(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
    percent = told(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
    return GpuState(
        index=index,
        name=nvml.nvmlDeviceGetName(gpu),
        uuid=nvml.nvmlDeviceGetUUID(gpu),
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        temperature_celsius=told(
            lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        ),
        utilisation=None if percent is None else percent / 100,
    )


_SLOWED_BY = {  # source: NVIDIA, NVML API Reference, "NvmlClocksEventReasons"
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


@dataclass(frozen=True)
class GpuLoad:
    """How a GPU runs at a moment; None for what it does not tell."""

    index: int
    """By place on the bus."""
    temperature_celsius: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_w: float | None
    energy_j: float | None
    """Since the driver was loaded."""
    slowed_by: tuple[str, ...] | None
    """Why its clocks are held back; empty where they are not."""


def gpu_loads() -> list[GpuLoad]:
    """How each GPU runs; none without a GPU, its driver or the package nvidia-ml-py."""
    return _of_each(_load)


def _of_each(ask: Callable[[Any, int], _T]) -> list[_T]:
    try:
        import pynvml
    except ImportError:
        return []
    found: list[_T] = []
    with suppress(pynvml.NVMLError), _opened(pynvml):
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # one that has fallen off the bus
                found.append(ask(pynvml, index))
    return found


def _load(nvml: Any, index: int) -> GpuLoad:
    gpu, told = nvml.nvmlDeviceGetHandleByIndex(index), _asker(nvml)
    power_mw = told(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
    energy_mj = told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu))
    reasons = told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
    return GpuLoad(
        index=index,
        temperature_celsius=told(
            lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        ),
        sm_clock_mhz=told(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        memory_clock_mhz=told(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
        power_w=None if power_mw is None else power_mw / 1e3,
        energy_j=None if energy_mj is None else energy_mj / 1e3,
        slowed_by=None
        if reasons is None
        else tuple(name for bit, name in _SLOWED_BY.items() if reasons & bit),
    )


def _asker(nvml: Any) -> Callable[[Callable[[], Any]], Any]:
    """Asks for something that a GPU may not tell."""

    def told(ask: Callable[[], Any]) -> Any:
        with suppress(nvml.NVMLError):
            return ask()
        return None

    return told
