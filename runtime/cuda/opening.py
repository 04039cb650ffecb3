"""Opens a CUDA device by cuda-core, which comes as a wheel, or by pycuda, which older installations
have. Neither Triton, nvcc nor torch is needed."""

from __future__ import annotations

from sshr_deploy.errors import KernelError, MissingExtraError, SshrDeployError, UsageError
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.cuda_core import CudaCoreDevice
from sshr_deploy.runtime.cuda.pycuda import PycudaDevice

DEVICE_LIBRARIES = ("cuda-core", "pycuda")
"""The better first; "auto" takes the first that works."""


def open_device(index: int = 0, library: str = "auto") -> Device:
    """Open CUDA device `index` with the named library, or with the best that works here ("auto").

    The device's `rejected` says why each better library was not taken.

    Raises:
        UsageError: no library of that name.
        MissingExtraError: neither library is installed.
        KernelError: the library (or, for "auto", every library) finds no such device.
    """
    if library != "auto" and library not in DEVICE_LIBRARIES:
        raise UsageError(
            f"no library named {library!r}; choose auto, {', '.join(DEVICE_LIBRARIES)}"
        )
    if library != "auto":
        return _open(index, library)
    errors: dict[str, SshrDeployError] = {}
    for name in DEVICE_LIBRARIES:
        try:
            device = _open(index, name)
        except (KernelError, MissingExtraError) as error:
            errors[name] = error
            continue
        device.rejected = {name: str(error) for name, error in errors.items()}
        return device
    if all(isinstance(error.__cause__, ModuleNotFoundError) for error in errors.values()):
        raise MissingExtraError("cuda-core", "gpu")
    raise KernelError(
        "no CUDA device can be used: " + "; ".join(f"{name}: {e}" for name, e in errors.items())
    )


def _open(index: int, library: str) -> Device:
    return PycudaDevice(index) if library == "pycuda" else CudaCoreDevice(index)
