"""A GPU that is none; `fake_cuda_core` and `fake_pycuda` are the libraries that drive it.

Memory is the host's. What is asked of a stream waits until the stream is synchronised and touches
the host's arrays only then, so that whoever changes an array or reads a result too early gets what
a GPU might give. The stand-ins refuse what the real libraries refuse, as their sources say: wrong
types of arguments, more dynamic shared memory than allowed, calls without a context, and in a
capture whatever a CUDA graph cannot hold.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.runtime.fake_kernels import CODE, ENTRY, KERNELS

__all__ = ["CODE", "ENTRY", "OPTIN_BYTES", "SM", "FakeError", "FakeGpu", "FakeKernel"]

SM = 89
OPTIN_BYTES = 100 << 10
DEFAULT_BYTES = 48 << 10
_SPARE = 256
"""Bytes of an allocation that only align it."""

Work = Callable[[], object]


class FakeError(Exception):
    """What the libraries raise."""

    def __init__(self, text: str, status: str = "CUDA_ERROR_INVALID_VALUE") -> None:
        super().__init__(text)
        self.status = status


class FakeGpu:
    """One device, and what was asked of it."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.freed: list[Any] = []  # kept, for what still waits may write to it
        self.waiting: dict[int, list[Work]] = {}
        self.captures: dict[int, list[Work] | None] = {}
        """What each stream that captures has caught; None once that is spoilt."""
        self.graphs: dict[int, list[Work]] = {}
        self._graph_handles = 0x9000
        self.log: list[tuple[str, int]] = []
        """What was asked, of which stream; what a graph holds is not asked."""
        self.launches: list[SimpleNamespace] = []
        self.allocations = 0
        """Of the device and of pinned memory, ever."""
        self.contexts = 0
        """Depth of pycuda's stack."""
        self.fault = ""
        """What every later synchronisation fails with, as after a bad address in a kernel."""
        self.spoils_captures = False
        """As where another thread does something that a capture forbids."""

    def allocate(self, nbytes: int) -> int:
        return self._allocate(self.memory, nbytes)

    def free(self, pointer: int) -> None:
        self._spoil_captures("free memory")
        self.freed.append(self.memory.pop(pointer))

    def pin(self, nbytes: int) -> int:
        return self._allocate(self.pinned, nbytes)

    def unpin(self, pointer: int) -> None:
        self._spoil_captures("free pinned memory")
        self.freed.append(self.pinned.pop(pointer))

    def _allocate(self, kind: dict[int, Any], nbytes: int) -> int:
        self._spoil_captures("allocate")
        self.allocations += 1
        memory = ctypes.create_string_buffer(b"\xee" * (nbytes + _SPARE - 1))
        pointer = (ctypes.addressof(memory) + _SPARE - 1) // _SPARE * _SPARE
        kind[pointer] = memory
        return pointer

    def view(self, pointer: int, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Memory of the device as an array."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not any(_holds(start, memory, pointer, nbytes) for start, memory in self.memory.items()):
            raise FakeError("an illegal memory access was encountered")
        memory = (ctypes.c_uint8 * nbytes).from_address(pointer)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def open_stream(self) -> int:
        handle = 0x2000 + len(self.waiting)
        self.waiting[handle] = []
        return handle

    def submit(self, what: str, stream: int, work: Work) -> None:
        """Ask a stream for something."""
        if stream in self.captures:
            caught = self.captures[stream]
            if caught is not None:
                caught.append(work)
            return
        self.log.append((what, stream))
        self.waiting[stream].append(work)

    def synchronize(self, stream: int) -> None:
        if self.fault:
            raise FakeError(f"{self.fault}\nand more")
        if stream in self.captures:
            self.captures[stream] = None
            raise FakeError("operation not permitted when stream is capturing")
        self.log.append(("synchronize", stream))
        waiting, self.waiting[stream] = self.waiting[stream], []
        for work in waiting:
            work()

    def copy(self, to: int, source: int, nbytes: int, stream: int) -> None:
        is_pinned = any(
            _holds(start, memory, place, nbytes)
            for start, memory in self.pinned.items()
            for place in (to, source)
        )
        if stream in self.captures and not is_pinned:
            self._spoil_captures("copy pageable memory")
        self.submit("copy", stream, lambda: ctypes.memmove(to, source, nbytes))

    def fill(self, to: int, byte: int, nbytes: int, stream: int) -> None:
        self.submit("fill", stream, lambda: ctypes.memset(to, byte, nbytes))

    def load(self, code: bytes, entry: str) -> FakeKernel:
        if code != CODE or entry not in KERNELS:
            raise FakeError("named symbol not found")
        return FakeKernel(self, entry)

    def begin_capture(self, stream: int, mode: object) -> None:
        assert getattr(mode, "name", "") == "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"
        self.log.append(("begin capture", stream))
        self.captures[stream] = []

    def end_capture(self, stream: int) -> int:
        caught = self.captures.pop(stream)
        if caught is None or self.spoils_captures:
            raise FakeError("spoilt", "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        return self._keep(caught)

    def instantiate(self, graph: int, flags: int) -> int:
        assert flags == 0
        return self._keep(self.graphs[graph])

    def _keep(self, work: list[Work]) -> int:
        self._graph_handles += 1
        self.graphs[self._graph_handles] = work
        return self._graph_handles

    def launch_graph(self, graph: int, stream: int) -> None:
        work = list(self.graphs[graph])
        self.submit("graph", stream, lambda: [do() for do in work])

    def close_graph(self, graph: int) -> None:
        del self.graphs[graph]

    def _spoil_captures(self, what: str) -> None:
        if self.captures:
            self.captures = dict.fromkeys(self.captures)
            raise FakeError(f"{what}: operation not permitted when stream is capturing")


def _holds(start: int, memory: Any, pointer: int, nbytes: int) -> bool:
    return start <= pointer and pointer + nbytes <= start + ctypes.sizeof(memory) - _SPARE


class FakeKernel:
    """One of `KERNELS`, loaded."""

    def __init__(self, gpu: FakeGpu, entry: str) -> None:
        self.gpu = gpu
        self.code = KERNELS[entry]
        self.handle = 0x7000 + list(KERNELS).index(entry)
        self.limit = DEFAULT_BYTES

    def allow(self, nbytes: int) -> None:
        assert DEFAULT_BYTES < nbytes <= OPTIN_BYTES
        self.limit = nbytes

    def launch(self, packed: list[bytes], grid: Any, block: Any, shared: int, stream: int) -> None:
        if shared > self.limit:
            raise FakeError("invalid argument")
        layout, run = self.code
        assert [len(argument) for argument in packed] == [struct.calcsize(c) for c in layout]
        values = [struct.unpack(c, part)[0] for c, part in zip(layout, packed, strict=True)]
        self.gpu.launches.append(SimpleNamespace(grid=grid, block=block, shared=shared))
        self.gpu.submit("launch", stream, lambda: run(self.gpu.view, grid, *values))


def fake_module(name: str, **content: Any) -> ModuleType:
    """A module that holds `content`."""
    module = ModuleType(name)
    module.__dict__.update(content)
    return module
