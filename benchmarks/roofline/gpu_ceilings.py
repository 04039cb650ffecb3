"""What the GPU reaches at best, by PyTorch; see `ceilings`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from sshr_deploy.benchmarks.measuring.gpu_timing import Replay, alternate, without_tf32
from sshr_deploy.benchmarks.roofline.ceilings import Ceilings, Product
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.precision import Precision

_SECONDS = 0.5
_SIZES = {"cuda": (8192, 2**29), "cpu": (64, 2**16)}
"""Side of the matrices, and bytes that are copied; a CPU is for tests."""
_CACHED_COPIES = 32
"""In a row, as one is over sooner than it is launched."""
_TYPES = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


def measure_gpu_ceilings(precisions: Iterable[Precision], device: torch.device) -> Ceilings:
    """Products of random matrices in `precisions`, FP32 without TF32 as in engines, and copies.

    What this GPU or this PyTorch does not compute in is told as not measured.

    Raises:
        SshrDeployError: there is no memory for a copy.
    """
    side, copied = _SIZES[device.type]
    products, missing = [], {}
    cache = _cache_bytes(device)
    try:
        memory = _copy_gb_per_s(copied, 1, device)
        # Source and target together are half of the cache.
        within = None if cache is None else _copy_gb_per_s(cache // 4, _CACHED_COPIES, device)
    except RuntimeError as error:  # PyTorch's base of all that goes wrong on a GPU
        raise SshrDeployError(f"no copy on the GPU: {first_line(error)}") from error
    with without_tf32():
        for precision in dict.fromkeys(precisions):
            try:
                products.append(_product(precision, side, device))
            except RuntimeError as error:
                missing[precision] = first_line(error)
    return Ceilings(tuple(products), memory, within, cache, None, missing)


def _cache_bytes(device: torch.device) -> int | None:
    """Of the L2 cache; None where it is not known."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).L2_cache_size) or None


def _copy_gb_per_s(count: int, copies: int, device: torch.device) -> float:
    """Read and written by `copies` of `count` bytes in a row, without waiting for each launch."""
    source = torch.randint(0, 127, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    replay = Replay([partial(target.copy_, source)] * copies)
    samples = alternate({"copy": replay}, _SECONDS)["copy"]
    return 2 * count * copies / min(samples) / 1e6


def _product(precision: Precision, side: int, device: torch.device) -> Product:
    def multiplied() -> Tensor:
        return a @ b

    def multiplied_integers() -> Tensor:
        return torch._int_mm(a, b)

    if precision is Precision.INT8:
        shape = (side, side)
        a, b = (torch.randint(-64, 64, shape, dtype=torch.int8, device=device) for _ in range(2))
        call = multiplied_integers
    else:
        a, b = (torch.randn(side, side, device=device).to(_TYPES[precision]) for _ in range(2))
        call = multiplied
    samples = alternate({"product": call}, _SECONDS)["product"]
    return Product(precision, f"torch {torch.__version__}", side, tuple(samples))
