"""Changes to an ONNX graph for quantisation: pairs of Q and DQ, constants, and their order."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper


class GraphEdit:
    """Collects new nodes and constants; `apply` puts them in their places."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._constants: dict[str, TensorProto] = {
            tensor.name: tensor for tensor in graph.initializer
        }
        self._producers: dict[str, NodeProto] = {
            name: node for node in graph.node for name in node.output
        }
        self._convolutions: dict[str, NodeProto] = {
            n.input[1]: n for n in graph.node if n.op_type == "Conv"
        }
        self._first: list[NodeProto] = []
        self._after: dict[str, list[NodeProto]] = defaultdict(list)  # by tensor

    def constant(self, name: str) -> TensorProto:
        """The initialiser of that name."""
        return self._constants[name]

    def convolution(self, weight: str) -> NodeProto:
        """The convolution that reads (or read, before the edit) these weights."""
        return self._convolutions[weight]

    def rename_output(self, tensor: str) -> str:
        """Give a tensor another name where it is made, so that another may take its own."""
        node, wide = self._producers[tensor], f"{tensor}_wide"
        node.output[list(node.output).index(tensor)] = wide
        return wide

    def pair(
        self,
        tensor: str,
        source: str,
        result: str,
        step: NDArray[np.generic],
        zero_point: NDArray[np.generic],
    ) -> None:
        """QuantizeLinear and DequantizeLinear from `source` to `result`, after what makes it."""
        constants = [f"{tensor}_step", f"{tensor}_zero_point"]
        for name, value in zip(constants, (step, zero_point), strict=True):
            self._add(name, value)
        quantised = f"{tensor}_quantised"
        self._after[source] += [
            helper.make_node(
                "QuantizeLinear", [source, *constants], [quantised], f"quantise_{tensor}"
            ),
            helper.make_node(
                "DequantizeLinear", [quantised, *constants], [result], f"dequantise_{tensor}"
            ),
        ]

    def dequantise(
        self, name: str, quantised: NDArray[np.generic], steps: NDArray[np.generic]
    ) -> str:
        """A constant with a step for each index of its first axis; returns the tensor's name."""
        inputs = [f"{name}_quantised", f"{name}_step", f"{name}_zero_point"]
        zero_points = np.zeros(len(steps), quantised.dtype)
        for key, value in zip(inputs, (quantised, steps, zero_points), strict=True):
            self._add(key, value)
        result = f"{name}_dequantised"
        self._first.append(
            helper.make_node("DequantizeLinear", inputs, [result], f"dequantise_{name}", axis=0)
        )
        return result

    def apply(self) -> None:
        """Write the new order of nodes and drop the constants that nothing reads any more."""
        nodes = [*self._first]
        for node in self._graph.node:
            nodes.append(node)
            for tensor in node.output:
                nodes += self._after[tensor]
        # Copies: clearing the list below frees the nodes that belong to the graph.
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        used = {tensor for node in copies for tensor in node.input}
        kept = [
            TensorProto.FromString(tensor.SerializeToString())
            for tensor in self._graph.initializer
            if tensor.name in used
        ]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(copies)
        self._graph.initializer.extend(kept)

    def _add(self, name: str, value: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
