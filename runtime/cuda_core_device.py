"""A CUDA device through cuda-core (0.5 or newer) and the driver's functions of cuda-bindings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, MissingExtraError, first_line
from sshr_deploy.runtime.device import DEFAULT_SHARED_BYTES, Device, Kernel
from sshr_deploy.runtime.kernels.manifest import Cubin

_FIX = "pip install --upgrade 'sshr-deploy[gpu]'"


class CudaCoreDevice(Device):
    """CUDA device `index` in its primary context, which other libraries share; see `open_device`.

    Raises:
        MissingExtraError: cuda-core is not installed.
        KernelError: there is no such device, or no driver.
    """

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self._core, self._driver = import_cuda_core()
        self.library = f"cuda-core {self._core.__version__}"
        with self._errors(f"open CUDA device {index}"):
            device: Any = self._core.Device(index)
            device.set_current()
            capability = device.compute_capability
            self.name = device.name
            self.sm = capability.major * 10 + capability.minor
            self.max_shared_bytes = device.properties.max_shared_memory_per_block_optin
            self._stream: Any = device.create_stream()
        self._device = device

    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        handle = self._device.allocate(nbytes, stream=self._stream)
        return handle, int(handle.handle)

    def _free(self, handle: Any) -> None:
        handle.close(self._stream)

    # cuda-core copies between its own buffers only, so copies are the driver's.
    def _upload(self, pointer: int, array: NDArray[Any]) -> None:
        self._call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes)
        self._stream.sync()

    def _download(self, array: NDArray[Any], pointer: int) -> None:
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, pointer, array.nbytes)
        self._stream.sync()

    def _fill(self, pointer: int, nbytes: int, byte: int) -> None:
        self._call("cuMemsetD8Async", pointer, byte, nbytes)

    def _load(self, cubin: Cubin, code: bytes) -> Any:
        kernel = self._core.ObjectCode.from_cubin(code, name=cubin.label).get_kernel(cubin.entry)
        if cubin.shared_bytes > DEFAULT_SHARED_BYTES:  # cuda-core leaves the limit as it is
            attribute = self._driver.CUfunction_attribute
            status = self._driver.cuKernelSetAttribute(
                attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                cubin.shared_bytes,
                kernel.handle if hasattr(kernel, "handle") else kernel._handle,  # 0.5
                self._device.device_id,
            )
            self._check("cuKernelSetAttribute", status)
        return kernel

    def _launch(
        self, kernel: Kernel, grid: tuple[int, int, int], packed: Sequence[np.number[Any]]
    ) -> None:
        config = self._core.LaunchConfig(
            grid=grid,
            block=(32 * kernel.cubin.num_warps, 1, 1),
            shmem_size=kernel.cubin.shared_bytes,
        )
        self._core.launch(self._stream, config, kernel.handle, *packed)

    def _synchronize(self) -> None:
        self._stream.sync()

    def _close(self) -> None:
        self._stream.close()

    def _call(self, function: str, *arguments: Any) -> None:
        """A function of the driver whose last argument is the stream."""
        called = getattr(self._driver, function)
        self._check(function, called(*arguments, self._stream.handle))

    def _check(self, function: str, status: tuple[Any, ...]) -> None:
        if status[0] != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{function} failed with {status[0].name}")


def import_cuda_core() -> tuple[Any, Any]:
    """The modules `cuda.core` and `cuda.bindings.driver`; neither needs a driver for the import.

    Raises:
        MissingExtraError: they are not installed.
        KernelError: cuda-core is older than 0.5, or cuda-bindings is missing or does not fit it.
    """
    try:
        core = importlib.import_module("cuda.core")
        driver = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        if error.name in ("cuda", "cuda.core") and isinstance(error, ModuleNotFoundError):
            raise MissingExtraError("cuda-core", "gpu") from error
        raise KernelError(f"cuda-core cannot start: {first_line(error)}; {_FIX}") from error
    if not hasattr(core, "launch"):
        raise KernelError(f"this cuda-core is older than 0.5; {_FIX}")
    return core, driver
