"""A CUDA device through cuda-core (0.5 or newer) and the driver's functions of cuda-bindings."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, MissingExtraError, first_line
from sshr_deploy.runtime.cuda.base import DEFAULT_SHARED_BYTES, Device
from sshr_deploy.runtime.cuda.streams import CapturedWork, Kernel, Queue
from sshr_deploy.runtime.kernels.manifest import Cubin

_FIX = "pip install --upgrade 'sshr-deploy[gpu]'"


class CudaCoreDevice(Device):
    """CUDA device `index` in its primary context, which other libraries share; see `open_device`.

    Raises:
        MissingExtraError: cuda-core is not installed.
        KernelError: there is no such device, or no driver.
    """

    _queue: CudaCoreQueue

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self._core, self._driver = import_cuda_core()
        self.library = f"cuda-core {self._core.__version__}"
        with self.errors(f"open CUDA device {index}"):
            device: Any = self._core.Device(index)
            device.set_current()
            capability = device.compute_capability
            self.name = device.name
            self.sm = capability.major * 10 + capability.minor
            self.max_shared_bytes = device.properties.max_shared_memory_per_block_optin
            self._device = device
            self._queue = self._open_queue()

    def _open_queue(self) -> CudaCoreQueue:
        return CudaCoreQueue(self._core, self._driver, self._device.create_stream())

    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        handle = self._device.allocate(nbytes, stream=self._queue.stream)
        self._queue.synchronize()  # it is there for this stream alone until then
        return handle, int(handle.handle)

    def _free(self, handle: Any) -> None:
        handle.close(self._queue.stream)

    def _pin(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        pointer = _result(self._driver, "cuMemAllocHost", nbytes)
        memory = (ctypes.c_uint8 * nbytes).from_address(int(pointer))
        return pointer, np.ctypeslib.as_array(memory)

    def _unpin(self, handle: Any) -> None:
        _result(self._driver, "cuMemFreeHost", handle)

    def _load(self, cubin: Cubin, code: bytes) -> Any:
        kernel = self._core.ObjectCode.from_cubin(code, name=cubin.label).get_kernel(cubin.entry)
        if cubin.shared_bytes > DEFAULT_SHARED_BYTES:  # cuda-core leaves the limit as it is
            attribute = self._driver.CUfunction_attribute
            _result(
                self._driver,
                "cuKernelSetAttribute",
                attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                cubin.shared_bytes,
                kernel.handle if hasattr(kernel, "handle") else kernel._handle,  # 0.5
                self._device.device_id,
            )
        return kernel

    def _close(self) -> None:
        self._queue.close()


class CudaCoreQueue(Queue):
    """A stream of cuda-core. It copies between its own buffers only, so copies are the driver's."""

    def __init__(self, core: Any, driver: Any, stream: Any) -> None:
        self.stream = stream
        self.handle = int(stream.handle)
        self._core = core
        self._driver = driver

    def copy_in(self, pointer: int, array: NDArray[Any]) -> None:
        """See `Queue`."""
        self._call("cuMemcpyHtoDAsync", pointer, array.ctypes.data, array.nbytes, self.handle)

    def copy_out(self, array: NDArray[Any], pointer: int) -> None:
        """See `Queue`."""
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, pointer, array.nbytes, self.handle)

    def fill(self, pointer: int, nbytes: int, byte: int) -> None:
        """See `Queue`."""
        self._call("cuMemsetD8Async", pointer, byte, nbytes, self.handle)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], packed: Sequence[np.number[Any]]
    ) -> None:
        """See `Queue`."""
        config = self._core.LaunchConfig(
            grid=grid,
            block=(32 * kernel.cubin.num_warps, 1, 1),
            shmem_size=kernel.cubin.shared_bytes,
        )
        self._core.launch(self.stream, config, kernel.handle, *packed)

    def capture(self, work: Callable[[], object]) -> CapturedWork:
        """See `Queue`; calls of this thread that a graph cannot hold fail, those of others do not.

        Source: CUDA Driver API, cuStreamBeginCapture, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL.
        """
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self.handle, mode)
        try:
            work()
        except BaseException:
            # The stream has to leave the capture in any case; `work` has said what is wrong.
            status, graph = self._driver.cuStreamEndCapture(self.handle)
            if status == self._driver.CUresult.CUDA_SUCCESS:
                self._call("cuGraphDestroy", graph)
            raise
        graph = self._call("cuStreamEndCapture", self.handle)
        try:
            ready = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return CapturedWork(
            launch=lambda: self._call("cuGraphLaunch", ready, self.handle),
            close=lambda: self._call("cuGraphExecDestroy", ready),
        )

    def synchronize(self) -> None:
        """See `Queue`."""
        self.stream.sync()

    def close(self) -> None:
        """See `Queue`."""
        self.stream.close()

    def _call(self, function: str, *arguments: Any) -> Any:
        return _result(self._driver, function, *arguments)


def _result(driver: Any, function: str, *arguments: Any) -> Any:
    """The value that a function of the driver gives; None where it gives none."""
    status, *result = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function} failed with {status.name}")
    return result[0] if result else None


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
