"""The machine and the releases that a measurement was taken with."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from sshr_deploy.errors import counted
from sshr_deploy.runtime.machine.processor import library_versions, processor_text
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.version import __version__

_LIBRARIES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "triton", "cuda-core"),
    "opencv-python-headless",
)


def describe_environment() -> dict[str, Any]:
    """Processor, cores, load, system and library versions; absent libraries are left out.

    The load is that of the last minute, in runnable threads, so it wants to be asked at the start.
    """
    return {
        "sshr_deploy": __version__,
        "processor": processor_text(),
        "cores": usable_cores(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "libraries": library_versions(_LIBRARIES),
    }


def machine_text(environment: Mapping[str, Any], threads: int | None) -> str:
    """ "AMD EPYC, 2 cores, load 0.3, 2 threads"; threads are left out where none are known."""
    load = environment["load_average"]
    parts = [environment["processor"], counted(environment["cores"], "core")]
    parts += [] if load is None else [f"load {load:.1f}"]
    parts += [] if threads is None else [counted(threads, "thread")]
    return ", ".join(parts)
