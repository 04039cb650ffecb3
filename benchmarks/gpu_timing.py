"""Times of calls on a GPU, and the two ceilings that they are held against; on a CPU for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sshr_deploy.runtime.spread import spread_of

Call = Callable[[], object]

_ROUNDS = {"cuda": (3, 10), "cpu": (0, 1)}
"""Rounds to warm up, and the fewest that are timed; a CPU is for tests."""


@dataclass(frozen=True)
class Ceilings:
    """What this device reached on the two simplest things, in this run."""

    copy_gb_per_s: float
    """Bytes read plus bytes written of a large copy inside the device's memory."""
    product_tflop_per_s: float
    """A large matrix product of random numbers in the given type."""


def replay(calls: Sequence[Call]) -> Call:
    """All `calls` as one: on a GPU a captured graph, so that no launch is waited for.

    Calls are made once before the capture, on the stream of the capture, as libraries set
    themselves up then.
    """
    if not torch.cuda.is_available():
        return lambda: [call() for call in calls]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept = [call() for call in calls]  # outputs stay alive as long as the graph

    def all_again() -> object:
        graph.replay()
        return kept

    return all_again


def timed_ms(call: Call) -> float:
    """Milliseconds of one call: by the device's clock on a GPU, by the host's on a CPU."""
    if not torch.cuda.is_available():
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1e3
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def alternate(
    calls: Mapping[str, Call], seconds: float, divisor: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of each call; they take turns until `seconds` have passed.

    `divisor` is how many calls of interest are in one: each sample is divided by it.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    warm_up, fewest = _ROUNDS["cuda" if torch.cuda.is_available() else "cpu"]
    for _ in range(warm_up):
        for call in calls.values():
            call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or any(len(own) < fewest for own in samples.values()):
        for name, call in calls.items():
            samples[name].append(timed_ms(call) / divisor)
    return samples


def statistics(samples_ms: Sequence[float]) -> dict[str, Any]:
    """See `Spread.figures`, and the samples; where a sample is a mean of several calls
    (`alternate`'s divisor), quartiles and percentiles are those of the means."""
    return {
        **spread_of(samples_ms).figures(),
        "samples_ms": [round(sample, 6) for sample in samples_ms],
    }


@contextmanager
def without_tf32() -> Iterator[None]:
    """FP32 products and convolutions in FP32 inside the block."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def relative_rms(got: Tensor, expected: Tensor) -> float:
    """RMS(got - expected) / RMS(expected), in float64; NaN if any is NaN."""
    got, expected = got.double(), expected.double()
    return float(((got - expected).square().mean() / expected.square().mean()).sqrt())


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Copy bandwidth, and the rate of matrix products in `dtype`, on random numbers."""
    large = device.type == "cuda"
    elements, side = (2**29, 8192) if large else (2**20, 256)
    source = torch.randint(0, 127, (elements,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = alternate({"copy": lambda: target.copy_(source)}, 0.3)["copy"]
    a, b = (_random((side, side), dtype, device) for _ in range(2))
    products = alternate({"product": lambda: a @ b}, 0.5)["product"]
    return Ceilings(
        2 * elements / float(np.median(copies)) / 1e6,
        2 * side**3 / float(np.median(products)) / 1e9,
    )


def sets_beyond_cache(bytes_of_one: int, device: torch.device) -> int:
    """How many sets of inputs are needed so that a call never finds its own in the cache."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(128, -(-2 * cache // bytes_of_one)))


def _random(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)
