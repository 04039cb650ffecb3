"""Work of a CUDA device that is done in order: on its own stream, and on others beside it.

with device.stream() as stream, device.pinned(nbytes) as host:
    stream.upload(buffer, host, nbytes)
    stream.launch(kernel, grid, (buffer, ...))
    stream.download(host, buffer, nbytes)
    stream.synchronize()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import KernelArgumentError, KernelError
from sshr_deploy.runtime.cuda.buffers import Buffer, Owner, Pinned
from sshr_deploy.runtime.cuda.packing import checked_grid, packed_arguments
from sshr_deploy.runtime.kernels.manifest import Cubin


class StreamOwner(Owner, Protocol):
    """The device that streams are of."""

    def errors(self, what: str) -> AbstractContextManager[None]:
        """Turns what a library raises into `KernelError`; refuses where the device is closed."""
        ...


@dataclass(frozen=True)
class Kernel:
    """A kernel that a device has loaded."""

    device: Owner
    cubin: Cubin
    handle: Any
    """The library's own object."""


class CapturedWork(NamedTuple):
    """A CUDA graph as a library has it."""

    launch: Callable[[], object]
    close: Callable[[], object]


class Queue(ABC):
    """One stream as a library has it. Nothing is checked here: `Device` and `Stream` do that."""

    handle: int
    """The CUstream."""

    @abstractmethod
    def copy_in(self, pointer: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous array that stays as it is until `synchronize`."""

    @abstractmethod
    def copy_out(self, array: NDArray[Any], pointer: int) -> None:
        """Copy into a C-contiguous array that holds the copy after `synchronize`."""

    @abstractmethod
    def fill(self, pointer: int, nbytes: int, byte: int) -> None:
        """Set bytes."""

    @abstractmethod
    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], packed: Sequence[np.number[Any]]
    ) -> None:
        """Start a kernel."""

    @abstractmethod
    def capture(self, work: Callable[[], object]) -> CapturedWork:
        """The calls that `work` makes on this stream, recorded without being done."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all that was asked."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the stream, on which nothing waits any more."""


class Stream(Closing):
    """Work in order, beside that of the device and of other streams; `Device.stream` makes them.

    A context manager, which waits for what is under way when it closes. Raises as `Device` does.
    """

    def __init__(self, device: StreamOwner, queue: Queue) -> None:
        self.device = device
        self.is_closed = False
        self._queue = queue
        self._graphs: list[Graph] = []

    @property
    def handle(self) -> int:
        """The CUstream, for libraries that take one."""
        self._check("use it")
        return self._queue.handle

    def upload(self, buffer: Buffer, host: Pinned, nbytes: int) -> None:
        """Copy the start of `host`, which must not change before this is done."""
        self._check(what := f"upload {nbytes} bytes")
        buffer.check("buffer", self.device, nbytes)
        host.check("host", self.device, nbytes)
        with self.device.errors(what):
            self._queue.copy_in(buffer.pointer, host.array[:nbytes])

    def download(self, host: Pinned, buffer: Buffer, nbytes: int) -> None:
        """Copy the start of `buffer`; `host` holds it once this is done."""
        self._check(what := f"download {nbytes} bytes")
        buffer.check("buffer", self.device, nbytes)
        host.check("host", self.device, nbytes)
        with self.device.errors(what):
            self._queue.copy_out(host.array[:nbytes], buffer.pointer)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int, int], arguments: Sequence[Buffer | int | float]
    ) -> None:
        """Start a kernel; see `Device.launch`."""
        self._check(f"launch {kernel.cubin.label}")
        checked_launch(self.device, self._queue, kernel, grid, arguments)

    def capture(self, work: Callable[[], object]) -> Graph:
        """A graph of the calls that `work` makes on this stream, none of which is done now.

        It can be launched as often as wanted, each time with one call; the memory that it uses has
        to be there then.

        Raises:
            KernelError: the library has no graphs, or something that `work` does cannot be caught.
        """
        self._check(what := "capture a CUDA graph")
        with self.device.errors(what):
            graph = Graph(self, self._queue.capture(work))
        self._graphs.append(graph)
        return graph

    def synchronize(self) -> None:
        """Wait until everything that was asked of this stream is done; shows what failed in it."""
        self._check(what := "finish")
        with self.device.errors(what):
            self._queue.synchronize()

    def close(self) -> None:
        """Finish, then let go of the stream and its graphs; safe to call twice."""
        if self.is_closed:
            return
        try:
            self.synchronize()
            for graph in self._graphs:
                graph.close()
        finally:
            self.is_closed = True
            with self.device.errors("close a stream"):
                self._queue.close()

    def _check(self, what: str) -> None:
        if self.is_closed:
            raise KernelError(f"the stream is closed; make another to {what}")


class Graph(Closing):
    """Work that was captured on a stream; `Stream.capture` makes them, and closes them with it."""

    def __init__(self, stream: Stream, captured: CapturedWork) -> None:
        self._stream = stream
        self._captured: CapturedWork | None = captured

    def launch(self) -> None:
        """Do the work, after what was asked of the stream before."""
        with self._stream.device.errors(what := "launch a CUDA graph"):
            if self._captured is None:
                raise KernelError(f"the graph is closed; capture another to {what}")
            self._captured.launch()

    def close(self) -> None:
        """Let go of the graph; safe to call twice."""
        captured, self._captured = self._captured, None
        if captured is not None:
            with self._stream.device.errors("close a CUDA graph"):
                captured.close()


def checked_launch(
    device: StreamOwner,
    queue: Queue,
    kernel: Kernel,
    grid: tuple[int, int, int],
    arguments: Sequence[Buffer | int | float],
) -> None:
    """Check a launch and start it, for `Device.launch` and `Stream.launch`."""
    if kernel.device is not device:
        raise KernelArgumentError("kernel belongs to another device; load it on this one")
    size = checked_grid(grid)
    packed = packed_arguments(kernel.cubin, arguments, device)
    with device.errors(f"launch {kernel.cubin.label}"):
        queue.launch(kernel, size, packed)
