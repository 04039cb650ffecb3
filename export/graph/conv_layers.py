"""The convolutions of an exported graph that can be quantised, under names that stay."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from sshr_deploy.model.hfrm import KERNEL_PX


@dataclass(frozen=True)
class ConvLayer:
    """One dense convolution with constant weights."""

    name: str
    """That of its weights in the checkpoint, such as "b2.conv_branch2a": node names change."""
    input: str
    """Tensor that it reads."""
    output: str
    """Tensor that it makes; that of the ReLU where nothing but a ReLU reads it."""
    weight: str
    bias: str | None


def conv_layers(graph: GraphProto) -> tuple[ConvLayer, ...]:
    """The dense convolutions of an FP32 graph of `write_onnx` or a typed one, in its order.

    Left out are those of HFRM, which alone have 15 taps a side. Depthwise they are 225
    multiply-adds a value on plain units, where 8 bits win little, and in the FP32 graph their
    weights are computed (gamma_c times the kernel). Separable they are 1.1 % of the work, and one
    of the two only shifts.
    """
    constants = {t.name for t in graph.initializer if KERNEL_PX not in t.dims[2:]}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            readers[tensor].append(node)
    outputs = {value.name for value in graph.output}
    return tuple(
        ConvLayer(
            name=node.input[1].removeprefix("model.").partition(".weight")[0],
            input=node.input[0],
            output=_after_relu(node.output[0], readers, outputs),
            weight=node.input[1],
            bias=node.input[2] if len(node.input) > 2 else None,
        )
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in constants and _groups(node) == 1
    )


def _after_relu(tensor: str, readers: dict[str, list[NodeProto]], outputs: set[str]) -> str:
    following = readers[tensor]
    if tensor not in outputs and len(following) == 1 and following[0].op_type == "Relu":
        return str(following[0].output[0])
    return tensor


def _groups(node: NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)
