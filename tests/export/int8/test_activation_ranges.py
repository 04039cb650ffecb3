from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from sshr_deploy.errors import ExportError
from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.external_data import write_model
from sshr_deploy.export.int8.activation_ranges import (
    BINS,
    Histogram,
    Range,
    RangeMethod,
    histograms,
    layer_ranges,
    quantisation_error,
    range_of,
)
from sshr_deploy.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sshr_deploy.model.checkpoint import load_checkpoint
from tests.export.chain_graph import write_chain


def filled(*parts: NDArray[np.float32]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def heavy_tailed(seed: int, size: int = 200_000) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_t(3, size).astype(np.float32)


def rounded(values: NDArray[np.float32], kept: Range, levels: int) -> NDArray[np.float64]:
    """QuantizeLinear and DequantizeLinear by the letter of ONNX."""
    step = (kept.high - kept.low) / levels
    zero_point = np.clip(np.rint(-kept.low / step), 0, levels)
    quantised = np.clip(np.rint(values.astype(np.float64) / step) + zero_point, 0, levels)
    result: NDArray[np.float64] = (quantised - zero_point) * step
    return result


def test_a_histogram_that_grew_equals_one_pass() -> None:
    parts = [heavy_tailed(seed, 5000) * scale for seed, scale in enumerate((1e-3, 1, 50))]
    histogram = filled(*(part.reshape(50, 100) for part in parts), np.zeros(7, np.float32))
    values = np.concatenate([*parts, np.zeros(7, np.float32)])
    wanted, _ = np.histogram(values.astype(np.float64), histogram.edges())
    np.testing.assert_array_equal(histogram.counts, wanted)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert np.abs(values).max() < histogram.limit <= 2 * np.abs(values).max()


def test_a_value_at_a_power_of_two_is_counted() -> None:
    assert filled(np.array([4, -4, 1], np.float32)).counts.sum() == 3


def assert_is_percentile(got: float, values: NDArray[np.float32], percent: float) -> None:
    """`got` lies where np.percentile does, or one value further: between two it may be anywhere."""
    width = 2 * np.abs(values).max() / BINS * 2
    one = 100 / values.size
    lower, higher = np.percentile(values, [max(percent - one, 0), min(percent + one, 100)])
    assert lower - width <= got <= higher + width


@pytest.mark.parametrize(
    ("method", "percent"),
    [(RangeMethod.P99_9, 99.9), (RangeMethod.P99_99, 99.99), (RangeMethod.P99_999, 99.999)],
)
def test_percentiles_are_those_of_the_values(method: RangeMethod, percent: float) -> None:
    values = heavy_tailed(1)
    kept = range_of(filled(values[:1000], values[1000:]), method, levels=255)
    assert_is_percentile(kept.low, values, 100 - percent)
    assert_is_percentile(kept.high, values, percent)
    symmetric = range_of(filled(values), method, levels=254, symmetric=True)
    assert_is_percentile(symmetric.high, np.abs(values), percent)
    assert symmetric.low == -symmetric.high
    positive = range_of(filled(np.abs(values)), method, levels=255)
    assert positive.low == 0
    assert_is_percentile(positive.high, np.abs(values), percent)


def test_all_values_are_kept_by_min_max() -> None:
    histogram = filled(np.array([-1.5, 0, 7.25], np.float32))
    assert range_of(histogram, RangeMethod.MIN_MAX, levels=255) == (-1.5, 7.25)
    assert range_of(histogram, RangeMethod.MIN_MAX, levels=254, symmetric=True) == (-7.25, 7.25)


@pytest.mark.parametrize("method", RangeMethod)
def test_a_tensor_of_zeros_has_an_empty_range(method: RangeMethod) -> None:
    assert range_of(filled(np.zeros(9, np.float32)), method, levels=255) == (0, 0)


@pytest.mark.parametrize("signed", [True, False])
def test_the_mse_range_is_the_best_of_all(*, signed: bool) -> None:
    values = np.random.default_rng(2).laplace(0, 1, 200_000).astype(np.float32)
    values[0] = 40
    if not signed:
        values = np.abs(values)
    histogram = filled(values)

    def error(kept: Range) -> float:
        return float(np.mean((rounded(values, kept, 255) - values) ** 2))

    ranges = {method: range_of(histogram, method, levels=255) for method in RangeMethod}
    best = error(ranges[RangeMethod.MSE])
    for method, kept in ranges.items():
        assert best <= 1.02 * error(kept), method
    assert best < 0.9 * error(ranges[RangeMethod.MIN_MAX])
    estimate = quantisation_error(histogram, ranges[RangeMethod.P99_9], 255)
    assert estimate == pytest.approx(error(ranges[RangeMethod.P99_9]), rel=0.05)


def test_histograms_are_of_the_network_on_these_patches(
    small_bundle_dir: Path, small_checkpoint: Path
) -> None:
    path = small_bundle_dir / "model.onnx"
    layers = {
        layer.name: layer for layer in conv_layers(onnx.load(path, load_external_data=False).graph)
    }
    assert len(layers) == 46
    assert not [name for name in layers if "hfrm" in name]
    patches = np.random.default_rng(5).integers(0, 256, (3, 224, 224, 3), np.uint8)
    chosen = [layers["conv1a"], layers["fc8"]]
    calls: list[tuple[int, int]] = []
    found = histograms(
        path,
        [tensor for layer in chosen for tensor in (layer.input, layer.output)],
        patches,
        lambda *call: calls.append(call),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    normalised = (patches / 255 - IMAGENET_MEAN) / IMAGENET_STD
    first = found[layers["conv1a"].input]
    assert (first.low, first.high) == pytest.approx((normalised.min(), normalised.max()), rel=1e-5)
    assert first.counts.sum() == normalised.size
    model = load_checkpoint(small_checkpoint).eval()
    with torch.inference_mode():
        x = torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)
        deep = model.features(x).deep
        cam = model.fc8(deep)
    last = found[layers["fc8"].input]
    assert (last.low, last.high) == pytest.approx((0, float(deep.max())), rel=1e-4)
    heads = found[layers["fc8"].output]  # before the ReLU: prob needs it
    assert (heads.low, heads.high) == pytest.approx(
        (min(0, float(cam.min())), max(0, float(cam.max()))), rel=1e-3
    )
    ranges = layer_ranges(found, chosen, RangeMethod.MIN_MAX, levels=255, symmetric=False)
    assert ranges["fc8"].input == (last.low, last.high)


def test_infinite_values_are_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "model.b.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(4, np.inf, np.float32), tensor.name))
    write_model(model, path, tmp_path)
    patches = np.zeros((1, 224, 224, 3), np.uint8)
    with pytest.raises(ExportError, match=r"b_relu of .* cannot be quantised: it holds NaN"):
        histograms(path, ["b_relu"], patches)


def test_a_graph_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    path.with_name("chain.onnx.data").unlink()
    with pytest.raises(ExportError, match="onnxruntime cannot open"):
        histograms(path, ["a_relu"], np.zeros((1, 224, 224, 3), np.uint8))
