"""How far a kernel may be from its specification: one measure, one table."""

from __future__ import annotations

import torch
from torch import Tensor

RELATIVE_RMS = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 5e-3,  # rounding gives 2e-3; the interpreter truncates, which gives 4e-3
}
"""Largest `relative_rms_error`, by the least precise type that is read or written."""


def relative_rms_error(got: Tensor, expected: Tensor) -> float:
    """RMS(got - expected) / RMS(expected), in float64; NaN, which is below nothing, if any is NaN.

    Raises:
        AssertionError: the shapes differ.
    """
    assert got.shape == expected.shape
    exact = expected.detach().double().cpu()
    error = (got.detach().double().cpu() - exact).square().mean().sqrt().item()
    size = exact.square().mean().sqrt().item()
    if size == 0:
        return float("inf") if error else 0.0
    return error / size
