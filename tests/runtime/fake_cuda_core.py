"""Stand-ins for `cuda.core` and `cuda.bindings.driver`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.runtime.fake_gpu import OPTIN_BYTES, SM, FakeError, FakeGpu, FakeKernel, fake_module

Result = IntEnum(
    "Result",
    {
        "CUDA_SUCCESS": 0,
        "CUDA_ERROR_INVALID_VALUE": 1,
        "CUDA_ERROR_OUT_OF_MEMORY": 2,
        "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901,
    },
)
CaptureMode = IntEnum("CaptureMode", {"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1})
Attribute = IntEnum("Attribute", {"CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 8})


def fake_cuda_core(gpu: FakeGpu) -> dict[str, ModuleType]:
    """`cuda.core` and `cuda.bindings.driver`, by name."""
    kernels: dict[int, FakeKernel] = {}

    class Stream:
        def __init__(self) -> None:
            if gpu.fault:
                raise FakeError(gpu.fault)
            self.handle: int = gpu.open_stream()

        def sync(self) -> None:
            gpu.synchronize(self.handle)

        def close(self) -> None:
            self.handle = 0

    class Buffer:
        def __init__(self, size: int, stream: Stream) -> None:
            assert stream.handle in gpu.waiting
            self.handle = gpu.allocate(size)
            gpu.submit("allocate", stream.handle, lambda: None)  # other streams have to wait for it

        def close(self, stream: Stream) -> None:
            assert stream.handle in gpu.waiting
            gpu.free(self.handle)

    class Device:
        def __init__(self, index: int) -> None:
            if index != 0:
                raise ValueError(f"device_id must be within [0, 1), got {index}")
            self.device_id = index
            self.name = "a fake GPU"
            self.compute_capability = SimpleNamespace(major=SM // 10, minor=SM % 10)
            self.properties = SimpleNamespace(max_shared_memory_per_block_optin=OPTIN_BYTES)
            self.is_current = False

        def set_current(self) -> None:
            self.is_current = True

        def create_stream(self) -> Stream:
            assert self.is_current
            return Stream()

        def allocate(self, size: int, *, stream: Stream) -> Buffer:
            return Buffer(size, stream)

    class ObjectCode:
        def __init__(self, code: bytes) -> None:
            self.code = code

        @staticmethod
        def from_cubin(module: bytes, *, name: str = "") -> ObjectCode:
            assert type(module) is bytes and type(name) is str
            return ObjectCode(module)

        def get_kernel(self, name: str) -> FakeKernel:
            kernel = gpu.load(self.code, name)
            return kernels.setdefault(kernel.handle, kernel)

    class LaunchConfig:
        def __init__(self, *, grid: Any, block: Any, shmem_size: int) -> None:
            assert all(type(size) is int for size in (*grid, *block, shmem_size))
            self.grid, self.block, self.shmem_size = grid, block, shmem_size

    def launch(stream: Stream, config: LaunchConfig, kernel: FakeKernel, *arguments: Any) -> None:
        packed = [_cuda_core_argument(argument) for argument in arguments]
        kernel.launch(packed, config.grid, config.block, config.shmem_size, stream.handle)

    def done(work: Callable[..., object]) -> Callable[..., tuple[object, ...]]:
        """A function of the driver that gives its status alone."""

        def call(*arguments: Any) -> tuple[object, ...]:
            return gives(work)(*arguments)[:1]

        return call

    def gives(work: Callable[..., object]) -> Callable[..., tuple[object, object]]:
        """A function of the driver that gives its status and a result."""

        def call(*arguments: Any) -> tuple[object, object]:
            if not all(isinstance(argument, int) for argument in arguments):
                return Result(1), None
            try:
                return Result(0), work(*arguments)
            except FakeError as error:
                return Result[error.status], None

        return call

    def set_attribute(attribute: int, value: int, kernel: int, device: int) -> None:
        assert attribute is Attribute(8) and device == 0
        kernels[kernel].allow(value)

    core = fake_module("cuda.core", Device=Device, ObjectCode=ObjectCode, launch=launch)
    core.__dict__.update(LaunchConfig=LaunchConfig, __version__="1.2.2")
    driver = fake_module("cuda.bindings.driver", CUresult=Result)
    driver.__dict__.update(
        CUfunction_attribute=Attribute,
        CUstreamCaptureMode=CaptureMode,
        cuMemcpyHtoDAsync=done(gpu.copy),
        cuMemcpyDtoHAsync=done(gpu.copy),
        cuMemsetD8Async=done(gpu.fill),
        cuKernelSetAttribute=done(set_attribute),
        cuMemAllocHost=gives(gpu.pin),
        cuMemFreeHost=done(gpu.unpin),
        cuStreamBeginCapture=done(gpu.begin_capture),
        cuStreamEndCapture=gives(gpu.end_capture),
        cuGraphInstantiate=gives(gpu.instantiate),
        cuGraphLaunch=done(gpu.launch_graph),
        cuGraphDestroy=done(gpu.close_graph),
        cuGraphExecDestroy=done(gpu.close_graph),
    )
    return {"cuda.core": core, "cuda.bindings.driver": driver}


def _cuda_core_argument(argument: Any) -> bytes:
    if isinstance(argument, np.generic):
        return argument.tobytes()
    if type(argument) is int:  # taken for a pointer
        return struct.pack("P", argument)
    if type(argument) is float:
        return struct.pack("d", argument)
    raise TypeError(f"the argument is of unsupported type: {type(argument)}")
