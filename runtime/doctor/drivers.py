"""Which driver of NVIDIA the installed packages need."""

from __future__ import annotations

import re

from sshr_deploy.runtime.doctor.report import Facts

DRIVERS = "https://www.nvidia.com/drivers"
GPU_EXTRA_CUDA = 13
"""Major version of CUDA that `sshr-deploy[gpu]` is bounded to; see pyproject.toml."""
_MIN_DRIVER = {11: 450, 12: 525, 13: 580}
"""By major version of CUDA (NVIDIA, "CUDA Compatibility", minor version compatibility)."""
KERNELS_DRIVER = 575
"""Of CUDA 12.9 (NVIDIA, CUDA 12.9 release notes), whose assembler makes the kernels for SM 10.0 and
later. Triton 3.6 has two, and takes that of CUDA 12.8 for older GPUs.

Minor version compatibility would let any driver of CUDA 12 that knows the GPU load their code. No
older driver was tried with such a GPU, so that of the assembler's own release is asked for.
"""
FIRST_SM_OF_CUDA_12_9 = 100
_FIRST_ORT_OF_CUDA_13 = (1, 27)
"""Of the packages onnxruntime-gpu on PyPI, by the libraries that each names."""


def driver_for(cuda: int) -> int:
    """Major version of the oldest driver that runs what is built for this major version of CUDA."""
    return _MIN_DRIVER.get(cuda, max(_MIN_DRIVER.values()))


def driver_mend(major: int) -> str:
    """Advice where the driver is older than this major version, as a comment of a shell."""
    return f"# install driver {major} or newer: {DRIVERS}"


def driver_major(facts: Facts) -> int | None:
    """Major version of the installed driver; None where there is none or it is not told."""
    major = facts.gpus[0].driver.partition(".")[0] if facts.gpus else ""
    return int(major) if major.isdecimal() else None


def onnxruntime_cuda(facts: Facts) -> int | None:
    """Major version of CUDA that the installed onnxruntime is built for; None for one without.

    It says so itself; where it does not import, the version of the package tells.
    """
    ort = facts.onnxruntime
    if ort.cuda is not None and (match := re.match(r"\d+", ort.cuda)):
        return int(match[0])
    version = facts.libraries.get("onnxruntime-gpu", "")
    if ort.error is None or not (match := re.match(r"(\d+)\.(\d+)", version)):
        return None
    return 13 if (int(match[1]), int(match[2])) >= _FIRST_ORT_OF_CUDA_13 else 12


def onnxruntime_note(facts: Facts) -> str | None:
    """The driver that the installed onnxruntime-gpu needs; None where that is not installed."""
    cuda = onnxruntime_cuda(facts)
    if cuda is None:
        return None
    version = facts.onnxruntime.version or facts.libraries["onnxruntime-gpu"]
    return (
        f"onnxruntime-gpu {version} is built for CUDA {cuda}: it needs driver {driver_for(cuda)} "
        "or newer"
    )


def before_gpu_extra(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """Steps that have to come before `sshr-deploy[gpu]` is of use here.

    Returns the end of a reason, and what mends it; both are empty where nothing has to be done.
    """
    needs, major = driver_for(GPU_EXTRA_CUDA), driver_major(facts)
    if major is None or major >= needs:
        return "", ()
    reason = (
        f"; the one of sshr-deploy[gpu] needs driver {needs} or newer, {facts.gpus[0].driver} is "
        "installed: update NVIDIA's driver first"
    )
    return reason, (driver_mend(needs),)
