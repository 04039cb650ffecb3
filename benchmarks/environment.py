"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
from typing import Any

import sshr_deploy
from sshr_deploy.runtime.machine import library_versions, processor_text

_LIBRARIES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "triton", "cuda-core"),
    "opencv-python-headless",
)


def describe_environment() -> dict[str, Any]:
    """Processor, cores, system and library versions; absent libraries are left out."""
    return {
        "sshr_deploy": sshr_deploy.__version__,
        "processor": processor_text(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "libraries": library_versions(_LIBRARIES),
    }
