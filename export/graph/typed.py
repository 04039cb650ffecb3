"""FP32 graph -> the same graph with FP16 or BF16 convolutions, every type written in the graph.

Engines that take types from the graph (TensorRT 11 takes them from nowhere else) then compute what
was asked for, or refuse. The convolutions become narrow, and so do the additions, multiplications,
matrix products and ReLUs between them. Normalisation of the input, the mean over the deep feature,
the semantic gate and everything after the CAM heads stay FP32.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from sshr_deploy.errors import ExportError
from sshr_deploy.export.graph.external_data import write_model
from sshr_deploy.precision import Precision

_TYPES = {
    Precision.FP16: (TensorProto.FLOAT16, np.dtype(np.float16)),
    Precision.BF16: (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
_ALWAYS_NARROW = {"Conv", "BatchNormalization"}
_NARROW_AFTER_NARROW = {"Add", "Mul", "Relu", "MatMul", "Reshape"}
_OPSET_OF_BF16_CONVOLUTIONS = 22
_Weights = dict[str, NDArray[np.float32]]


def write_typed_graph(fp32: Path, path: Path, precision: Precision) -> int:
    """Write the FP32 graph of `write_onnx` again in FP16 or BF16; weights go to `<path>.data`.

    Returns the opset: ONNX has BF16 convolutions from 22 on.

    Raises:
        ExportError: a weight is too large for FP16.
        OSError: a file cannot be read or written.
    """
    model = onnx.load(fp32)
    _Typing(model.graph, precision).apply()
    (opset,) = (item for item in model.opset_import if not item.domain)
    if precision is Precision.BF16:
        opset.version = max(opset.version, _OPSET_OF_BF16_CONVOLUTIONS)
    write_model(model, path, path.parent)
    return int(opset.version)


class _Typing:
    def __init__(self, graph: GraphProto, precision: Precision) -> None:
        self.graph = graph
        self.onnx_type, self.dtype = _TYPES[precision]
        self.weights: _Weights = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.outputs = {output.name for output in graph.output}
        self.narrow: set[str] = set()
        """Activations that are of the narrow type."""
        self.nodes: list[NodeProto] = []
        self.casts: set[str] = set()

    def apply(self) -> None:
        for node in list(self.graph.node):
            if self._fold(node):
                continue
            if self._is_narrow(node):
                self._add_narrow(node)
            else:
                self._add_wide(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        del self.graph.initializer[:]
        self.graph.initializer.extend(
            numpy_helper.from_array(array, name)
            for name, array in self.weights.items()
            if name in used
        )
        del self.graph.value_info[:]  # says FP32 everywhere

    def _fold(self, node: NodeProto) -> bool:
        """Products of weights, such as gamma times HFRM's kernel, become weights themselves."""
        if node.op_type != "Mul" or not all(name in self.weights for name in node.input):
            return False
        first, second = (self.weights[name] for name in node.input)
        self.weights[node.output[0]] = first * second
        return True

    def _is_narrow(self, node: NodeProto) -> bool:
        if node.op_type in _ALWAYS_NARROW:
            return True
        follows = any(name in self.narrow for name in node.input)
        return (
            node.op_type in _NARROW_AFTER_NARROW and follows and node.output[0] not in self.outputs
        )

    def _add_narrow(self, node: NodeProto) -> None:
        if node.op_type == "BatchNormalization":
            self._add_affine(node)
            return
        inputs = [self._narrow_input(name) for name in node.input]
        self._append(node.op_type, inputs, node.output[0], node.name, node.attribute)
        self.narrow.add(node.output[0])

    def _add_affine(self, node: NodeProto) -> None:
        """Batch norm as one multiplication and one addition, their factors rounded once."""
        x, *names = node.input
        gamma, beta, mean, variance = (self.weights[name].astype(np.float64) for name in names)
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        output = node.output[0]
        factors = {f"{output}_scale": scale, f"{output}_shift": beta - mean * scale}
        for name, factor in factors.items():
            self.weights[name] = factor.astype(np.float32)[:, None, None]
        scaled = f"{output}_scaled"
        first, second = (self._narrow_weight(name) for name in factors)
        self._append("Mul", [self._narrow_input(x), first], scaled, f"{node.name}_scale")
        self._append("Add", [scaled, second], output, f"{node.name}_shift")
        self.narrow.add(output)

    def _add_wide(self, node: NodeProto) -> None:
        inputs = [
            self._cast(name, TensorProto.FLOAT, "fp32") if name in self.narrow else name
            for name in node.input
        ]
        del node.input[:]
        node.input.extend(inputs)
        self.nodes.append(node)

    def _narrow_input(self, name: str) -> str:
        if name in self.weights:
            is_float = self.weights[name].dtype.kind == "f"
            return self._narrow_weight(name) if is_float else name  # else a shape
        return name if name in self.narrow else self._cast(name, self.onnx_type, "narrow")

    def _narrow_weight(self, name: str) -> str:
        narrow = f"{name}_narrow"
        if narrow not in self.weights:
            wide = self.weights[name]
            with np.errstate(over="ignore"):
                array = wide.astype(self.dtype)
            if not np.isfinite(array.astype(np.float32)).all():
                raise ExportError(
                    f"{name} holds {float(np.abs(wide).max()):.3g}, more than FP16 can; "
                    "export `precision` bf16 instead"
                )
            self.weights[narrow] = array
        return narrow

    def _cast(self, name: str, to: int, suffix: str) -> str:
        cast = f"{name}_{suffix}"
        if cast not in self.casts:
            self.casts.add(cast)
            self.nodes.append(helper.make_node("Cast", [name], [cast], f"{cast}_cast", to=to))
        return cast

    def _append(
        self,
        op: str,
        inputs: Iterable[str],
        output: str,
        name: str,
        attributes: Iterable[onnx.AttributeProto] = (),
    ) -> None:
        node = helper.make_node(op, list(inputs), [output], name)
        node.attribute.extend(attributes)
        self.nodes.append(node)
