"""SSHR network -> ONNX graph (`DeployGraph`): uint8 patches in, CAMs and probabilities out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.model import SSHR
from sshr_deploy.runtime.contract import INPUT_NAME, OUTPUT_NAMES

OPSET = 20

Translations = dict[Callable[..., Any], Callable[..., Any]]
"""PyTorch operator -> how to write it in ONNX; for `torch.onnx.export`."""


def write_onnx(
    model: SSHR,
    path: Path,
    *,
    form: HfrmForm = HfrmForm.DEPTHWISE,
    geometry: Geometry = PATCH,
    any_side: bool = False,
) -> None:
    """Write `model` as ONNX (opset 20, dynamic batch); weights go to `<path>.data` beside it.

    Input `patches` uint8 [B, side_px, side_px, 3]; outputs float32 `cam_28_1`, `cam_28_2`,
    `cam_deep` [B, N, core_cells, core_cells] (after ReLU) and `prob`, the same, or [B, N] of
    patches. With `any_side` the graph takes fields of all sides that `Geometry.fits` allows: none
    of its nodes depends on them, only the shapes that it states.

    Raises:
        OSError: the folder cannot be written.
        ValueError: `FUSED`, which has no operators of ONNX; see `plugin.fused_onnx`.
    """
    if form is HfrmForm.FUSED:
        raise ValueError("ONNX has no operator for form fused; write_fused_onnx is for the plugin")
    write_graph(DeployGraph(model, form, geometry), path)
    if any_side:
        _free_sides(path)


def write_graph(
    graph: DeployGraph, path: Path, *, translations: Translations | None = None
) -> None:
    """Write a graph as `write_onnx` does; `translations` is for operators that are not PyTorch's.

    Raises:
        OSError: the folder cannot be written.
    """
    example = torch.zeros(2, *graph.windows.geometry.input_shape(), dtype=torch.uint8)
    export_module(
        graph,
        (example,),
        path,
        input_names=(INPUT_NAME,),
        output_names=OUTPUT_NAMES,
        dynamic_shapes={"patches": {0: torch.export.Dim("batch", min=1, max=4096)}},
        translations=translations,
    )


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: dict[str, Any] | None = None,
    translations: Translations | None = None,
) -> None:
    """Write any module as ONNX at `OPSET`, quietly, without traces of this machine.

    `example` fixes the shapes but for those that `dynamic_shapes` frees, as in torch.onnx.export.
    `translations` is for operators that are not PyTorch's own.

    Raises:
        OSError: the folder cannot be written.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        # The exporter warns about its own internals; what it wrote is checked by `qualify`.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=dynamic_shapes,
            custom_translation_table=translations,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export(dynamo=True) returned nothing")
    program.save(path, external_data=True)
    _strip_debug_info(path)


def flop_per_input(model: SSHR, geometry: Geometry = PATCH) -> int:
    """Floating-point operations (a multiply-add is 2) for one input, as PyTorch counts them."""
    with torch.device("meta"):
        graph = DeployGraph(SSHR(model.config), HfrmForm.DEPTHWISE, geometry)
        patch = torch.zeros(1, *geometry.input_shape(), dtype=torch.uint8)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        graph(patch)
    return int(counter.get_total_flops())


def _free_sides(path: Path) -> None:
    """Take the sides of the field that was traced out of a graph's stated shapes."""
    proto = onnx.load(path, load_external_data=False)
    graph = proto.graph
    del graph.value_info[:]
    for tensors, first in ((graph.input, 1), (graph.output, 2)):
        for tensor in tensors:
            for offset, name in enumerate(("rows", "columns")):
                side = tensor.type.tensor_type.shape.dim[first + offset]
                side.dim_param = name if first == 1 else f"kept_{name}"
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _strip_debug_info(path: Path) -> None:
    """Drop the exporter's notes: stack traces with paths of this machine, in every node."""
    proto = onnx.load(path, load_external_data=False)
    graph = proto.graph
    for item in (
        proto,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        del item.metadata_props[:]
        item.ClearField("doc_string")
    path.write_bytes(proto.SerializeToString(deterministic=True))
