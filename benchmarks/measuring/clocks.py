"""Clocks of the processor and of the GPUs at a moment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from sshr_deploy.runtime.machine.nvml import gpu_loads

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def read_clocks() -> dict[str, Any]:
    """The fields of `report.records.Clocks`; None for what the machine does not tell."""
    gpus = gpu_loads()
    return {
        "cpu_mhz": _cpu_mhz(),
        "governor": _governor(),
        "gpu_sm_mhz": [gpu.sm_clock_mhz for gpu in gpus],
        "gpu_memory_mhz": [gpu.memory_clock_mhz for gpu in gpus],
    }


def _cpu_mhz() -> float | None:
    """Mean of the cores."""
    found = None
    with suppress(OSError, NotImplementedError, AttributeError):  # not on every system
        found = psutil.cpu_freq()
    return None if found is None else round(found.current, 1) or None


def _governor() -> str | None:
    with suppress(OSError):
        return _GOVERNOR.read_text("ascii").strip() or None
    return None
