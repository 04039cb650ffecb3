"""The network as it is exported: `Inference` by each exact form of HFRM."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import torch
from torch import Tensor, nn

from sshr_deploy.export.graph.fused_head import fused_heads
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sshr_deploy.model import HFRM, SSHR, Inference
from sshr_deploy.model.resnet38d import Features


class HfrmForm(StrEnum):
    """Exact forms of HFRM plus its CAM head in the graph; see `sshr_deploy.model.hfrm`."""

    PLAIN = "plain"
    """Two steps as published; for comparisons."""
    DEPTHWISE = "depthwise"
    """225 multiply-adds a channel and pixel, one kernel a channel: the less work on processors."""
    SEPARABLE = "separable"
    """900 for four classes, all dense: for GPUs, whose matrix units take no depthwise taps."""
    FUSED = "fused"
    """The kernel `hfrm_cam`: for PyTorch on CUDA, and in ONNX for TensorRT with the plugin."""


class DeployGraph(Inference):
    """The module that an engine runs; normalisation is inside.

    The network computes in the type of its weights; inputs and outputs are of the same types in
    all. With `FUSED` and `SEPARABLE` the weights of HFRM and heads are multiplied here, in that
    type: changing it later would round twice.

    Args:
        model: the network.
        form: of HFRM and its heads; `FUSED` is for patches.
        geometry: of the input.
        rows: with `FUSED`, of the kernel's build that gets the weights (`plan.Config`); None for
            what PyTorch runs where the weights are.

    Raises:
        MissingExtraError: `FUSED`, and Triton is not installed.
        ValueError: `FUSED` for fields: the kernel takes one gate a patch.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: SSHR,
        form: HfrmForm,
        geometry: Geometry = PATCH,
        *,
        rows: int | None = None,
    ) -> None:
        super().__init__(model, geometry)
        if form is HfrmForm.FUSED and not geometry.is_patch:
            raise ValueError("form fused is for patches: its kernel takes one gate a patch")
        self.form = form
        std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        device = model.fc8.weight.device
        self.register_buffer("scale", (1 / (255 * std)).to(device))
        self.register_buffer("shift", (-mean / std).to(device))
        self.fused = nn.ModuleList()
        self.separable = nn.ModuleList()
        if form is HfrmForm.FUSED:
            self.fused.extend(fused_heads(model, rows))
        if form is HfrmForm.SEPARABLE:
            pairs = ((model.hfrm_28_1, model.ic1), (model.hfrm_28_2, model.ic2))
            self.separable.extend(_SeparableHead(hfrm, head) for hfrm, head in pairs)

    def normalised(self, patches: Tensor) -> Tensor:
        """One multiplication and one addition, to the last bits what `normalise` gives."""
        # To FP32 first: TensorRT-RTX does not transpose uint8.
        return patches.to(self.scale.dtype).permute(0, 3, 1, 2) * self.scale + self.shift

    def rectified_cams(self, f: Features, context: Tensor) -> Iterator[Tensor]:
        """See `Inference.rectified_cams`; by the form that was chosen."""
        levels = self.model.levels(f)[1:]
        if self.form is HfrmForm.PLAIN:
            yield from super().rectified_cams(f, context)
        elif self.form is HfrmForm.DEPTHWISE:
            for feature, hfrm, head in levels:
                yield hfrm.cam_depthwise(feature, context, head, self.spread)
        elif self.form is HfrmForm.SEPARABLE:
            for ready, (feature, hfrm, head) in zip(self.separable, levels, strict=True):
                assert isinstance(ready, _SeparableHead)
                yield hfrm.cam_separable(feature, context, head, ready.kernels(), self.spread)
        else:
            for fused, (feature, hfrm, _) in zip(self.fused, levels, strict=True):
                yield fused(feature, hfrm.gate(context))


class _SeparableHead(nn.Module):
    """The kernels of `HFRM.cam_separable`, as constants of the graph."""

    vertical: Tensor
    shift: Tensor
    weight: Tensor

    def __init__(self, hfrm: HFRM, head: nn.Conv2d) -> None:
        super().__init__()
        with torch.no_grad():
            kernels = hfrm.separable_kernels(head)
        for name, kernel in zip(("vertical", "shift", "weight"), kernels, strict=True):
            self.register_buffer(name, kernel.clone())

    def kernels(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.vertical, self.shift, self.weight
