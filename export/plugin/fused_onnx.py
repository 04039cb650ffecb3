"""Experimental: the fused heads in ONNX, as nodes `sshr_deploy::hfrm_cam`.

TensorRT runs them as the plugin. Plain ONNX runtimes do not know the operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnx.defs import OpSchema
from onnx.helper import make_attribute
from onnxscript.values import Op, Opset

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.export.graph.onnx_from_network import Translations, write_graph
from sshr_deploy.export.plugin.tensorrt_plugin import NAME, NAMESPACE, NODE_ATTRIBUTES
from sshr_deploy.model import SSHR
from sshr_deploy.runtime.kernels.hfrm_cam.plan import plugin_config

_DTYPES = {torch.float32: "fp32", torch.float16: "fp16"}
_SCHEMA = OpSchema(
    NAME,
    NAMESPACE,
    since_version=1,
    inputs=[
        OpSchema.FormalParameter("feature", "T", "[B, C, H, W]"),
        OpSchema.FormalParameter("gate", "tensor(float)", "[B, C], 1 + gamma_s w"),
        OpSchema.FormalParameter("head", "T", "[C, NP], as `plan.pack` makes it"),
        OpSchema.FormalParameter("context", "T", "[14 + rows, C, rows * 16 * NP], likewise"),
        OpSchema.FormalParameter("bias", "tensor(float)", "[N]"),
    ],
    outputs=[OpSchema.FormalParameter("cam", "tensor(float)", "[B, N, H, W], before ReLU")],
    type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "the type of the network")],
    attributes=[
        OpSchema.Attribute(name, make_attribute(name, value))
        for name, value in NODE_ATTRIBUTES.items()
    ],
)
_HFRM_CAM = Op(Opset(NAMESPACE, 1), NAME, _SCHEMA)


def write_fused_onnx(model: SSHR, path: Path) -> None:
    """Write `model` as `write_onnx` does, each HFRM and its head as one node of the plugin.

    For TensorRT alone, after `register_plugins`; it needs no GPU here.

    Raises:
        OSError: the folder cannot be written.
        MissingExtraError: Triton is not installed.
        KernelArgumentError: the plugin does not take the type of the weights.
    """
    graph = DeployGraph(model, HfrmForm.FUSED, rows=plugin_rows(model))
    write_graph(graph, path, translations=fused_translations())


def plugin_rows(model: SSHR) -> int:
    """`rows` with which the weights have to be packed for the plugin (`plan.Config`).

    Raises:
        KernelArgumentError: the plugin does not take the type of the weights.
    """
    dtype = model.fc8.weight.dtype
    if dtype not in _DTYPES:
        raise KernelArgumentError(
            f"the weights are {dtype}; the TensorRT plugin takes torch.float32 or torch.float16"
        )
    return plugin_config(_DTYPES[dtype], model.config.num_classes).rows


def fused_translations() -> Translations:
    """`sshr::hfrm_cam` -> the ONNX node; after a `FusedHead` was made, which registers the op."""
    return {torch.ops.sshr.hfrm_cam.default: _hfrm_cam}


def _hfrm_cam(feature: Any, gate: Any, head: Any, context: Any, bias: Any) -> Any:
    return _HFRM_CAM(feature, gate, head, context, bias)  # the attributes are the schema's
