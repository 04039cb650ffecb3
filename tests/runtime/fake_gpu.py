"""A GPU that is none; `fake_cuda_core` and `fake_pycuda` are the libraries that drive it.

Memory is the host's. What is asked of a stream waits until the stream is synchronised and touches
the host's arrays only then, so that whoever changes an array or reads a result too early gets what
a GPU might give. The stand-ins refuse what the real libraries refuse, as their sources say: wrong
types of arguments, more dynamic shared memory than allowed, calls without a context.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

CODE = b"\x7fELF with one kernel: scale_kernel(x: *fp16, N: i32, f: fp32, y: *fp32), y = f x"
ENTRY = "scale_kernel"
SM = 89
OPTIN_BYTES = 100 << 10
DEFAULT_BYTES = 48 << 10
_LAYOUT = "PifP"  # no padding in between


class FakeError(Exception):
    """What the libraries raise."""


class FakeGpu:
    """One device, and what was asked of it."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.freed: list[Any] = []  # kept, for what still waits may write to it
        self.waiting: dict[int, list[Callable[[], object]]] = {}
        self.launches: list[SimpleNamespace] = []
        self.contexts = 0
        """Depth of pycuda's stack."""
        self.fault = ""
        """What every later synchronisation fails with, as after a bad address in a kernel."""

    def allocate(self, nbytes: int) -> int:
        memory = ctypes.create_string_buffer(b"\xee" * (nbytes + 256))
        pointer = (ctypes.addressof(memory) + 255) // 256 * 256
        self.memory[pointer] = memory
        return pointer

    def free(self, pointer: int) -> None:
        self.freed.append(self.memory.pop(pointer))

    def open_stream(self) -> int:
        handle = 0x2000 + len(self.waiting)
        self.waiting[handle] = []
        return handle

    def synchronize(self, stream: int) -> None:
        if self.fault:
            raise FakeError(f"{self.fault}\nand more")
        waiting, self.waiting[stream] = self.waiting[stream], []
        for work in waiting:
            work()

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        self.waiting[stream].append(lambda: ctypes.memmove(to, source, nbytes))

    def fill(self, to: int, byte: int, nbytes: int, stream: int) -> None:
        self.waiting[stream].append(lambda: ctypes.memset(to, byte, nbytes))

    def load(self, code: bytes, entry: str) -> FakeKernel:
        if code != CODE or entry != ENTRY:
            raise FakeError("named symbol not found")
        return FakeKernel(self)


class FakeKernel:
    """`scale_kernel`, loaded."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.handle = 0x7000
        self.limit = DEFAULT_BYTES

    def allow(self, nbytes: int) -> None:
        assert DEFAULT_BYTES < nbytes <= OPTIN_BYTES
        self.limit = nbytes

    def launch(self, packed: list[bytes], grid: Any, block: Any, shared: int, stream: int) -> None:
        if shared > self.limit:
            raise FakeError("invalid argument")
        assert [len(argument) for argument in packed] == [struct.calcsize(c) for c in _LAYOUT]
        x, count, factor, y = struct.unpack(_LAYOUT, b"".join(packed))
        self.gpu.launches.append(SimpleNamespace(grid=grid, block=block, shared=shared))

        def run() -> None:
            half = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(x))
            result = half.view(np.float16).astype(np.float32) * np.float32(factor)
            ctypes.memmove(y, result.ctypes.data, result.nbytes)

        self.gpu.waiting[stream].append(run)


def fake_module(name: str, **content: Any) -> ModuleType:
    """A module that holds `content`."""
    module = ModuleType(name)
    module.__dict__.update(content)
    return module
