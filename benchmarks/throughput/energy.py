"""Joules that processor and GPUs took: RAPL's counters below /sys, and NVML's.

Linux (Documentation/power/powercap): each package of the processor has a folder with its counter
in microjoules, which begins again at 0 behind `max_energy_range_uj`. Since November 2020 only root
reads it, because it gives away what other programs compute (CVE-2020-8694, "PLATYPUS").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sshr_deploy.runtime.machine.nvml import GpuLoad, gpu_loads

POWERCAP = Path("/sys/class/powercap")
_PACKAGES = "intel-rapl:[0-9]*"
"""AMD's processors are there under the same name. Folders with a second colon are parts of one."""
_NO_RAPL = "no RAPL counters in {folder}: not Linux, a virtual machine, or no such processor"


class EnergyMeter:
    """Energy since it was made; ask at least once an hour, before a counter has gone round twice.

    Args:
        powercap: folder of counters; None for the system's.
        gpus: tells how the GPUs run; None asks NVML.
    """

    def __init__(
        self,
        powercap: Path | None = None,
        gpus: Callable[[], Sequence[GpuLoad]] | None = None,
    ) -> None:
        self._gpus = gpus or gpu_loads
        self.unreadable: list[str] = []
        """Why a part of it cannot be read, each in a line."""
        self._packages = self._open(powercap or POWERCAP)
        self._last_uj = {package: _number(package / "energy_uj") for package in self._packages}
        self._package_j = 0.0
        self._first_j = {gpu.index: gpu.energy_j for gpu in self._gpus()}
        self.unreadable += [
            f"GPU {index} does not tell its energy"
            for index, joules in self._first_j.items()
            if joules is None
        ]

    def joules(self) -> dict[str, float]:
        """By "cpu" (all packages) and "gpu" (all of them); what cannot be read is left out."""
        found: dict[str, float] = {}
        if self._packages:
            self._package_j += sum(map(self._grown_j, self._packages))
            found["cpu"] = self._package_j
        now = {gpu.index: gpu.energy_j for gpu in self._gpus()}
        grown = [
            joules - first
            for index, first in self._first_j.items()
            if first is not None and (joules := now.get(index)) is not None
        ]
        if grown:
            found["gpu"] = sum(grown)
        return found

    def _open(self, powercap: Path) -> list[Path]:
        packages = [
            folder for folder in sorted(powercap.glob(_PACKAGES)) if folder.name.count(":") == 1
        ]
        packages = [folder for folder in packages if _word(folder / "name").startswith("package")]
        if not packages:
            self.unreadable.append(_NO_RAPL.format(folder=powercap))
            return []
        try:
            for folder in packages:
                _number(folder / "energy_uj")
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, PermissionError):
                reason = "needs root since 2020, see CVE-2020-8694"
            self.unreadable.append(f"{folder / 'energy_uj'} is not readable: {reason}")
            return []
        return packages

    def _grown_j(self, package: Path) -> float:
        now, last = _number(package / "energy_uj"), self._last_uj[package]
        self._last_uj[package] = now
        if now < last:  # it has begun again
            now += _number(package / "max_energy_range_uj")
        return (now - last) / 1e6


def _word(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    return int(path.read_text("ascii"))
