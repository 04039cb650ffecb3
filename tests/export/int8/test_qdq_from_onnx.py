from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, numpy_helper

from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.activation_ranges import (
    LayerRange,
    RangeMethod,
    histograms,
    layer_ranges,
)
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme, quantise_weight, write_qdq
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import OUTPUT_NAMES
from tests.export.chain_graph import NAMES, write_chain

Pixels = NDArray[np.uint8]
U8S8, S8S8 = QdqScheme(QdqKind.U8S8), QdqScheme(QdqKind.S8S8)


def patches(count: int) -> Pixels:
    return np.random.default_rng(11).integers(0, 256, (count, 224, 224, 3), np.uint8)


def graph_of(path: Path) -> GraphProto:
    return onnx.load(path, load_external_data=False).graph


def ranges_for(path: Path, scheme: QdqScheme) -> dict[str, LayerRange]:
    layers = conv_layers(graph_of(path))
    tensors = [tensor for layer in layers for tensor in (layer.input, layer.output)]
    return layer_ranges(
        histograms(path, tensors, patches(2)),
        layers,
        RangeMethod.MIN_MAX,
        levels=scheme.levels,
        symmetric=scheme.symmetric,
    )


@pytest.fixture(scope="module")
def fp32(small_bundle_dir: Path) -> Path:
    return small_bundle_dir / "model.onnx"


@pytest.fixture(scope="module")
def all_layers(fp32: Path) -> tuple[str, ...]:
    return tuple(layer.name for layer in conv_layers(graph_of(fp32)))


@pytest.fixture(scope="module")
def fp32_ranges(fp32: Path) -> dict[QdqScheme, dict[str, LayerRange]]:
    return {scheme: ranges_for(fp32, scheme) for scheme in (U8S8, S8S8)}


def run(path: Path, *names: str, optimise: bool = True) -> list[NDArray[np.float32]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(list(names) or None, {"patches": patches(1)})
    return outputs


def weights_of(path: Path) -> dict[str, NDArray[np.float32]]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def convolve(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """x [C, H, W], w [O, C, 3, 3], zero padding 1 -> [O, H, W]."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    out: NDArray[np.float64] = np.einsum("chwyx,ocyx->ohw", windows, w)
    return out


@pytest.mark.parametrize("scheme", [U8S8, QdqScheme(QdqKind.U8S8, 7), S8S8])
def test_one_layer_equals_a_quantised_convolution_in_numpy(
    tmp_path: Path, scheme: QdqScheme
) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    ranges = ranges_for(path, scheme)
    write_qdq(path, tmp_path / "q.onnx", ["e"], ranges, scheme)
    low, high = ranges["e"].input
    weights = weights_of(path)
    w = weights["model.e.weight"].astype(np.float64)
    limit = 2 ** (scheme.weight_bits - 1) - 1
    weight_steps = np.abs(w).max((1, 2, 3)) / limit
    quantised_w = np.rint(w / weight_steps[:, None, None, None])
    assert np.abs(quantised_w).max() == limit
    relu = run(_with_output(path, "d_relu"), "d_relu")[0][0].astype(np.float64)
    step = (high - low) / 255 if scheme.kind is QdqKind.U8S8 else high / 127
    quantised = np.clip(np.rint(relu / step), 0, 255)
    product = convolve(quantised, quantised_w) * (weight_steps * step)[:, None, None]
    wanted = np.maximum(product + weights["model.e.bias"][:, None, None], 0)
    (cam,) = run(tmp_path / "q.onnx", optimise=False)
    if scheme.kind is QdqKind.U8S8:
        out_step = (ranges["e"].output.high - ranges["e"].output.low) / 255
        assert np.abs(cam[0] - wanted).max() <= 0.5001 * out_step
        wanted = np.clip(np.rint(wanted / out_step), 0, 255) * out_step
        assert (np.abs(cam[0] - wanted) > 0.01 * out_step).mean() < 0.01  # halves may round either
    else:
        np.testing.assert_allclose(cam[0], wanted, atol=1e-5)
    exact = np.maximum(convolve(relu, w) + weights["model.e.bias"][:, None, None], 0)
    assert 1e-4 < np.abs(wanted - exact).max() < 0.1  # it was quantised, and not badly


def _with_output(path: Path, tensor: str) -> Path:
    model = onnx.load(path)
    model.graph.output.add(name=tensor)
    out = path.with_name("outputs.onnx")
    onnx.save(model, out)
    return out


def test_onnxruntime_makes_an_8_bit_convolution_of_every_layer(
    fp32: Path,
    all_layers: tuple[str, ...],
    fp32_ranges: dict[QdqScheme, dict[str, LayerRange]],
    tmp_path: Path,
) -> None:
    for layers in (all_layers, all_layers[3:20]):
        write_qdq(fp32, tmp_path / "q.onnx", layers, fp32_ranges[U8S8], U8S8)
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
        operators = Counter(node.op_type for node in graph_of(tmp_path / "optimised.onnx").node)
        assert operators["QLinearConv"] == len(layers)


def same_inputs(before: GraphProto, after: GraphProto) -> bool:
    return list(before.input) == list(after.input) and list(before.output) == list(after.output)


@pytest.mark.parametrize("scheme", [U8S8, S8S8])
def test_the_graph_is_valid_and_only_the_layers_asked_for_are_8_bit(
    fp32: Path,
    all_layers: tuple[str, ...],
    fp32_ranges: dict[QdqScheme, dict[str, LayerRange]],
    tmp_path: Path,
    scheme: QdqScheme,
) -> None:
    kept = ("conv1a", "b4.conv_branch1", "ic1")
    quantised = [name for name in all_layers if name not in kept]
    out = tmp_path / "q.onnx"
    wide = write_qdq(fp32, out, quantised, fp32_ranges[scheme], scheme)
    onnx.checker.check_model(out, full_check=True)
    before, after = graph_of(fp32), graph_of(out)
    assert same_inputs(before, after)
    old, new = weights_of(fp32), weights_of(out)
    for name in kept:
        np.testing.assert_array_equal(new[f"model.{name}.weight"], old[f"model.{name}.weight"])
    eight_bit = [name for name, value in new.items() if value.dtype == np.int8 and value.ndim == 4]
    assert sorted(eight_bit) == sorted(f"model.{name}.weight_quantised" for name in quantised)
    assert not [name for name in quantised if f"model.{name}.weight" in new]
    reading = {n.input[1]: n.name for n in before.node if n.op_type == "Conv"}
    depthwise = [name for weight, name in reading.items() if weight.startswith("mul")]
    assert sorted(wide) == sorted([*(reading[f"model.{n}.weight"] for n in kept), *depthwise])
    assert len(depthwise) == 2
    stored = {t.name for t in after.initializer if t.data_location == TensorProto.EXTERNAL}
    assert "model.b7.conv_branch2b1.weight_quantised" in stored


@pytest.mark.parametrize("scheme", [U8S8, S8S8])
def test_convolutions_that_read_one_tensor_share_its_pair(
    tmp_path: Path, scheme: QdqScheme
) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    write_qdq(path, tmp_path / "q.onnx", NAMES, ranges_for(path, scheme), scheme)
    graph = graph_of(tmp_path / "q.onnx")
    quantised = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    inputs = {"x", "a_relu", "sum", "d_relu"}
    outputs = {"a_relu", "b_relu", "c_relu", "d_relu", "cam"} if scheme is U8S8 else set()
    assert sorted(name.removesuffix("_wide") for name in quantised) == sorted(inputs | outputs)
    read = {n.input[1].removesuffix(".weight_dequantised"): n.input[0] for n in graph.node
            if n.op_type == "Conv"}  # fmt: skip
    assert read["model.b"] == read["model.c"]
    (before,), (after,) = run(path), run(tmp_path / "q.onnx")
    assert np.abs(after - before).max() < 0.15 * before.max()  # saturating processors included


@pytest.mark.parametrize("scheme", [U8S8, S8S8])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, scheme: QdqScheme) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    ranges = ranges_for(path, scheme)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_qdq(path, tmp_path / folder / "q.onnx", NAMES[:3], ranges, scheme)
    for name in ("q.onnx", "q.onnx.data"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "one" / "q.onnx").read_bytes()


def test_a_layer_that_the_graph_has_not_is_refused(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "chain.onnx")
    with pytest.raises(ValueError, match="has no convolution z"):
        write_qdq(path, tmp_path / "q.onnx", ["a", "z"], {}, S8S8)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_typed_graphs_get_steps_of_their_type(
    fp32: Path,
    all_layers: tuple[str, ...],
    fp32_ranges: dict[QdqScheme, dict[str, LayerRange]],
    tmp_path: Path,
    precision: Precision,
) -> None:
    write_typed_graph(fp32, tmp_path / "typed.onnx", precision)
    names = tuple(layer.name for layer in conv_layers(graph_of(tmp_path / "typed.onnx")))
    assert names == all_layers
    quantised = names[1:-1]
    write_qdq(tmp_path / "typed.onnx", tmp_path / "q.onnx", quantised, fp32_ranges[S8S8], S8S8)
    onnx.checker.check_model(tmp_path / "q.onnx", full_check=True)
    steps = {
        t.data_type for t in graph_of(tmp_path / "q.onnx").initializer if t.name.endswith("_step")
    }
    fp16 = precision is Precision.FP16
    assert steps == {TensorProto.FLOAT16 if fp16 else TensorProto.BFLOAT16}
    if fp16:  # no processor's ONNX Runtime computes BF16 convolutions
        write_qdq(fp32, tmp_path / "wide.onnx", quantised, fp32_ranges[S8S8], S8S8)
        for got, ref in zip(
            run(tmp_path / "q.onnx", *OUTPUT_NAMES),
            run(tmp_path / "wide.onnx", *OUTPUT_NAMES),
            strict=True,
        ):
            assert np.sqrt(np.mean((got - ref) ** 2)) < 0.1 * np.sqrt(np.mean(ref**2)) + 1e-6


def test_weights_of_any_size_keep_their_values_and_biases_fit() -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 1, (5, 3, 3, 3)).astype(np.float32)
    weight[1] *= 1e-4
    weight[2] = 0
    weight[3] *= 1e-12
    bias = np.array([0.5, -0.5, 3, -7, 0], np.float32)
    values, steps = quantise_weight(weight, 63, bias, np.float32(0.01))
    assert np.abs(values.astype(int)).max() == 63
    error = np.abs(values * steps[:, None, None, None].astype(np.float64) - weight)
    assert (error.max((1, 2, 3)) <= 0.5001 * steps).all()
    np.testing.assert_allclose(steps[:2], np.abs(weight[:2]).max((1, 2, 3)) / 63, rtol=1e-6)
    assert (np.abs(bias) / (steps.astype(np.float64) * np.float32(0.01)) < 2**31).all()
    assert (values[2] == 0).all()
    narrow, narrow_steps = quantise_weight(weight.astype(np.float16), 127, None, np.float32(1))
    assert narrow_steps.dtype == np.float16
    assert (narrow_steps > 0).all()
    assert np.abs(narrow[1].astype(int)).max() > 100  # a step of 2e-6 in FP16 is coarse, not lost


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_tensorrt_rtx_supports_the_whole_graph(
    fp32: Path,
    all_layers: tuple[str, ...],
    fp32_ranges: dict[QdqScheme, dict[str, LayerRange]],
    tmp_path: Path,
    precision: Precision,
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    source = fp32
    if precision is not Precision.FP32:
        source = tmp_path / "typed.onnx"
        write_typed_graph(fp32, source, precision)
    path = tmp_path / "q.onnx"
    write_qdq(source, path, all_layers, fp32_ranges[S8S8], S8S8)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    tried, network = builder.create_network(0), builder.create_network(0)
    asking = trt.OnnxParser(tried, logger)
    assert asking.supports_model_v2(path.read_bytes(), str(path))
    assert asking.num_subgraphs == 1
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path))
    kinds = Counter(network.get_layer(i).type for i in range(network.num_layers))
    assert kinds[trt.LayerType.CONVOLUTION] == 48
    assert kinds[trt.LayerType.QUANTIZE] > 30
