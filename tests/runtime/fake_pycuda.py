"""Stand-ins for `pycuda` and `pycuda.driver`."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.runtime.fake_gpu import OPTIN_BYTES, SM, FakeError, FakeGpu, FakeKernel, fake_module


def fake_pycuda(gpu: FakeGpu) -> dict[str, ModuleType]:
    """`pycuda` and `pycuda.driver`, by name."""

    def check_context() -> None:
        if gpu.contexts == 0:
            raise FakeError("invalid device context")

    class Context:
        def push(self) -> None:
            gpu.contexts += 1

        @staticmethod
        def pop() -> None:
            check_context()
            gpu.contexts -= 1

        def detach(self) -> None: ...

    class Device:
        def __init__(self, index: int) -> None:
            if index != 0:
                raise FakeError("cuDeviceGet failed: invalid device ordinal")

        def name(self) -> str:
            return "a fake GPU"

        def compute_capability(self) -> tuple[int, int]:
            return SM // 10, SM % 10

        def get_attribute(self, attribute: str) -> int:
            return {"optin": OPTIN_BYTES}[attribute]

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self) -> None:
            check_context()
            if gpu.fault:
                raise FakeError(gpu.fault)
            self.handle = gpu.open_stream()

        def synchronize(self) -> None:
            check_context()
            gpu.synchronize(self.handle)

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            check_context()
            self.pointer = gpu.allocate(size)

        def __int__(self) -> int:
            return self.pointer

        def free(self) -> None:
            check_context()
            gpu.free(self.pointer)

    class PagelockedHostAllocation:
        def __init__(self, size: int) -> None:
            check_context()
            self.pointer = gpu.pin(size)
            self.__array_interface__ = {
                "version": 3,
                "shape": (size,),
                "typestr": "|u1",
                "data": (self.pointer, False),
            }

        def free(self) -> None:
            check_context()
            gpu.unpin(self.pointer)

    def pagelocked_empty(shape: int, dtype: Any) -> np.ndarray[Any, Any]:
        assert dtype is np.uint8
        return np.asarray(PagelockedHostAllocation(shape))

    class Function:
        def __init__(self, kernel: FakeKernel) -> None:
            self.kernel = kernel

        def set_attribute(self, attribute: str, value: int) -> None:
            assert attribute == "max dynamic"
            self.kernel.allow(value)

        def __call__(
            self, *arguments: Any, grid: Any, block: Any, shared: int, stream: Any
        ) -> None:
            check_context()
            packed = [_pycuda_argument(index, value) for index, value in enumerate(arguments)]
            self.kernel.launch(packed, grid, block, shared, stream.handle)

    def htod(dest: int, src: Any, stream: Stream) -> None:
        view = memoryview(src)
        assert view.c_contiguous and type(dest) is int
        gpu.copy(dest, src.ctypes.data, view.nbytes, stream.handle)

    def dtoh(dest: Any, src: int, stream: Stream) -> None:
        view = memoryview(dest)
        assert view.c_contiguous and not view.readonly and type(src) is int
        gpu.copy(dest.ctypes.data, src, view.nbytes, stream.handle)

    def memset(dest: int, data: int, size: int, stream: Stream) -> None:
        gpu.fill(dest, data, size, stream.handle)

    def module_from_buffer(buffer: bytes) -> SimpleNamespace:
        check_context()
        return SimpleNamespace(get_function=lambda name: Function(gpu.load(buffer, name)))

    driver = fake_module("pycuda.driver", Device=Device, Context=Context, Stream=Stream)
    driver.__dict__.update(
        init=lambda: None,
        device_attribute=SimpleNamespace(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN="optin"),
        function_attribute=SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES="max dynamic"),
        mem_alloc=DeviceAllocation,
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=htod,
        memcpy_dtoh_async=dtoh,
        memset_d8_async=memset,
        module_from_buffer=module_from_buffer,
    )
    return {"pycuda": fake_module("pycuda", VERSION_TEXT="2026.1"), "pycuda.driver": driver}


def _pycuda_argument(index: int, argument: Any) -> bytes:
    if isinstance(argument, np.number):
        return argument.tobytes()
    raise TypeError(f"invalid type on parameter #{index} (0-based)")
