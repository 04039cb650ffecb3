"""Arguments of a launch, checked against the manifest and converted to what the kernel expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.cuda.buffers import Buffer, Owner
from sshr_deploy.runtime.kernels.manifest import Cubin

POINTER_ALIGNMENT = 16
"""Bytes; the kernels are compiled for it, see `launch.Variant.multiples_of_16`."""
_MAX_GRID = {"x": (1 << 31) - 1, "y": 65535, "z": 65535}  # of every SM; CUDA Programming Guide
_NUMBERS: Mapping[str, type[np.number[Any]]] = {
    "i32": np.int32,
    "i64": np.int64,
    "u32": np.uint32,
    "u64": np.uint64,
    "fp32": np.float32,
    "fp64": np.float64,
}


def checked_grid(grid: Sequence[int]) -> tuple[int, int, int]:
    """The same grid, of Python's ints.

    Raises:
        KernelArgumentError: not three whole numbers from 1 to what CUDA allows.
    """
    sizes = dict(zip(_MAX_GRID, grid, strict=False))
    if len(grid) != 3 or not all(
        _is_number(size, Integral) and 1 <= size <= _MAX_GRID[axis] for axis, size in sizes.items()
    ):
        wanted = ", ".join(f"{axis} to {limit}" for axis, limit in _MAX_GRID.items())
        raise KernelArgumentError(
            f"grid is {tuple(grid)}; it must be three whole numbers from 1 ({wanted})"
        )
    return int(grid[0]), int(grid[1]), int(grid[2])


def packed_arguments(
    cubin: Cubin, arguments: Sequence[Buffer | int | float], owner: Owner
) -> list[np.number[Any]]:
    """A NumPy number of the right width for each of the kernel's parameters.

    Args:
        cubin: the kernel.
        arguments: a buffer for each pointer, a number for each other parameter, in their order.
        owner: the device that the buffers have to be of.

    Returns:
        Eight bytes for a pointer, else what the parameter's type says.

    Raises:
        KernelArgumentError: names the parameter, what it is and what it must be.
    """
    if len(arguments) != len(cubin.parameters):
        names = ", ".join(name for name, _ in cubin.parameters)
        raise KernelArgumentError(
            f"{cubin.label} takes {len(cubin.parameters)} arguments ({names}); "
            f"{len(arguments)} were given"
        )
    return [
        _packed(f"{cubin.label}: {name}", kind, name in cubin.multiples_of_16, argument, owner)
        for (name, kind), argument in zip(cubin.parameters, arguments, strict=True)
    ]


def _packed(name: str, kind: str, is_multiple: bool, argument: Any, owner: Owner) -> Any:
    if kind.startswith("*"):
        return _packed_pointer(name, kind, argument, owner)
    if isinstance(argument, Buffer):
        raise KernelArgumentError(f"{name} is a buffer; it must be a number ({kind})")
    number: Any = _NUMBERS[kind]
    if issubclass(number, np.integer):
        limits = np.iinfo(number)
        if not (_is_number(argument, Integral) and limits.min <= argument <= limits.max):
            raise KernelArgumentError(
                f"{name} is {argument!r}; it must be a whole number that fits {kind}"
            )
        if is_multiple and argument % 16:
            raise KernelArgumentError(f"{name} is {argument}; it must be divisible by 16")
        return number(argument)
    if not _is_number(argument, Real) or (
        math.isfinite(argument) and abs(float(argument)) > float(np.finfo(number).max)
    ):
        raise KernelArgumentError(f"{name} is {argument!r}; it must be a number that fits {kind}")
    return number(argument)


def _packed_pointer(name: str, kind: str, argument: Any, owner: Owner) -> np.uint64:
    if not isinstance(argument, Buffer):
        raise KernelArgumentError(f"{name} is {argument!r}; it must be a buffer ({kind})")
    argument.check(name, owner)
    if argument.pointer % POINTER_ALIGNMENT:
        raise KernelArgumentError(
            f"{name} is at {argument.pointer:#x}; it must be aligned to {POINTER_ALIGNMENT} bytes"
        )
    return np.uint64(argument.pointer)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
