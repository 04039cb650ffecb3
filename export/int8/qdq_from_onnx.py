"""ONNX graph + ranges -> the same graph with 8-bit convolutions, written as Q/DQ pairs.

Quantisation is written into the graph (QuantizeLinear, DequantizeLinear), not asked of a library.
Libraries fuse DequantizeLinear -> Conv -> QuantizeLinear into one 8-bit convolution, or compute the
same numbers in wider types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sshr_deploy.export.graph.conv_layers import ConvLayer, conv_layers
from sshr_deploy.export.graph.edit import GraphEdit
from sshr_deploy.export.graph.external_data import tensor_values, write_model
from sshr_deploy.export.int8.activation_ranges import LayerRange, Range

_LARGEST_BIAS = 2.0**30
"""Of a 32-bit bias: leaves the other half of the range to the sum of products."""


class QdqKind(StrEnum):
    """Types of activations and weights, by what shall run the graph."""

    U8S8 = "u8s8"
    """ONNX Runtime on processors: unsigned activations with a zero point, on outputs too, and a
    32-bit bias; it makes an 8-bit convolution only where it finds all of them."""
    S8S8 = "s8s8"
    """TensorRT: signed activations, zero point 0, on inputs alone; the bias stays wide."""


@dataclass(frozen=True)
class QdqScheme:
    """How values become 8 bits; each weight channel has its own step, around 0."""

    kind: QdqKind
    weight_bits: int = 8
    """7 where processors add pairs of products in 16 bits, which saturate with 8 (AVX2 without
    VNNI)."""

    @property
    def symmetric(self) -> bool:
        """Whether the range of activations is the same on both sides of 0."""
        return self.kind is QdqKind.S8S8

    @property
    def levels(self) -> int:
        """Steps from one end of the range of an activation to the other."""
        return 254 if self.symmetric else 255

    @property
    def weight_limit(self) -> int:
        """Largest magnitude of a quantised weight."""
        return int(2 ** (self.weight_bits - 1)) - 1

    def __str__(self) -> str:
        return f"{self.kind}, {self.weight_bits}-bit weights"


def write_qdq(
    source: Path,
    path: Path,
    layers: Collection[str],
    ranges: Mapping[str, LayerRange],
    scheme: QdqScheme,
) -> tuple[str, ...]:
    """Write the graph `source` with 8-bit convolutions to `path`, weights to `<path>.data`.

    Inputs and outputs of the graph are as before; so is what is not among `layers`. Of a typed
    graph (FP16, BF16) the steps have its type. The same input gives the same bytes.

    Args:
        source: FP32 graph of `write_onnx`, or a typed graph.
        path: to write, in any folder; `source` is not changed.
        layers: names of `conv_layers` to quantise.
        ranges: of these layers, by name, as measured on the FP32 graph.
        scheme: for what shall run it; `U8S8` needs an FP32 graph.

    Returns:
        The node names of the convolutions that stay wide.

    Raises:
        ValueError: `layers` holds a name that the graph has not.
        OSError: a file cannot be read or written.
    """
    proto = onnx.load(source, load_external_data=False)
    found = {layer.name: layer for layer in conv_layers(proto.graph)}
    if unknown := sorted(set(layers) - set(found)):
        raise ValueError(f"{source} has no convolution {unknown[0]}")
    chosen = [layer for name, layer in found.items() if name in layers]
    quantiser = _Quantiser(GraphEdit(proto.graph), source.parent, scheme)
    if scheme.kind is QdqKind.U8S8:
        for layer in chosen:
            quantiser.output(layer, ranges[layer.name].output)
    for layer in chosen:
        quantiser.convolution(layer, ranges[layer.name].input)
    narrow = {quantiser.edit.convolution(layer.weight).name for layer in chosen}
    quantiser.edit.apply()
    write_model(proto, path, source.parent)
    return tuple(
        node.name for node in proto.graph.node if node.op_type == "Conv" and node.name not in narrow
    )


class _Quantiser:
    def __init__(self, edit: GraphEdit, folder: Path, scheme: QdqScheme) -> None:
        self.edit = edit
        self._folder = folder
        self._scheme = scheme
        self._eight_bit: dict[str, str] = {}
        """By tensor: its dequantised values, which all quantised convolutions share."""
        self._steps: dict[str, np.float32] = {}

    def output(self, layer: ConvLayer, kept: Range) -> None:
        """Give the 8-bit values of a convolution's output to all that read it."""
        wide = self.edit.rename_output(layer.output)
        self._pair(layer.output, wide, layer.output, kept, np.dtype(np.float32))

    def convolution(self, layer: ConvLayer, kept: Range) -> None:
        """Let a convolution read 8-bit values, weights and, for ONNX Runtime, a 32-bit bias."""
        weight = tensor_values(self.edit.constant(layer.weight), self._folder)
        if layer.input not in self._eight_bit:
            self._pair(layer.input, layer.input, f"{layer.input}_8bit", kept, weight.dtype)
        node = self.edit.convolution(layer.weight)
        node.input[0] = self._eight_bit[layer.input]
        bias = None
        if layer.bias is not None and self._scheme.kind is QdqKind.U8S8:
            bias = tensor_values(self.edit.constant(layer.bias), self._folder)
        step = self._steps[layer.input]
        quantised, steps = quantise_weight(weight, self._scheme.weight_limit, bias, step)
        node.input[1] = self.edit.dequantise(layer.weight, quantised, steps)
        if layer.bias is not None and bias is not None:
            bias_steps = (steps * step).astype(np.float32)
            values = np.rint(bias / bias_steps.astype(np.float64)).astype(np.int32)
            node.input[2] = self.edit.dequantise(layer.bias, values, bias_steps)

    def _pair(
        self, tensor: str, source: str, result: str, kept: Range, dtype: np.dtype[np.generic]
    ) -> None:
        exact, zero_point = activation_step(kept, self._scheme)
        step = representable(np.array(exact), dtype)
        self.edit.pair(tensor, source, result, step, np.array(zero_point))
        self._eight_bit[tensor] = result
        self._steps[tensor] = np.float32(step)


def activation_step(kept: Range, scheme: QdqScheme) -> tuple[np.float32, np.int8 | np.uint8]:
    """Step and zero point that cover the range; step 1 where the tensor is always 0."""
    if scheme.symmetric:
        return np.float32(max(-kept.low, kept.high) / 127 or 1), np.int8(0)
    step = (kept.high - kept.low) / 255 or 1
    return np.float32(step), np.uint8(np.clip(round(-kept.low / step), 0, 255))


def quantise_weight(
    weight: NDArray[np.floating],  # [O, I, kh, kw], any float type
    limit: int,
    bias: NDArray[np.floating] | None,  # [O], if it shall fit 32 bits
    step: np.float32,  # of the activation
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Weights int8 [O, I, kh, kw] within +-limit, and their steps [O] in the type of `weight`.

    The step of an output channel is its largest magnitude over `limit`, or larger where the
    channel's weights are so small that its bias, in steps of both, would not fit 32 bits.
    """
    wide = weight.astype(np.float64)
    steps = np.abs(wide).reshape(len(wide), -1).max(1) / limit
    if bias is not None:
        steps = np.maximum(steps, np.abs(bias.astype(np.float64)) / (float(step) * _LARGEST_BIAS))
    steps[steps == 0] = 1
    typed = representable(steps, weight.dtype)
    values = np.rint(wide / typed.astype(np.float64)[:, None, None, None])
    return np.clip(values, -limit, limit).astype(np.int8), typed


def representable(steps: NDArray[np.floating], dtype: np.dtype[np.generic]) -> NDArray[np.floating]:
    """Steps in a narrower type; what would become 0 becomes its smallest value above."""
    typed: NDArray[np.floating] = steps.astype(dtype)
    smallest = np.nextafter(np.array(0, dtype), np.array(1, dtype))
    return np.where(typed == 0, smallest, typed).astype(dtype)
