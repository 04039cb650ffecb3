"""How the machine runs while an engine computes: heat, clocks and what holds them back."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from sshr_deploy.benchmarks.measuring.looking import Looking
from sshr_deploy.runtime.machine.nvml import GpuLoad, gpu_loads

EVERY_S = 1.0
_PACKAGE_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


@dataclass(frozen=True)
class _Reading:
    cpu_mhz: float | None
    cpu_celsius: float | None
    gpus: Sequence[GpuLoad]


class MachineWatch(Looking):
    """Reads the machine in a thread of its own, as long as it is entered.

    Clocks and the reasons that hold them back are those of a moment, and a GPU that waits for work
    is not held back: only what is read while it computes tells how it ran.
    """

    def __init__(self) -> None:
        super().__init__(EVERY_S, "machine watch")
        self._readings: list[_Reading] = []

    def take(self) -> dict[str, Any]:
        """What was read since it was last asked; where nothing was, what is so now.

        Temperatures are the highest, clocks the median with the lowest beside it, power the mean;
        `slowed_by` of a GPU has every reason that was there, `slowed_share` in which share of the
        readings. None stands for what the machine does not tell.
        """
        taken, self._readings = self._readings, []
        readings = [*taken] or [_reading()]
        gpus: dict[int, list[GpuLoad]] = {}
        for gpu in (gpu for reading in readings for gpu in reading.gpus):
            gpus.setdefault(gpu.index, []).append(gpu)
        mhz = [reading.cpu_mhz for reading in readings]
        return {
            "readings": len(readings),
            "cpu_mhz": _of(statistics.median, mhz),
            "cpu_min_mhz": _of(min, mhz),
            "cpu_celsius": _of(max, (reading.cpu_celsius for reading in readings)),
            "gpus": [_gpu(index, loads) for index, loads in sorted(gpus.items())],
        }

    def look(self) -> None:
        """Read it now."""
        self._readings.append(_reading())


def _gpu(index: int, loads: Sequence[GpuLoad]) -> dict[str, Any]:
    told = [load.slowed_by for load in loads if load.slowed_by is not None]
    reasons = sorted({reason for found in told for reason in found})
    sm_mhz = [load.sm_clock_mhz for load in loads]
    return {
        "index": index,
        "temperature_celsius": _of(max, (load.temperature_celsius for load in loads)),
        "sm_clock_mhz": _of(statistics.median, sm_mhz),
        "sm_clock_min_mhz": _of(min, sm_mhz),
        "memory_clock_mhz": _of(statistics.median, (load.memory_clock_mhz for load in loads)),
        "power_w": _of(statistics.fmean, (load.power_w for load in loads)),
        "slowed_by": tuple(reasons) if told else None,
        "slowed_share": {
            reason: sum(reason in found for found in told) / len(told) for reason in reasons
        },
    }


def _of(figure: Callable[[Any], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return figure(known) if known else None


def _reading() -> _Reading:
    frequency = None
    with suppress(OSError, NotImplementedError, AttributeError):
        frequency = psutil.cpu_freq()
    return _Reading(None if frequency is None else frequency.current, _cpu_celsius(), gpu_loads())


def _cpu_celsius() -> float | None:
    """Of the hottest sensor of the processor; None where the system has none."""
    with suppress(OSError, AttributeError):  # psutil has it for Linux and FreeBSD
        sensors = psutil.sensors_temperatures()
        found = [s.current for name in _PACKAGE_SENSORS for s in sensors.get(name, ())]
        return max(found, default=None)
    return None
