"""Two convolutions in one type, as typed ONNX: uint8 `patches` [B, 8, 8, 3] in, float32 out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CONVOLUTIONS = ("stem/conv", "body.conv")
CHANNELS = (8, 16)
TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.FLOAT,
}


class TinyGraph:
    """Collects nodes and initialisers; `types` holds a key of `TYPES` for each convolution."""

    def __init__(self, types: tuple[str, str], zero: Any, quantised: tuple[bool, bool]) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.zero = zero
        self.quantised = quantised
        value = self.node("Cast", ["patches"], to=TensorProto.FLOAT)
        value = self.node("Transpose", [value], perm=[0, 3, 1, 2])
        inputs = (3, *CHANNELS)
        for index, (name, kind) in enumerate(zip(CONVOLUTIONS, types, strict=True)):
            value = self.node("Cast", [value], to=TYPES[kind])
            weights = np.full((CHANNELS[index], inputs[index], 3, 3), 0.01 * (index + 1))
            value = self.convolution(name, kind, value, weights)
            value = self.node("Relu", [value])
        self.nodes.append(helper.make_node("Cast", [value], ["out"], "last", to=TensorProto.FLOAT))

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}:0"], name, **attributes))
        return f"{name}:0"

    def constant(self, name: str, value: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def convolution(self, name: str, kind: str, value: str, weights: Any) -> str:
        flat = weights.ravel()
        if kind != "int8":
            tensor = helper.make_tensor(f"{name}.w", TYPES[kind], weights.shape, flat)
            self.initializers.append(tensor)
            return self.node("Conv", [value, f"{name}.w"], name, pads=[1] * 4)
        scale = self.constant(f"{name}.scale", np.float32(0.02))
        zero = self.constant(f"{name}.zero", self.zero)
        data, kernel = self.quantised
        if data:
            value = self.node("QuantizeLinear", [value, scale, zero])
            value = self.node("DequantizeLinear", [value, scale, zero])
        source = self.constant(f"{name}.w", weights.astype(np.float32))
        if kernel:
            scales = np.full(len(weights), flat[0] / 127, np.float32)
            names = [
                self.constant(f"{name}.w8", np.full(weights.shape, 127, np.int8)),
                self.constant(f"{name}.w_scale", scales),
                self.constant(f"{name}.w_zero", np.zeros(len(weights), np.int8)),
            ]
            source = self.node("DequantizeLinear", names, axis=0)
        return self.node("Conv", [value, source], name, pads=[1] * 4)


def write_tiny_graph(
    path: Path,
    *types: str,
    zero: Any = np.int8(0),  # noqa: B008
    quantised: tuple[bool, bool] = (True, True),
    batch: int | str = "batch",
) -> Path:
    """Write a graph whose convolutions `CONVOLUTIONS` have `types` ("int8" in Q/DQ).

    `zero` is the zero point of what enters an INT8 convolution; `quantised` says which of its data
    and weights are quantised.
    """
    first, second = types
    graph = TinyGraph((first, second), zero, quantised)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "tiny",
            [helper.make_tensor_value_info("patches", TensorProto.UINT8, [batch, 8, 8, 3])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 16, 8, 8])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
