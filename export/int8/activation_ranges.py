"""Values of the tensors around the convolutions, and the range of them that 8 bits cover.

One pass over the patches fills a histogram a tensor; all range methods read the histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from sshr_deploy.errors import ExportError, first_line
from sshr_deploy.export.graph.conv_layers import ConvLayer
from sshr_deploy.runtime.contract import INPUT_NAME
from sshr_deploy.runtime.machine.threads import onnxruntime_options
from sshr_deploy.runtime.sessions.onnxruntime.session import import_onnxruntime

BINS = 8192
"""Of a histogram, both signs together: at least 2048 of them cover what a ReLU lets through."""
_MSE_STEPS = 100
"""Clipping ranges that are tried, in equal steps from 1 % to all of the measured range."""


class RangeMethod(StrEnum):
    """How much of the measured range is kept; the rest is clipped, so that steps get finer."""

    MIN_MAX = "min-max"
    P99_999 = "p99.999"
    P99_99 = "p99.99"
    P99_9 = "p99.9"
    """Percentiles, of each sign's side."""
    MSE = "mse"
    """Least mean square of rounding and clipping errors."""


class Range(NamedTuple):
    """Values that are kept; always holds 0."""

    low: float
    high: float


class LayerRange(NamedTuple):
    """Ranges around one convolution."""

    input: Range
    output: Range


class Histogram:
    """Counts of values in equal bins around 0, whose width doubles when a value falls outside.

    Doubling joins pairs of bins, so the counts are those of one pass with the final width.
    """

    def __init__(
        self,
        counts: NDArray[np.int64] | None = None,  # [BINS]
        limit: float = 2.0**-40,
        low: float = 0.0,
        high: float = 0.0,
    ) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64) if counts is None else counts
        self.limit = limit
        """The bins cover -limit to limit, a power of two above all magnitudes."""
        self.low = low
        self.high = high

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape, less than 2^24 of them.

        Raises:
            ValueError: one of them is NaN or infinite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("it holds NaN or infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) >= self.limit:
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(1), BINS // 4)
            self.limit *= 2
        # OpenCV counts three times as fast as NumPy.
        row, ends = values.reshape(1, -1), [-self.limit, self.limit]
        self.counts += cv2.calcHist([row], [0], None, [BINS], ends).ravel().astype(np.int64)

    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins [BINS + 1]."""
        return np.linspace(-self.limit, self.limit, BINS + 1)


def histograms(
    onnx_path: Path,
    tensors: Iterable[str],
    patches: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],  # [P, 224, 224, 3]
    on_patch: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Histogram]:
    """Histograms of FP32 `tensors` of the graph over `patches`, run one at a time on the CPU.

    Memory holds the tensors of one patch, 250 MB at full width. `on_patch` is told how many patches
    are done, of how many.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ExportError: the graph cannot be run, or a tensor holds NaN or infinity.
    """
    names = list(dict.fromkeys(tensors))
    session = _session_with_outputs(onnx_path, names)
    found = {name: Histogram() for name in names}
    for done, patch in enumerate(patches, 1):
        try:
            values = session.run(names, {INPUT_NAME: patch[None]})
        except Exception as error:  # ONNX Runtime has no common base class of its errors
            raise ExportError(f"onnxruntime cannot run {onnx_path}: {first_line(error)}") from error
        for name, value in zip(names, values, strict=True):
            try:
                found[name].add(value)
            except ValueError as error:
                raise ExportError(
                    f"tensor {name} of {onnx_path} cannot be quantised: {error}; check the weights"
                ) from error
        on_patch(done, len(patches))
    return found


def range_of(
    histogram: Histogram, method: RangeMethod, *, levels: int, symmetric: bool = False
) -> Range:
    """The range to quantise, which holds 0 and does not exceed what was measured.

    Args:
        histogram: of the tensor.
        method: percentiles are of each end: 99.9 leaves 0.1 % of the values above `high` and, of a
            tensor with negative values, 0.1 % below `low`; `symmetric`, of the magnitudes.
        levels: steps of the whole range, 255 for 8 bits; for `MSE` alone.
        symmetric: `low` is `-high`.
    """
    if symmetric:
        top = max(-histogram.low, histogram.high)
        full = Range(-top, top)
    else:
        full = Range(histogram.low, histogram.high)
    if method is RangeMethod.MIN_MAX or full.low == full.high:
        return full
    if method is RangeMethod.MSE:
        return _least_error(histogram, full, levels)
    share = float(method.removeprefix("p")) / 100
    if symmetric:
        half = BINS // 2
        magnitudes = histogram.counts[half:] + histogram.counts[half - 1 :: -1]
        top = min(_quantile(magnitudes, histogram.edges()[half:], share), full.high)
        return Range(-top, top)
    edges = histogram.edges()
    low = _quantile(histogram.counts, edges, 1 - share) if full.low < 0 else 0.0
    high = _quantile(histogram.counts, edges, share)
    return Range(float(np.clip(low, full.low, 0)), float(np.clip(high, 0, full.high)))


def layer_ranges(
    found: Mapping[str, Histogram],
    layers: Iterable[ConvLayer],
    method: RangeMethod,
    *,
    levels: int,
    symmetric: bool,
) -> dict[str, LayerRange]:
    """Ranges around each layer, by its name; the arguments are those of `range_of`."""
    tensors = {
        name: range_of(histogram, method, levels=levels, symmetric=symmetric)
        for name, histogram in found.items()
    }
    return {layer.name: LayerRange(tensors[layer.input], tensors[layer.output]) for layer in layers}


def quantisation_error(histogram: Histogram, kept: Range, levels: int) -> float:
    """Mean square of value minus its quantised value, each bin taken at its centre.

    `levels` steps cover `kept`, shifted so that 0 is a level, as QuantizeLinear has it.
    """
    edges = histogram.edges()
    centres = (edges[1:] + edges[:-1]) / 2
    step = (kept.high - kept.low) / levels
    first = round(kept.low / step)
    quantised = np.clip(np.rint(centres / step), first, first + levels) * step
    squares = (quantised - centres) ** 2
    return float((histogram.counts * squares).sum() / histogram.counts.sum())


def _least_error(histogram: Histogram, full: Range, levels: int) -> Range:
    candidates = [
        Range(full.low * step / _MSE_STEPS, full.high * step / _MSE_STEPS)
        for step in range(1, _MSE_STEPS + 1)
    ]
    return min(candidates, key=lambda kept: quantisation_error(histogram, kept, levels))


def _quantile(counts: NDArray[np.int64], edges: NDArray[np.float64], share: float) -> float:
    """The value below which `share` of the counts lie, interpolated inside its bin."""
    below = np.concatenate([[0], np.cumsum(counts)])
    return float(np.interp(share * below[-1], below, edges))


def _session_with_outputs(onnx_path: Path, names: Sequence[str]) -> Any:
    ort = import_onnxruntime()
    proto = onnx.load(onnx_path, load_external_data=False)
    there = {value.name for value in proto.graph.output}
    for name in names:
        if name not in there:
            proto.graph.output.add(name=name)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    onnxruntime_options(options)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(onnx_path.parent.resolve())
    )
    try:
        return ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has no common base class of its errors
        raise ExportError(f"onnxruntime cannot open {onnx_path}: {first_line(error)}") from error
