"""What a user chooses for the latency benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LatencySettings:
    """Settings of one run."""

    batches: Sequence[int]
    """Patches, or fields, of a call."""
    seconds: float
    """Measuring time of each contender at each batch size; six calls are made at least."""
    base: str | None = None
    """Contender that the others are compared with; PyTorch eager by default, else onnx-cpu fp32."""
    cold_starts: int = 0
    """Of each engine, that count."""
    threads: int | None = None
    """Of the CPU; None chooses by width and cores."""
    allow_unqualified: bool = False
    """Tell speeds of contenders whose masks disagree too, without a ratio."""
