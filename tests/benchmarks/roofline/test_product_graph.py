from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from sshr_deploy.benchmarks.roofline.product_graph import product_graph
from sshr_deploy.precision import Precision

SIDE = 160  # two bytes of a varint


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_onnx_reads_the_graph_as_it_was_meant(precision: Precision) -> None:
    content, matrix = product_graph(precision, SIDE)

    model = onnx.load_model_from_string(content)

    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    quantised = ["DequantizeLinear", "DequantizeLinear", "MatMul", "QuantizeLinear"]
    assert operators == (quantised if precision is Precision.INT8 else ["MatMul"])
    assert matrix.shape == (SIDE, SIDE)


def test_the_fp32_graph_multiplies() -> None:
    content, matrix = product_graph(Precision.FP32, SIDE)
    (weights,) = onnx.load_model_from_string(content).graph.initializer

    got = _run(content, matrix)

    expected = matrix @ onnx.numpy_helper.to_array(weights)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_the_int8_graph_multiplies_and_hardly_saturates() -> None:
    content, matrix = product_graph(Precision.INT8, SIDE)
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_model_from_string(content).graph.initializer
    }

    got = _run(content, matrix).astype(np.int32)

    exact = (matrix.astype(np.int64) - 128) @ constants["weights"].astype(np.int64)
    scaled = exact * float(constants["scale"]) ** 2 / float(constants["product_scale"])
    assert np.abs(got - np.clip(np.rint(scaled) + 128, 0, 255)).max() <= 1
    assert np.mean((got == 0) | (got == 255)) < 0.1


def _run(content: bytes, matrix: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"patches": matrix})
    return np.asarray(result)
