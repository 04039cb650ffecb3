"""Variants of a kernel to compile ahead of time, and launches of it; no torch, no Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Launch:
    """One launch: the grid, and the scalars in the order of the kernel's signature."""

    grid: tuple[int, int, int]
    scalars: tuple[int | float, ...]


@dataclass(frozen=True)
class Variant:
    """One ahead-of-time build of a kernel for one SM."""

    op: str
    """Folder of the kernel, "hfrm_cam"."""
    name: str
    """Type, layout and sizes, "fp16-nhwc-n4"; unique within op and SM."""
    function: str
    """Name of the @triton.jit function in the folder's `triton.py`."""
    signature: Mapping[str, str]
    """Triton type of each run-time argument in order, "*fp16", "*fp32", "i32", "fp32"."""
    constants: Mapping[str, int | bool | str]
    """The constexpr arguments."""
    num_warps: int
    num_stages: int = 1
    multiples_of_16: frozenset[str] = field(default_factory=frozenset)
    """Integer arguments that have to be divisible by 16; pointers always are 16-byte aligned."""
    fuse_multiply_add: bool = True
    """False where every product is rounded on its own, to give the bits of NumPy."""
    as_ptx: bool = False
    """Ship the assembler's input, for an engine that is built elsewhere; else machine code."""
