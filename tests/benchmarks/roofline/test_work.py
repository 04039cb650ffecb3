from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sshr_deploy.benchmarks.roofline.work import graph_work
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import BundleError
from sshr_deploy.geometry import field_geometry
from sshr_deploy.precision import Precision

PIXELS = 224 * 224
CONV = 2 * 27 * 4 * 222 * 222  # 3x3 taps of 3 channels for each of 4 channels


def test_the_work_of_a_bundle_is_what_pytorch_counts(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    manifest = bundle.manifest
    assert manifest.fields is not None

    patch = graph_work(bundle.file(manifest.artifacts[0].file))
    geometry = field_geometry(manifest.fields.geometry.side_px)
    field = graph_work(bundle.file(manifest.fields.artifacts[0].file), geometry)

    assert patch.flop == round(manifest.model.gflop_per_patch * 1e9)
    assert field.flop == round(manifest.fields.gflop_per_field * 1e9)
    assert "b2.conv_branch2a" in patch.layers.values()
    assert {node.precision for node in patch.products.values()} == {Precision.FP32}


def test_operations_and_bytes_of_a_convolution_with_a_relu_counted_by_hand(tmp_path: Path) -> None:
    work = graph_work(_written(tmp_path, quantised=False))

    (conv,) = work.products.values()
    assert conv.flop == work.flop == CONV
    assert conv.weight_bytes == 4 * 27 * 4
    assert conv.value_bytes == 4 * (3 * PIXELS + 4 * 222 * 222)
    assert work.moved_bytes(2) == conv.weight_bytes + 2 * conv.value_bytes
    assert work.other_flop == 4 * 222 * 222  # the ReLU; types and axes change for nothing
    assert work.makers["on"] == "conv" and work.layers == {"conv": "b2"}


def test_half_as_many_bytes_in_a_narrower_type(tmp_path: Path) -> None:
    path = _written(tmp_path, quantised=False)
    wide, narrow = graph_work(path), graph_work(path, computed_in=Precision.BF16)
    assert wide.moved_bytes() == 2 * narrow.moved_bytes()
    assert narrow.products["conv"].precision is Precision.BF16


def test_a_convolution_of_quantised_values_is_of_8_bits(tmp_path: Path) -> None:
    work = graph_work(_written(tmp_path, quantised=True))

    (conv,) = work.products.values()
    assert conv.precision is Precision.INT8
    assert conv.flop == CONV
    assert conv.weight_bytes == 27 * 4
    assert conv.value_bytes == 3 * PIXELS + 4 * 222 * 222
    values = 3 * PIXELS + 4 * 222 * 222
    assert work.other_flop == 2 * values + 2 * values + 4 * 222 * 222  # Q, DQ and the ReLU


def test_a_depthwise_convolution_reads_one_channel_for_each_that_it_makes(tmp_path: Path) -> None:
    work = graph_work(_written(tmp_path, quantised=False, groups=3))
    assert work.flop == 2 * 9 * 3 * 222 * 222


def test_both_sides_of_a_product_of_values_are_moved_for_each_input(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["patches"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["across"], "across", perm=[0, 3, 1, 2]),
        helper.make_node("Transpose", ["x"], ["turned"], "turned", perm=[0, 3, 2, 1]),
        helper.make_node("MatMul", ["across", "turned"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("patches", TensorProto.UINT8, ["batch", 224, 224, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 224, 224])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    (product,) = graph_work(tmp_path / "model.onnx").products.values()
    assert product.flop == 2 * 3 * 224**3
    assert (product.weight_bytes, product.value_bytes) == (0, 3 * 4 * 3 * PIXELS)


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx is no graph"):
        graph_work(tmp_path / "model.onnx")


def _written(folder: Path, *, quantised: bool, groups: int = 1) -> Path:
    """patches -> Cast -> Transpose -> [Q -> DQ] -> Conv -> Relu -> [Q -> DQ]."""
    made = 3 if groups == 3 else 4
    nodes = [
        helper.make_node("Cast", ["patches"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], "transpose", perm=[0, 3, 1, 2]),
    ]
    shape = (made, 3 // groups, 3, 3)
    constants = {"model.b2.weight": np.ones(shape, np.float32)}
    read, weight = "x", "model.b2.weight"
    if quantised:
        constants = {"w8": np.ones(shape, np.int8), "step": np.array(1, np.float32)}
        constants |= {"zero": np.array(0, np.uint8), "zero8": np.array(0, np.int8)}
        weight, read = "model.b2.weight_dequantised", "x_read"
        nodes += [helper.make_node("DequantizeLinear", ["w8", "step", "zero8"], [weight], "dq_w")]
        nodes += _pair("x", read)
    nodes += [
        helper.make_node("Conv", [read, weight], ["made"], "conv", group=groups),
        helper.make_node("Relu", ["made"], ["on"], "relu"),
        *(_pair("on", "y") if quantised else [helper.make_node("Identity", ["on"], ["y"])]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("patches", TensorProto.UINT8, ["batch", 224, 224, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", made, 222, 222])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    return folder / "model.onnx"


def _pair(tensor: str, result: str) -> list[onnx.NodeProto]:
    middle = f"{tensor}_quantised"
    return [
        helper.make_node("QuantizeLinear", [tensor, "step", "zero"], [middle], f"q_{tensor}"),
        helper.make_node("DequantizeLinear", [middle, "step", "zero"], [result], f"dq_{tensor}"),
    ]
