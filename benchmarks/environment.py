"""The machine and the releases that a measurement was taken with.

The pages of `make gpu-check` come from machines with hardly more than PyTorch: nothing here needs
another package.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sshr_deploy
from sshr_deploy.errors import counted
from sshr_deploy.runtime.machine.gpus import find_gpus
from sshr_deploy.runtime.machine.processor import library_versions, processor_text
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.version import __version__

_LIBRARIES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "triton", "cuda-core"),
    *("tensorrt", "tensorrt-rtx", "opencv-python-headless", "openslide-bin", "tifffile"),
)


def describe_environment() -> dict[str, Any]:
    """The fields of `report.records.Environment`, and the load average of the last minute.

    The load is in runnable threads, so it wants to be asked at the start.
    """
    return {**describe_machine(), "load_average": load_average()}


def describe_machine() -> dict[str, Any]:
    """Sources, processor, GPUs, system and library versions; absent libraries are left out."""
    return {
        "sshr_deploy": __version__,
        "commit": _commit(),
        "processor": processor_text(),
        "cores": usable_cores(),
        "gpus": [
            {"name": gpu.name, "driver": gpu.driver, "memory_mib": gpu.memory_mib or None}
            for gpu in find_gpus()
        ],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "libraries": library_versions(_LIBRARIES),
    }


def load_average() -> float | None:
    """Of the last minute, in runnable threads; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine_text(environment: Mapping[str, Any], threads: int | None) -> str:
    """ "AMD EPYC, 2 cores, load 0.3, 2 threads"; threads are left out where none are known."""
    load = environment["load_average"]
    parts = [environment["processor"], counted(environment["cores"], "core")]
    parts += [] if load is None else [f"load {load:.1f}"]
    parts += [] if threads is None else [counted(threads, "thread")]
    return ", ".join(parts)


def _commit() -> str | None:
    """Of the sources, if they lie in a repository; "-dirty" follows where they were changed."""
    folder = Path(sshr_deploy.__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
