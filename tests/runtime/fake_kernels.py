"""What the kernels of a `FakeGpu` do: NumPy on its memory.

The two of `cam_to_mask` do with OpenCV what `runtime.masks.label_map` does, so they give its bits,
but each only its own half: the ranges go from the first to the second through memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.launch import Variant
from sshr_deploy.runtime.kernels.manifest import Cubin, KernelManifest, write_manifest

CODE = b"\x7fELF with all the kernels of a fake GPU"
ENTRY = "scale_kernel"
_EPSILON = np.float32(plan.MIN_MAX_EPSILON)

View = Callable[[int, Any, tuple[int, ...]], NDArray[Any]]
"""Pointer, dtype and shape -> the memory as an array."""


class Code(NamedTuple):
    """A kernel's arguments, as `struct` names them, and what it does."""

    layout: str
    run: Callable[..., None]


def _scale(view: View, grid: Any, x: int, count: int, factor: float, y: int) -> None:
    """scale_kernel(x: *fp16, N: i32, f: fp32, y: *fp32): y = f x."""
    half = view(x, np.float16, (count,)).astype(np.float32)
    view(y, np.float32, (count,))[:] = half * np.float32(factor)


def _ranges(view: View, grid: Any, *arguments: Any) -> None:
    *pointers, classes, h, w, height, width, w1, w2, w3, threshold, ranges = arguments
    batch = grid[1]
    assert grid == (3 * classes, batch, 1)
    found = view(ranges, np.float32, (batch, 3, classes, 2))
    for b, n, ups in _upsampled(view, pointers, (batch, classes, h, w), threshold, height, width):
        for level, (up, weight) in enumerate(zip(ups, (w1, w2, w3), strict=True)):
            low, high = up.min(), up.max()
            found[b, level, n] = low, np.float32(weight) / (high - low + _EPSILON)


def _mask(view: View, grid: Any, *arguments: Any) -> None:
    *pointers, ranges, classes, h, w, height, width, threshold, labels = arguments
    batch = grid[2]
    assert grid == (-(-width // 32), -(-height // 8), batch)
    ready = view(ranges, np.float32, (batch, 3, classes, 2))
    found = view(labels, np.uint8, (batch, height, width))
    found[:] = 0
    best = np.zeros((batch, height, width), np.float32)
    for b, n, ups in _upsampled(view, pointers, (batch, classes, h, w), threshold, height, width):
        score = np.zeros((height, width), np.float32)
        for level, up in enumerate(ups):
            low, factor = ready[b, level, n]
            score += (up - low) * factor
        found[b][score > best[b]] = n
        best[b] = np.maximum(best[b], score)


def _upsampled(
    view: View,
    pointers: list[int],
    shape: tuple[int, int, int, int],
    threshold: float,
    height: int,
    width: int,
) -> Iterator[tuple[int, int, list[NDArray[np.float32]]]]:
    """Patch, class that is on, and its three CAMs at full size."""
    cams = [view(pointer, np.float32, shape) for pointer in pointers[:3]]
    prob = view(pointers[3], np.float32, shape[:2])
    for b, n in np.ndindex(*shape[:2]):
        if prob[b, n] > np.float32(threshold) or n == prob[b].argmax():
            ups = [cv2.resize(cam[b, n], (width, height)) for cam in cams]
            yield b, n, [np.asarray(up, np.float32) for up in ups]


KERNELS = {
    ENTRY: Code("PifP", _scale),
    plan.RANGES.function: Code("PPPP" + "iiiii" + "ffff" + "P", _ranges),
    plan.MASK.function: Code("PPPP" + "P" + "iiiii" + "f" + "P", _mask),
}


def make_mask_kernels(folder: Path, sm: int) -> Path:
    """A folder of precompiled kernels that has `cam_to_mask` for one SM."""
    folder.mkdir()
    (folder / "all.cubin").write_bytes(CODE)
    cubins = tuple(_cubin(variant, sm, folder) for variant in (plan.RANGES, plan.MASK))
    write_manifest(folder, KernelManifest("3.6.0", {"cam_to_mask": "2" * 64}, cubins))
    return folder


def _cubin(variant: Variant, sm: int, folder: Path) -> Cubin:
    return Cubin(
        op=variant.op,
        variant=variant.name,
        sm=sm,
        arch=f"sm_{sm}",
        file="all.cubin",
        sha256=hashlib.sha256(CODE).hexdigest(),
        ptxas="12.8",
        entry=variant.function,
        parameters=tuple(variant.signature.items()),
        multiples_of_16=variant.multiples_of_16,
        constants=variant.constants,
        num_warps=variant.num_warps,
        num_stages=variant.num_stages,
        shared_bytes=256,
        registers=40,
        stack_bytes=0,
        spill_store_bytes=0,
        spill_load_bytes=0,
        folder=folder,
    )
