"""Operations and bytes of a graph, from its nodes and the shapes that ONNX infers for them."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from sshr_deploy.errors import BundleError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import INPUT_NAME

_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_PRODUCTS = {"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"}
_OF_INTEGERS = {"ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"}
_WEIGHT_AT = {"QLinearConv": 3, "QLinearMatMul": 3}
"""Position of the weights among the inputs; 1 in the others."""
_MOVING = {
    *("Cast", "Concat", "Constant", "Expand", "Gather", "Identity", "Pad", "Reshape", "Shape"),
    *("Slice", "Squeeze", "Transpose", "Unsqueeze"),
}
"""Operators that compute nothing."""
_PER_VALUE = {"BatchNormalization": 2, "QuantizeLinear": 2, "DequantizeLinear": 2}
"""Operations for a value that is made; 1 in the others."""
_REDUCING = {"AveragePool", "GlobalAveragePool", "ReduceMax", "ReduceMean", "ReduceSum"}
"""One operation for a value that is read."""
_TYPES: dict[int, Precision] = {
    TensorProto.FLOAT16: Precision.FP16,
    TensorProto.BFLOAT16: Precision.BF16,
}
BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.BF16: 2, Precision.INT8: 1}
"""Of a value."""


@dataclass(frozen=True)
class NodeWork:
    """A convolution or matrix product, for one input."""

    name: str
    """Of the node in the graph."""
    precision: Precision
    """INT8 where it reads quantised values and weights."""
    flop: int
    """A multiply-add counted as two."""
    weight_bytes: int
    """Of what is the same for every input."""
    value_bytes: int
    """Read and written, each once, in the type that they have between the layers; of a product of
    two values both."""


@dataclass(frozen=True)
class GraphWork:
    """All that a graph has to do for one input."""

    products: dict[str, NodeWork]
    """Convolutions and matrix products, by name of the node."""
    other_flop: int
    """Of the rest: normalisation, ReLU, sums; one or two a value."""
    makers: dict[str, str]
    """Names of nodes, by tensor: what makes it, a ReLU aside."""
    layers: dict[str, str]
    """Layers of the checkpoint, such as "b2.conv_branch2a", by node that has weights."""

    @property
    def flop(self) -> int:
        """Of convolutions and products, as `gflop_per_patch` of the manifest counts them."""
        return sum(node.flop for node in self.products.values())

    def moved_bytes(self, inputs: int = 1) -> int:
        """That convolutions and products read and write in a call, all else fused into them."""
        nodes = self.products.values()
        return sum(node.weight_bytes + inputs * node.value_bytes for node in nodes)


def graph_work(
    path: Path, geometry: Geometry = PATCH, computed_in: Precision | None = None
) -> GraphWork:
    """The work of a graph of a bundle for one patch or field.

    Args:
        path: of the .onnx file; its weights are not read.
        geometry: of the input.
        computed_in: what an engine computes the FP32 nodes in; None for FP32.

    Raises:
        BundleError: the file cannot be read, or a shape does not follow from it.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        (patches,) = (value for value in model.graph.input if value.name == INPUT_NAME)
        sides = patches.type.tensor_type.shape.dim
        for side, size in zip(sides, (1, *geometry.input_shape()), strict=True):
            side.dim_value = size
        del model.graph.value_info[:]  # the exporter's, in which the batch is a symbol
        for value in model.graph.output:
            del value.type.tensor_type.shape.dim[:]
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        return _Counter(inferred, computed_in or Precision.FP32).work()
    except Exception as error:  # onnx and protobuf raise their own
        raise BundleError(f"{path} is no graph whose work shows: {first_line(error)}") from error


class _Counter:
    def __init__(self, model: ModelProto, computed_in: Precision) -> None:
        self._graph, self._computed_in = model.graph, computed_in
        self._types: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            tensor = value.type.tensor_type
            self._types[value.name] = tensor.elem_type
            if all(side.HasField("dim_value") for side in tensor.shape.dim):
                self._shapes[value.name] = tuple(side.dim_value for side in tensor.shape.dim)
        for constant in model.graph.initializer:
            self._types[constant.name] = constant.data_type
            self._shapes[constant.name] = tuple(constant.dims)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        self._values = {INPUT_NAME}
        """Tensors that depend on the input."""
        for node in model.graph.node:  # what makes a tensor comes before what reads it
            if not self._values.isdisjoint(node.input):
                self._values.update(node.output)
            for name in node.input:
                self._readers[name].append(node)

    def work(self) -> GraphWork:
        products, layers, other = {}, {}, 0
        for node in self._graph.node:
            if node.op_type in _CONVOLUTIONS | _PRODUCTS:
                products[node.name] = self._product(node)
            else:
                other += self._other_flop(node)
            if node.op_type in _CONVOLUTIONS | _PRODUCTS | {"BatchNormalization"}:
                layers[node.name] = self._layer(_weight(node)) or node.name
        makers = {name: self._without_relu(node).name for name, node in self._makers.items()}
        return GraphWork(products, other, makers, layers)

    def _product(self, node: NodeProto) -> NodeWork:
        read, made, weight = node.input[0], node.output[0], _weight(node)
        sides = self._shapes[weight]
        # The second side of a convolution's weights is that of one group's channels.
        is_convolution = node.op_type in _CONVOLUTIONS
        multiplies = math.prod(sides[1:]) if is_convolution else self._shapes[read][-1]
        precision = self._precision(node)
        second = math.prod(sides) * BYTES[precision]
        is_value = weight in self._values
        return NodeWork(
            node.name,
            precision,
            2 * math.prod(self._shapes[made]) * multiplies,
            0 if is_value else second,
            second * is_value
            + self._size(read, self._is_dequantised(read))
            + self._size(made, self._is_quantised_next(made)),
        )

    def _precision(self, node: NodeProto) -> Precision:
        dequantised = all(self._is_dequantised(name) for name in (node.input[0], _weight(node)))
        if dequantised or node.op_type in _OF_INTEGERS:
            return Precision.INT8
        return _TYPES.get(self._types[node.output[0]], self._computed_in)

    def _size(self, tensor: str, is_quantised: bool) -> int:
        """Bytes of a tensor between two layers."""
        usual = _TYPES.get(self._types[tensor], self._computed_in)
        return math.prod(self._shapes[tensor]) * BYTES[Precision.INT8 if is_quantised else usual]

    def _is_dequantised(self, tensor: str) -> bool:
        maker = self._makers.get(tensor)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _is_quantised_next(self, tensor: str) -> bool:
        """Whether all that read it quantise it, perhaps after a ReLU."""
        readers = self._readers[tensor]
        return bool(readers) and all(
            reader.op_type == "QuantizeLinear"
            or (reader.op_type == "Relu" and self._is_quantised_next(reader.output[0]))
            for reader in readers
        )

    def _other_flop(self, node: NodeProto) -> int:
        is_constant = all(name not in self._makers for name in node.input) and not any(
            name == INPUT_NAME for name in node.input
        )
        if node.op_type in _MOVING or is_constant:
            return 0
        counted = node.input[0] if node.op_type in _REDUCING else node.output[0]
        return _PER_VALUE.get(node.op_type, 1) * math.prod(self._shapes[counted])

    def _layer(self, weight: str) -> str:
        """ "model.b2.conv_branch2a.weight_dequantised" -> "b2.conv_branch2a"; "" for no weights.

        Of weights that the graph computes, HFRM's, it is the layer of those that they are made of.
        """
        layer, found, _ = weight.removeprefix("model.").partition(".weight")
        if found:
            return layer
        maker = self._makers.get(weight)
        made_of = () if maker is None else maker.input
        return next((name for tensor in made_of if (name := self._layer(tensor))), "")

    def _without_relu(self, node: NodeProto) -> NodeProto:
        while node.op_type == "Relu" and node.input[0] in self._makers:
            node = self._makers[node.input[0]]
        return node


def _weight(node: NodeProto) -> str:
    return str(node.input[_WEIGHT_AT.get(node.op_type, 1)])
