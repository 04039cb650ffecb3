"""Joules that processor and GPU took: RAPL's counters below /sys, and NVML's.

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
        gpu: index of the GPU that computes, on the bus; None for none.
        gpus: tells how the GPUs run; None asks NVML.
    """

    def __init__(
        self,
        powercap: Path | None = None,
        *,
        gpu: int | None = None,
        gpus: Callable[[], Sequence[GpuLoad]] | None = None,
    ) -> None:
        self._gpu, self._gpus = gpu, gpus or gpu_loads
        self.unreadable: list[str] = []
        """Why a part of it cannot be read, or could not at some time, each in a line."""
        self._last_uj: dict[Path, int] = {}
        self._package_j = 0.0
        self._open(powercap or POWERCAP)
        self._first_gpu_j = self._gpu_j()
        if gpu is not None and self._first_gpu_j is None:
            self.unreadable.append(f"GPU {gpu} does not tell its energy")

    def joules(self) -> dict[str, float]:
        """By "cpu" (all packages) and "gpu" (the one that computes).

        What cannot be read now is left out.
        """
        found: dict[str, float] = {}
        try:
            for package in self._last_uj:
                self._package_j += self._grown_j(package)
        except (OSError, ValueError) as error:
            self._note(f"a counter of the processor could not be read for a while: {error}")
        else:
            if self._last_uj:
                found["cpu"] = self._package_j
        if self._first_gpu_j is not None:
            if (now_j := self._gpu_j()) is None:
                self._note(f"GPU {self._gpu} did not tell its energy for a while")
            else:
                found["gpu"] = now_j - self._first_gpu_j
        return found

    def _gpu_j(self) -> float | None:
        if self._gpu is None:
            return None
        return next((gpu.energy_j for gpu in self._gpus() if gpu.index == self._gpu), None)

    def _note(self, reason: str) -> None:
        if reason not in self.unreadable:
            self.unreadable.append(reason)

    def _open(self, powercap: Path) -> None:
        packages = [
            folder for folder in sorted(powercap.glob(_PACKAGES)) if folder.name.count(":") == 1
        ]
        packages = [folder for folder in packages if _word(folder / "name").startswith("package")]
        if not packages:
            self.unreadable.append(_NO_RAPL.format(folder=powercap))
        try:
            self._last_uj = {folder: _number(folder / "energy_uj") for folder in packages}
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, PermissionError):
                reason = "needs root since 2020, see CVE-2020-8694"
            file = getattr(error, "filename", None) or packages[0] / "energy_uj"
            self.unreadable.append(f"{file} is not readable: {reason}")

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
