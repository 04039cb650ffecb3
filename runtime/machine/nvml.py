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
    try:
        import pynvml
    except ImportError:
        return []
    states: list[GpuState] = []
    with suppress(pynvml.NVMLError), _opened(pynvml):
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # one that has fallen off the bus
                states.append(_state(pynvml, index))
    return states


@contextmanager
def _opened(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _state(nvml: Any, index: int) -> GpuState:
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(ask: Callable[[], _T]) -> _T | None:
        with suppress(nvml.NVMLError):
            return ask()
        return None

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
