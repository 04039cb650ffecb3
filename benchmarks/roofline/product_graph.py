"""ONNX graphs of one matrix product, made without the onnx package, which the edge has not.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; messages are in
the wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME

_IR_VERSION, _OPSET = 8, 17
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3}
"""`TensorProto.DataType`."""
_SCALE = np.float32(0.01)
_Node = tuple[str, Sequence[str], str]
"""Operator, inputs, output."""


def product_graph(precision: Precision, side: int) -> tuple[bytes, NDArray[np.generic]]:
    """A graph that multiplies its input by random weights, and an input [side, side] for it.

    INT8 is as in the bundles: uint8 activations and int8 weights, each followed by
    DequantizeLinear, which engines fold into an 8-bit product. Else all is float32, which an engine
    may be told to compute in another type.
    """
    random = np.random.default_rng(0)
    if precision is not Precision.INT8:
        weights = random.standard_normal((side, side), np.float32)
        nodes: list[_Node] = [("MatMul", (INPUT_NAME, "weights"), "product")]
        model = _model(nodes, {"weights": weights}, np.dtype(np.float32), side)
        return model, random.standard_normal((side, side), np.float32)
    constants: dict[str, NDArray[np.generic]] = {
        # Within 7 bits, so that no sum of two products saturates on processors without VNNI.
        "weights": random.integers(-64, 64, (side, side), np.int8),
        "scale": np.array(_SCALE),
        "product_scale": np.array(_SCALE * np.float32(side**0.5)),
        "zero": np.array(0, np.int8),
        "middle": np.array(128, np.uint8),
    }
    nodes = [
        ("DequantizeLinear", (INPUT_NAME, "scale", "middle"), "a"),
        ("DequantizeLinear", ("weights", "scale", "zero"), "b"),
        ("MatMul", ("a", "b"), "ab"),
        ("QuantizeLinear", ("ab", "product_scale", "middle"), "product"),
    ]
    model = _model(nodes, constants, np.dtype(np.uint8), side)
    return model, random.integers(0, 256, (side, side), np.uint8)


def _model(
    nodes: Sequence[_Node],
    constants: Mapping[str, NDArray[np.generic]],
    kind: np.dtype[np.generic],
    side: int,
) -> bytes:
    """A serialised ModelProto, with input and output [side, side] of type `kind`."""
    shape = b"".join(_field(1, _field(1, side)) for _ in range(2))
    tensor = _field(2, _field(1, _field(1, _TYPES[kind]) + _field(2, shape)))
    graph = b"".join(
        [
            *(_field(1, _node(*node)) for node in nodes),
            _field(2, "product"),
            *(_field(5, _tensor(name, array)) for name, array in constants.items()),
            _field(11, _field(1, INPUT_NAME) + tensor),
            _field(12, _field(1, "product") + tensor),
        ]
    )
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, _field(2, _OPSET))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, operator)


def _tensor(name: str, array: NDArray[np.generic]) -> bytes:
    sides = b"".join(_field(1, side) for side in array.shape)
    return sides + _field(2, _TYPES[array.dtype]) + _field(8, name) + _field(9, array.tobytes())


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have their top bit set."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
