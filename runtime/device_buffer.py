"""Memory of a CUDA device."""

from __future__ import annotations

from typing import Any, Protocol

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.closing import Closing


class Owner(Protocol):
    """The device that a buffer is memory of."""

    def free(self, handle: Any) -> None:
        """Give the memory back."""
        ...


class Buffer(Closing):
    """`nbytes` of memory at `pointer`; `Device.allocate` makes them.

    It is freed by `close`, with the device, or when nobody holds it any more.
    """

    def __init__(self, owner: Owner, handle: Any, pointer: int, nbytes: int) -> None:
        self.owner = owner
        self.handle = handle
        """The library's own object; None once it is closed."""
        self.pointer = pointer
        self.nbytes = nbytes

    def close(self) -> None:
        """Free the memory once what was asked of the device before is done; safe to call twice."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self.owner.free(handle)

    def check(self, name: str, owner: Owner, nbytes: int = 0) -> None:
        """Check that this can be used as the argument `name` of `owner` for `nbytes`.

        Raises:
            KernelArgumentError: it is closed, of another device or too small.
        """
        if self.owner is not owner:
            raise KernelArgumentError(f"{name} belongs to another device; allocate it on this one")
        if self.handle is None:
            raise KernelArgumentError(f"{name} is closed; allocate another")
        if nbytes > self.nbytes:
            raise KernelArgumentError(f"{name} has {self.nbytes} bytes; it must have {nbytes}")
