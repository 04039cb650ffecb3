"""Times of calls on a GPU, and the two ceilings that they are held against; on a CPU for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.runtime.machine.spread import spread_of

Call = Callable[[], object]
OnRow = Callable[[dict[str, Any]], None]
"""Gets each row of a benchmark as soon as it is measured."""


def keep_to_the_end(row: dict[str, Any]) -> None:
    """The `OnRow` of callers who wait for all rows."""
    del row


_ROUNDS = {"cuda": (3, 10), "cpu": (0, 1)}
"""Rounds to warm up, and the fewest that are timed; a CPU is for tests."""


@dataclass(frozen=True)
class Ceilings:
    """Rates that this device reached in this run: in a copy, and in a matrix product."""

    copy_gb_per_s: float
    """Bytes read plus bytes written of a large copy inside the device's memory."""
    product_tflop_per_s: float
    """A large matrix product of random numbers in the given type."""


class Replay:
    """`calls` as one: on a GPU a captured graph, so that no launch is waited for.

    It holds the calls, and so the tensors that they read: a graph keeps addresses alone, and memory
    that nobody holds is soon given to another tensor. Calls are made once before the capture, on
    its stream, as libraries set themselves up then.
    """

    results: list[Any]
    """Result of each call in the last replay: a tensor, or a tuple of them."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = tuple(calls)
        self._graph: torch.cuda.CUDAGraph | None = None
        self.results = []
        if torch.cuda.is_available():
            self._capture()

    def __call__(self) -> None:
        """Make all calls again."""
        if self._graph is None:
            self.results = [call() for call in self._calls]
        else:
            self._graph.replay()

    def poison(self) -> None:
        """Overwrite the results, with NaN or the largest whole number: what stays was not written.

        None of them may share memory with what the calls read.
        """
        with torch.inference_mode():
            for tensor in _tensors(self.results):
                whole = not tensor.dtype.is_floating_point
                tensor.fill_(torch.iinfo(tensor.dtype).max if whole else float("nan"))

    def _capture(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in self._calls:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self.results = [call() for call in self._calls]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


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


def alternate_checked(
    replays: Mapping[str, Replay],
    seconds: float,
    check: Callable[[str, Sequence[Any]], object],
    divisor: int = 1,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """`alternate` on poisoned results, which are checked after the last replay.

    Args:
        replays: by name.
        seconds: see `alternate`.
        check: gets a name and its `Replay.results`; raises SshrDeployError where they are wrong.
        divisor: see `alternate`.

    Returns:
        The samples of those whose results are right, and why the others' are wrong.
    """
    for replay in replays.values():
        replay.poison()
    samples = alternate(replays, seconds, divisor)
    wrong = {}
    for name, replay in replays.items():
        try:
            check(name, replay.results)
        except SshrDeployError as error:
            wrong[name] = f"after the timing: {error}"
            del samples[name]
    return samples, wrong


def check_context(name: str) -> None:
    """Check that a failure was of one call alone, and left this process's CUDA context usable.

    Args:
        name: of what has just failed.

    Raises:
        SshrDeployError: the context is lost; every further call would fail.
    """
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
        except Exception as error:  # its class changed from release to release
            raise SshrDeployError(
                f"{name} broke the CUDA context, so nothing more runs in this process: "
                f"{first_line(error)}"
            ) from error


def statistics(samples_ms: Sequence[float]) -> dict[str, Any]:
    """See `Spread.figures`, and the samples; where a sample is a mean of several calls
    (`alternate`'s divisor), quartiles and percentiles are those of the means."""
    return {
        **spread_of(samples_ms).figures(),
        "samples_ms": [round(sample, 6) for sample in samples_ms],
    }


@contextmanager
def autotuned(on: bool = True) -> Iterator[None]:
    """cuDNN tries its algorithms on each new shape and keeps the fastest, inside the block.

    It takes seconds for 15x15 kernels in FP32; `on` is False for what is not timed.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


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
        2 * elements / spread_of(copies).median_ms / 1e6,
        2 * side**3 / spread_of(products).median_ms / 1e9,
    )


def sets_beyond_cache(bytes_of_one: int, device: torch.device) -> int:
    """How many sets of inputs are needed so that a call never finds its own in the cache."""
    if device.type != "cuda":
        return 2
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(128, -(-2 * cache // bytes_of_one)))


def _random(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(dtype)
