"""A graph of a few convolutions with the input of an SSHR graph, for tests of what edits graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from sshr_deploy.export.graph.external_data import write_model

NAMES = ("a", "b", "c", "d", "e")


def write_chain(path: Path, seed: int = 0) -> Path:
    """patches -> five times Conv, ReLU -> "cam" [B, 4, 14, 14]; "b" and "c" read the same ReLU."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Cast", ["patches"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
    ]
    tensors = []
    edges = {"a": "x", "b": "a_relu", "c": "a_relu", "d": "sum", "e": "d_relu"}
    for name, read in edges.items():
        shape = (4, 3, 16, 16) if name == "a" else (4, 4, 3, 3)
        weight = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        weight /= 255 if name == "a" else 1
        bias = rng.normal(0, 0.1, 4).astype(np.float32)
        inputs = [read, f"model.{name}.weight", f"model.{name}.bias"]
        for key, value in zip(inputs[1:], (weight, bias), strict=True):
            tensors.append(numpy_helper.from_array(value, key))
        options: dict[str, Any] = {"strides": [16, 16]} if name == "a" else {"pads": [1] * 4}
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_conv"], f"node_{name}", **options))
        relu = "cam" if name == "e" else f"{name}_relu"
        nodes.append(helper.make_node("Relu", [f"{name}_conv"], [relu]))
        if name == "c":
            nodes.append(helper.make_node("Add", ["b_relu", "c_relu"], ["sum"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("patches", TensorProto.UINT8, ["B", 224, 224, 3])],
        [helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["B", 4, 14, 14])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    write_model(model, path, path.parent)
    return path
