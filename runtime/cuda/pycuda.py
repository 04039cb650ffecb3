"""A CUDA device through pycuda, which is built from source with nvcc."""

from __future__ import annotations

import atexit
import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import KernelError, first_line
from sshr_deploy.runtime.cuda.base import DEFAULT_SHARED_BYTES, Device
from sshr_deploy.runtime.cuda.streams import CapturedWork, Kernel, Queue
from sshr_deploy.runtime.kernels.manifest import Cubin

_PRIMARY_CONTEXTS: dict[int, Any] = {}
"""By device. pycuda leaves a context that it releases on the thread's stack of contexts, and its
destructor releases a primary one wrongly; so it is kept, and released when the process ends."""


class PycudaDevice(Device):
    """CUDA device `index` in its primary context, which other libraries share; see `open_device`.

    Raises:
        KernelError: pycuda is not installed or does not start, or there is no such device.
    """

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self._driver: Any = import_pycuda()
        self.library = f"pycuda {importlib.import_module('pycuda').VERSION_TEXT}"
        self._undo = ExitStack()
        with self.errors(f"open CUDA device {index}"), ExitStack() as undo:
            self._driver.init()
            device = self._driver.Device(index)
            major, minor = device.compute_capability()
            self.name = device.name()
            self.sm = major * 10 + minor
            self.max_shared_bytes = device.get_attribute(
                self._driver.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
            )
            _primary_context(device, index).push()
            undo.callback(self._driver.Context.pop)
            self._queue = self._open_queue()
            self._undo = undo.pop_all()

    def _open_queue(self) -> PycudaQueue:
        return PycudaQueue(self._driver)

    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        handle = self._driver.mem_alloc(nbytes)
        return handle, int(handle)

    def _free(self, handle: Any) -> None:
        handle.free()

    def _pin(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        array = self._driver.pagelocked_empty(nbytes, np.uint8)
        return array.base, array

    def _unpin(self, handle: Any) -> None:
        handle.free()

    def _load(self, cubin: Cubin, code: bytes) -> Any:
        kernel = self._driver.module_from_buffer(code).get_function(cubin.entry)
        if cubin.shared_bytes > DEFAULT_SHARED_BYTES:
            kernel.set_attribute(
                self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, cubin.shared_bytes
            )
        return kernel

    def _close(self) -> None:
        with self._undo:
            self._queue.synchronize()
            self._queue.close()


class PycudaQueue(Queue):
    """A stream of pycuda, which has no CUDA graphs."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._stream: Any = driver.Stream()
        self.handle = self._stream.handle

    def copy_in(self, pointer: int, array: NDArray[Any]) -> None:
        """See `Queue`."""
        self._driver.memcpy_htod_async(pointer, array, self._stream)

    def copy_out(self, array: NDArray[Any], pointer: int) -> None:
        """See `Queue`."""
        self._driver.memcpy_dtoh_async(array, pointer, self._stream)

    def fill(self, pointer: int, nbytes: int, byte: int) -> None:
        """See `Queue`."""
        self._driver.memset_d8_async(pointer, byte, nbytes, self._stream)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], packed: Sequence[np.number[Any]]
    ) -> None:
        """See `Queue`."""
        kernel.handle(
            *packed,
            grid=grid,
            block=(32 * kernel.cubin.num_warps, 1, 1),
            shared=kernel.cubin.shared_bytes,
            stream=self._stream,
        )

    def capture(self, work: Callable[[], object]) -> CapturedWork:
        """Always refused."""
        del work
        raise KernelError("pycuda cannot capture CUDA graphs; pip install 'sshr-deploy[gpu]'")

    def synchronize(self) -> None:
        """See `Queue`."""
        self._stream.synchronize()

    def close(self) -> None:
        """See `Queue`; pycuda lets go of a stream that nobody holds."""
        self._stream = None


def _primary_context(device: Any, index: int) -> Any:
    if index not in _PRIMARY_CONTEXTS:
        _PRIMARY_CONTEXTS[index] = device.retain_primary_context()
        atexit.register(_PRIMARY_CONTEXTS[index].detach)
    return _PRIMARY_CONTEXTS[index]


def import_pycuda() -> Any:
    """The module `pycuda.driver`.

    Raises:
        KernelError: it is not installed, or cannot start.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the error that follows it
            return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise KernelError(
            "pycuda is not installed: pip install pycuda (needs nvcc), or use cuda-core"
        ) from error
    except ImportError as error:
        raise KernelError(f"pycuda cannot start: {first_line(error)}") from error
