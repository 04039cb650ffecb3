"""HFRM and its CAM head as one call of the kernel `hfrm_cam`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sshr_deploy.errors import MissingExtraError
from sshr_deploy.model import HFRM, SSHR

if TYPE_CHECKING:
    from sshr_deploy.runtime.kernels.hfrm_cam.op import HfrmCamWeights


class FusedHead(nn.Module):
    """The packed weights of one level, as buffers."""

    head: Tensor
    context: Tensor
    bias: Tensor

    def __init__(self, weights: HfrmCamWeights) -> None:
        super().__init__()
        self.register_buffer("head", weights.head)
        self.register_buffer("context", weights.context)
        self.register_buffer("bias", weights.bias)

    def forward(self, feature: Tensor, gate: Tensor) -> Tensor:
        """Feature [B, C, H, W] and gate [B, C] (`HFRM.gate`) -> CAM float32 [B, N, H, W]."""
        cam: Tensor = torch.ops.sshr.hfrm_cam(
            feature, gate.float(), self.head, self.context, self.bias
        )
        return cam


def fused_heads(model: SSHR, rows: int | None = None) -> Iterator[FusedHead]:
    """The heads of levels 28_1 and 28_2, packed for features of the weights' type.

    Args:
        model: the network.
        rows: of the kernel's build; None for that of the device where the weights are.

    Raises:
        MissingExtraError: Triton is not installed.
        KernelArgumentError: the weights are of a type that the kernel does not have.
    """
    for hfrm, head in ((model.hfrm_28_1, model.ic1), (model.hfrm_28_2, model.ic2)):
        yield FusedHead(_packed(hfrm, head, rows))


def _packed(hfrm: HFRM, head: nn.Conv2d, rows: int | None) -> HfrmCamWeights:
    try:
        from sshr_deploy.runtime.kernels.hfrm_cam.op import pack_hfrm_cam
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "triton", "kernels") from error
    weight = head.weight
    assert head.bias is not None
    return pack_hfrm_cam(
        weight[:, :, 0, 0],
        head.bias,
        hfrm.context_conv.weight[:, 0],
        hfrm.gamma_context.item(),
        dtype=weight.dtype,
        device=weight.device,
        rows=rows,
    )
