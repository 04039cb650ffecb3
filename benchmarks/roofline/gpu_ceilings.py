"""What the GPU reaches at best, by PyTorch; see `ceilings`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sshr_deploy.benchmarks.measuring.gpu_timing import alternate, without_tf32
from sshr_deploy.benchmarks.roofline.ceilings import Ceilings, Product
from sshr_deploy.precision import Precision

_SECONDS = 0.5
_SIZES = {"cuda": (8192, 2**29), "cpu": (64, 2**16)}
"""Side of the matrices, and bytes that are copied; a CPU is for tests."""
_TYPES = {
    Precision.FP32: torch.float32,
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
}


def measure_gpu_ceilings(precisions: Iterable[Precision], device: torch.device) -> Ceilings:
    """Products of random matrices in `precisions`, FP32 without TF32 as in engines, and a copy."""
    side, copied = _SIZES[device.type]
    source = torch.randint(0, 127, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = alternate({"copy": lambda: target.copy_(source)}, _SECONDS)["copy"]
    with without_tf32():
        products = tuple(_product(one, side, device) for one in dict.fromkeys(precisions))
    return Ceilings(products, 2 * copied / min(copies) / 1e6, None, None, None, {})


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
