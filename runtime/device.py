"""A CUDA device for precompiled kernels: memory, copies and launches, behind one of two libraries.

    with open_device() as device:
        kernel = device.load(manifest.find("hfrm_cam", "fp16-nhwc-n4", device.sm))
        feature = device.allocate(nbytes)
        device.upload(feature, array)
        device.launch(kernel, (64, 1, 1), (feature, ..., 56, 56, ..., cam))
        cams = device.download(cam, np.float32, (1, 4, 56, 56))

cuda-core comes as a wheel; pycuda is what older installations have. Neither Triton, nvcc nor torch
is needed. Everything that is asked of a device happens in the order in which it was asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.errors import (
    KernelArgumentError,
    KernelError,
    MissingExtraError,
    SshrDeployError,
    UsageError,
    first_line,
)
from sshr_deploy.runtime.closing import Closing
from sshr_deploy.runtime.device_buffer import Buffer
from sshr_deploy.runtime.kernels.manifest import Cubin, sm_text
from sshr_deploy.runtime.kernels.packing import checked_grid, packed_arguments

LIBRARIES = ("cuda-core", "pycuda")
"""The better first; "auto" takes the first that works."""
DEFAULT_SHARED_BYTES = 48 << 10
"""Dynamic shared memory of a block that a kernel may have without asking for it."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that a device has loaded."""

    device: Device
    cubin: Cubin
    handle: Any
    """The library's own object."""


class Device(Closing, ABC):
    """What both libraries can do; a context manager, to be used in the thread that opened it.

    The public methods check what they are given and raise `KernelArgumentError` where it is wrong
    and `KernelError` where the library fails or the device is closed. What the library does is in
    the methods below them, which may rely on those checks.
    """

    name: str
    sm: int
    """90 for SM 9.0."""
    library: str
    """Library and version, "cuda-core 1.2.2"."""
    rejected: dict[str, str]
    """Libraries that would have been better, each with the reason it was not used."""
    max_shared_bytes: int
    """The most shared memory that a block can ask for."""

    def __init__(self) -> None:
        self.rejected = {}
        self._buffers: WeakSet[Buffer] = WeakSet()
        self._closed = False

    def allocate(self, nbytes: int) -> Buffer:
        """Memory of `nbytes` >= 1 bytes with any content, aligned to 16 bytes at least."""
        if nbytes < 1:
            raise KernelArgumentError(f"nbytes is {nbytes}; it must be 1 or more")
        with self._errors(f"allocate {nbytes} bytes"):
            handle, pointer = self._allocate(nbytes)
        buffer = Buffer(self, handle, pointer, nbytes)
        self._buffers.add(buffer)
        return buffer

    def free(self, handle: Any) -> None:
        """Free what `_allocate` gave; `Buffer.close` calls this."""
        with self._errors("free memory"):
            self._free(handle)

    def upload(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of any dtype, in C order, to the start of `buffer`.

        The array may be changed as soon as this returns.
        """
        buffer.check("buffer", self, array.nbytes)
        if array.nbytes:
            with self._errors(f"upload {array.nbytes} bytes"):
                self._upload(buffer.pointer, np.ascontiguousarray(array))

    def download(self, buffer: Buffer, dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
        """The start of `buffer` as a new array, once what was asked before is done."""
        array = np.empty(shape, dtype)
        buffer.check("buffer", self, array.nbytes)
        if array.nbytes:
            with self._errors(f"download {array.nbytes} bytes"):
                self._download(array, buffer.pointer)
        return array

    def fill(self, buffer: Buffer, byte: int = 0) -> None:
        """Set every byte of `buffer`."""
        buffer.check("buffer", self)
        if not 0 <= byte <= 255:
            raise KernelArgumentError(f"byte is {byte}; it must be from 0 to 255")
        with self._errors(f"fill {buffer.nbytes} bytes"):
            self._fill(buffer.pointer, buffer.nbytes, byte)

    def load(self, cubin: Cubin) -> Kernel:
        """Load a kernel, its file checked.

        Raises:
            KernelError: the file is not what the manifest says, the code is for another SM, or a
                block of it needs more shared memory than this device has.
        """
        if not cubin.runs_on(self.sm):
            raise KernelError(
                f"{cubin.label} is for {cubin.arch}; {self.name} has SM {sm_text(self.sm)}"
            )
        if cubin.shared_bytes > self.max_shared_bytes:
            raise KernelError(
                f"{cubin.label} needs {cubin.shared_bytes} bytes of shared memory a block; "
                f"{self.name} has {self.max_shared_bytes}"
            )
        code = cubin.read()
        with self._errors(f"load {cubin.label}"):
            return Kernel(self, cubin, self._load(cubin, code))

    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], arguments: Sequence[Buffer | int | float]
    ) -> None:
        """Start a kernel; this does not wait for it.

        Args:
            kernel: from `load` of this device.
            grid: programs along the three axes.
            arguments: see `packed_arguments`; checked here, once.
        """
        if kernel.device is not self:
            raise KernelArgumentError("kernel belongs to another device; load it on this one")
        size = checked_grid(grid)
        packed = packed_arguments(kernel.cubin, arguments, self)
        with self._errors(f"launch {kernel.cubin.label}"):
            self._launch(kernel, size, packed)

    def synchronize(self) -> None:
        """Wait until everything that was asked is done; what failed in a kernel shows here."""
        with self._errors("finish"):
            self._synchronize()

    def close(self) -> None:
        """Free all buffers and let go of the device; safe to call twice."""
        if self._closed:
            return
        try:
            for buffer in list(self._buffers):
                buffer.close()
        finally:
            with self._errors("close"):
                self._closed = True
                self._close()

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        if self._closed:
            raise KernelError(f"the device is closed; open it again to {what}")
        try:
            yield
        except SshrDeployError:
            raise
        except Exception as error:  # the libraries have no common base class of their errors
            raise KernelError(f"{self.library} cannot {what}: {first_line(error)}") from error

    @abstractmethod
    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        """The library's object and the pointer."""

    @abstractmethod
    def _free(self, handle: Any) -> None: ...

    @abstractmethod
    def _upload(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous array; it is not used after the return."""

    @abstractmethod
    def _download(self, array: NDArray[Any], pointer: int) -> None:
        """Copy into a C-contiguous array, all of it before the return."""

    @abstractmethod
    def _fill(self, pointer: int, nbytes: int, byte: int) -> None: ...

    @abstractmethod
    def _load(self, cubin: Cubin, code: bytes) -> Any:
        """The library's kernel, allowed its `cubin.shared_bytes`."""

    @abstractmethod
    def _launch(
        self, kernel: Kernel, grid: tuple[int, int, int], packed: Sequence[np.number[Any]]
    ) -> None: ...

    @abstractmethod
    def _synchronize(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


def open_device(index: int = 0, library: str = "auto") -> Device:
    """Open CUDA device `index` with the named library, or with the best that works here ("auto").

    The device's `rejected` says why each better library was not taken.

    Raises:
        UsageError: no library of that name.
        MissingExtraError: neither library is installed.
        KernelError: the library (or, for "auto", every library) finds no such device.
    """
    if library != "auto" and library not in LIBRARIES:
        raise UsageError(f"no library named {library!r}; choose auto, {', '.join(LIBRARIES)}")
    if library != "auto":
        return _open(index, library)
    errors: dict[str, SshrDeployError] = {}
    for name in LIBRARIES:
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
    if library == "pycuda":
        from sshr_deploy.runtime.pycuda_device import PycudaDevice

        return PycudaDevice(index)
    from sshr_deploy.runtime.cuda_core_device import CudaCoreDevice

    return CudaCoreDevice(index)
