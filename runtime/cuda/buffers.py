"""Memory of a CUDA device, and memory of the host that the device reads and writes by itself."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import KernelArgumentError


class Owner(Protocol):
    """The device that memory is of."""

    def free(self, memory: Memory) -> None:
        """Give the memory back."""
        ...


class Memory(Closing):
    """`nbytes` of memory, freed by `close` or with the device."""

    def __init__(self, owner: Owner, handle: Any, nbytes: int) -> None:
        self.owner = owner
        self.handle = handle
        """The library's own object; None once it is closed."""
        self.nbytes = nbytes

    def close(self) -> None:
        """Free the memory once what was asked of the device before is done; safe to call twice."""
        if self.handle is not None:
            try:
                self.owner.free(self)
            finally:
                self.handle = None

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


class Buffer(Memory):
    """Memory of the device at `pointer`; `Device.allocate` makes them.

    It is freed when nobody holds it any more, too.
    """

    def __init__(self, owner: Owner, handle: Any, pointer: int, nbytes: int) -> None:
        super().__init__(owner, handle, nbytes)
        self.pointer = pointer


class Pinned(Memory):
    """Host memory that stays where it is, so that copies run beside the host's work.

    `Device.pinned` makes them.
    """

    def __init__(self, owner: Owner, handle: Any, array: NDArray[np.uint8]) -> None:
        super().__init__(owner, handle, array.nbytes)
        self.array = array
        """uint8 [nbytes]; none of its views may be used once this is closed."""
