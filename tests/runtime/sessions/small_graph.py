"""A graph that looks like SSHR from outside; three classes, one convolution, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.runtime.contract import CAM_NAMES, CamBatch

Graph = Callable[[str], Path]
"""From a type of ONNX to the file with the convolution in that type."""
WEIGHTS = np.random.default_rng(5).normal(0, 0.02, (3, 3, 8, 8)).astype(np.float32)


def expected(patches: Any) -> CamBatch:
    """What `graph` computes, by NumPy."""
    blocks = patches.astype(np.float64).reshape(-1, 28, 8, 28, 8, 3)
    cam = np.einsum("bhywxc,ncyx->bnhw", blocks, WEIGHTS.astype(np.float64))
    prob = 1 / (1 + np.exp(-cam.mean((2, 3)) / 64))
    kept = (np.maximum(cam, 0), np.maximum(-cam, 0), np.maximum(cam, 0), prob)
    return CamBatch(*(output.astype(np.float32) for output in kept))


def writer(folder: Path) -> Graph:
    """Writes a graph with the input of SSHR and one convolution, in a type of ONNX."""
    onnx = pytest.importorskip("onnx")
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info

    def write(dtype: str) -> Path:
        of, full = getattr(onnx.TensorProto, dtype), onnx.TensorProto.FLOAT
        weights = onnx.helper.make_tensor("w", of, WEIGHTS.shape, WEIGHTS.ravel())
        factor = onnx.helper.make_tensor("factor", full, [], [1 / 64])
        axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
        nodes = [
            node("Transpose", ["patches"], ["planes"], perm=[0, 3, 1, 2]),
            node("Cast", ["planes"], ["x"], to=of),
            node("Conv", ["x", "w"], ["y"], strides=[8, 8]),
            node("Cast", ["y"], ["cam"], to=full),
            node("Neg", ["cam"], ["negative"]),
            node("Relu", ["cam"], ["cam_28_1"]),
            node("Relu", ["negative"], ["cam_28_2"]),
            node("Relu", ["cam"], ["cam_deep"]),
            node("ReduceMean", ["cam", "axes"], ["mean"], keepdims=0),
            node("Mul", ["mean", "factor"], ["scaled"]),
            node("Sigmoid", ["scaled"], ["prob"]),
        ]
        outputs = [info(name, full, ["B", 3, 28, 28]) for name in CAM_NAMES]
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                nodes,
                "small",
                [info("patches", onnx.TensorProto.UINT8, ["B", 224, 224, 3])],
                [*outputs, info("prob", full, ["B", 3])],
                [weights, factor, axes],
            ),
            opset_imports=[onnx.helper.make_opsetid("", 22)],
            ir_version=10,
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, folder / f"{dtype}.onnx")
        return folder / f"{dtype}.onnx"

    return write
