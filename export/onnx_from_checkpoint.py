"""SSHR network -> ONNX graph: uint8 patches in, raw CAMs and probabilities out.

Normalisation is inside the graph. The published inference gives the CAM of level 56 no weight, so
neither it nor its HFRM is exported.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sshr_deploy.model import IMAGENET_MEAN, IMAGENET_STD, SSHR
from sshr_deploy.runtime.sessions.session import INPUT_NAME, OUTPUT_NAMES, PATCH_PX

OPSET = 20


class HfrmForm(StrEnum):
    """Exact forms of HFRM plus its CAM head in the graph; see `sshr_deploy.model.hfrm`."""

    DEPTHWISE = "depthwise"
    SEPARABLE = "separable"


class DeployGraph(nn.Module):
    """What an engine runs: the network around which nothing is left to compute but the mask."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: SSHR, form: HfrmForm) -> None:
        super().__init__()
        self.model = model
        self.form = form
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 RGB [B, 224, 224, 3] -> CAMs [B, N, 28, 28] after ReLU (3 levels), prob [B, N]."""
        x = patches.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift
        model, f = self.model, self.model.features(x)
        context = f.deep.mean((2, 3))
        cams = []
        for feature, hfrm, head in model.levels(f)[1:]:
            cam = hfrm.cam_depthwise if self.form is HfrmForm.DEPTHWISE else hfrm.cam_separable
            cams.append(torch.relu(cam(feature, context, head)))
        deep = model.fc8(f.deep)
        prob = torch.sigmoid(deep.mean((2, 3)))
        return cams[0], cams[1], torch.relu(deep), prob


def write_onnx(model: SSHR, path: Path, *, form: HfrmForm = HfrmForm.DEPTHWISE) -> None:
    """Write `model` as ONNX (opset 20, dynamic batch); weights go to `<path>.data` beside it.

    Input `patches` uint8 [B, 224, 224, 3]; outputs float32 `cam_28_1`, `cam_28_2`, `cam_deep`
    [B, N, 28, 28] (after ReLU) and `prob` [B, N].

    Raises:
        OSError: the folder cannot be written.
    """
    example = torch.zeros(2, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    export_module(
        DeployGraph(model, form),
        (example,),
        path,
        input_names=(INPUT_NAME,),
        output_names=OUTPUT_NAMES,
        dynamic_shapes={"patches": {0: torch.export.Dim("batch", min=1, max=4096)}},
    )


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: dict[str, Any] | None = None,
) -> None:
    """Write any module as ONNX at `OPSET`, quietly, without traces of this machine.

    `example` fixes the shapes but for those that `dynamic_shapes` frees, as in torch.onnx.export.

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
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export(dynamo=True) returned nothing")
    program.save(path, external_data=True)
    _strip_debug_info(path)


def flop_per_patch(model: SSHR) -> int:
    """Floating-point operations (a multiply-add is 2) for one patch, as PyTorch counts them."""
    with torch.device("meta"):
        graph = DeployGraph(SSHR(model.config), HfrmForm.DEPTHWISE)
        patch = torch.zeros(1, PATCH_PX, PATCH_PX, 3, dtype=torch.uint8)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        graph(patch)
    return int(counter.get_total_flops())


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
