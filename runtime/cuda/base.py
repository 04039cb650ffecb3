"""A CUDA device for precompiled kernels: memory, copies and launches.

    with open_device() as device:
        kernel = device.load(manifest.find("hfrm_cam", "fp16-nhwc-n4", device.sm))
        feature = device.allocate(nbytes)
        device.upload(feature, array)
        device.launch(kernel, (64, 1, 1), (feature, ..., 56, 56, ..., cam))
        cams = device.download(cam, np.float32, (1, 4, 56, 56))

Everything that is asked of a device happens in the order in which it was asked; work
beside it is what `streams` is for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import (
    KernelArgumentError,
    KernelError,
    SshrDeployError,
    first_line,
)
from sshr_deploy.runtime.cuda.buffers import Buffer, Memory, Pinned
from sshr_deploy.runtime.cuda.streams import Kernel, Queue, Stream, checked_launch
from sshr_deploy.runtime.kernels.manifest import Cubin, sm_text

DEFAULT_SHARED_BYTES = 48 << 10
"""Dynamic shared memory of a block that a kernel may have without asking for it."""


class Device(Closing, ABC):
    """A device by either library; a context manager, to be used in the thread that opened it.

    The public methods check what they are given and raise `KernelArgumentError` where it is wrong
    and `KernelError` where the library fails or the device is closed. What the library does is in
    its `Queue` and in the methods below them, which may rely on those checks.
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
    _queue: Queue
    """Of the work that is asked of the device itself."""

    def __init__(self) -> None:
        self.rejected = {}
        self._buffers: WeakSet[Buffer] = WeakSet()
        self._streams: list[Stream] = []  # these two hold what no library frees by itself
        self._pinned: list[Pinned] = []
        self._closed = False

    def allocate(self, nbytes: int) -> Buffer:
        """Memory of `nbytes` >= 1 bytes with any content, aligned to 256 bytes."""
        _check_size(nbytes)
        with self.errors(f"allocate {nbytes} bytes"):
            handle, pointer = self._allocate(nbytes)
        buffer = Buffer(self, handle, pointer, nbytes)
        self._buffers.add(buffer)
        return buffer

    def pinned(self, nbytes: int) -> Pinned:
        """Memory of the host of `nbytes` >= 1 bytes with any content, for `Stream`'s copies."""
        _check_size(nbytes)
        with self.errors(f"pin {nbytes} bytes of the host"):
            handle, array = self._pin(nbytes)
        pinned = Pinned(self, handle, array)
        self._pinned.append(pinned)
        return pinned

    def free(self, memory: Memory) -> None:
        """Free what `allocate` or `pinned` gave; `Memory.close` calls this."""
        with self.errors("free memory"):
            for stream in self._open_streams():
                stream.synchronize()
            self._queue.synchronize()
            if isinstance(memory, Pinned):
                self._pinned.remove(memory)
                memory.array = np.empty(0, np.uint8)
                self._unpin(memory.handle)
            else:
                self._free(memory.handle)

    def stream(self) -> Stream:
        """A stream of its own for work beside that of the device."""
        with self.errors("make a stream"):
            stream = Stream(self, self._open_queue())
        self._streams = [*self._open_streams(), stream]
        return stream

    def _open_streams(self) -> list[Stream]:
        return [stream for stream in self._streams if not stream.is_closed]

    def upload(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy an array of any dtype, in C order, to the start of `buffer`.

        The array may be changed as soon as this returns.
        """
        buffer.check("buffer", self, array.nbytes)
        if array.nbytes:
            contiguous = np.ascontiguousarray(array)
            with self.errors(f"upload {array.nbytes} bytes"):
                self._queue.copy_in(buffer.pointer, contiguous)
                self._queue.synchronize()

    def download(self, buffer: Buffer, dtype: DTypeLike, shape: Sequence[int]) -> NDArray[Any]:
        """The start of `buffer` as a new array, once what was asked before is done."""
        array = np.empty(shape, dtype)
        buffer.check("buffer", self, array.nbytes)
        if array.nbytes:
            with self.errors(f"download {array.nbytes} bytes"):
                self._queue.copy_out(array, buffer.pointer)
                self._queue.synchronize()
        return array

    def fill(self, buffer: Buffer, byte: int = 0) -> None:
        """Set every byte of `buffer`."""
        buffer.check("buffer", self)
        if not 0 <= byte <= 255:
            raise KernelArgumentError(f"byte is {byte}; it must be from 0 to 255")
        with self.errors(f"fill {buffer.nbytes} bytes"):
            self._queue.fill(buffer.pointer, buffer.nbytes, byte)

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
        with self.errors(f"load {cubin.label}"):
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
        checked_launch(self, self._queue, kernel, grid, arguments)

    def synchronize(self) -> None:
        """Wait until everything that was asked is done; what failed in a kernel shows here.

        What was asked of a `Stream` has its own `synchronize`.
        """
        with self.errors("finish"):
            self._queue.synchronize()

    def close(self) -> None:
        """Free all memory and let go of the device and its streams; safe to call twice."""
        if self._closed:
            return
        try:
            for part in (*self._streams, *self._pinned, *self._buffers):
                part.close()
        finally:
            with self.errors("close"):
                self._closed = True
                self._close()

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns what the library raises into `KernelError`, and refuses once this is closed."""
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
        """The library's object and the pointer, which every stream can use from now on."""

    @abstractmethod
    def _free(self, handle: Any) -> None:
        """Free what nothing uses any more."""

    @abstractmethod
    def _pin(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        """The library's object and the memory."""

    @abstractmethod
    def _unpin(self, handle: Any) -> None: ...

    @abstractmethod
    def _open_queue(self) -> Queue: ...

    @abstractmethod
    def _load(self, cubin: Cubin, code: bytes) -> Any:
        """The library's kernel, allowed its `cubin.shared_bytes`."""

    @abstractmethod
    def _close(self) -> None: ...


def _check_size(nbytes: int) -> None:
    if nbytes < 1:
        raise KernelArgumentError(f"nbytes is {nbytes}; it must be 1 or more")
