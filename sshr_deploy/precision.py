"""Numeric types that an engine computes in."""

from __future__ import annotations

from sshr_deploy.choice import Choice


class Precision(Choice):
    """Type of convolutions and their weights.

    Patches enter as uint8 and leave as float32 CAMs and probabilities; the mean over the deep
    feature, the semantic gate and what follows the CAM heads are FP32 in all.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    """8-bit convolutions but for those that a budget kept wider."""
