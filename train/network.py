"""The network as a recipe trains it: what is frozen, in which precision, in which form of HFRM."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from sshr_deploy.model import SSHR, normalise
from sshr_deploy.model.dropout import ChannelDropout
from sshr_deploy.model.resnet38d import Features
from sshr_deploy.train.recipe import BatchNormMode, HfrmTraining, Precision, Recipe

_STEM = ("conv1a", "b2", "b2_1", "b2_2")


class TrainingNetwork(nn.Module):
    """uint8 patches in, the four heads' logits out.

    Sets `requires_grad` of the parameters of `model` as the recipe says.
    """

    def __init__(self, model: SSHR, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.bf16 = recipe.precision is Precision.BF16
        self.pooled = recipe.hfrm is HfrmTraining.POOLED
        self.frozen_batch_norms = recipe.batch_norm is BatchNormMode.FROZEN
        if recipe.freeze_stem:
            for name in _STEM:
                model.get_submodule(name).requires_grad_(False)
        if self.frozen_batch_norms:
            for batch_norm in _batch_norms(model):
                batch_norm.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; frozen batch norms keep using their running statistics."""
        super().train(mode)
        if self.frozen_batch_norms:
            for batch_norm in _batch_norms(self.model):
                batch_norm.eval()
        return self

    def forward(self, rgb: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> logits float32 [4, B, N] in head order 56, 28_1, 28_2, deep.

        With BF16 the backbone's convolutions run in bfloat16; means and heads stay FP32, because
        rounding a logit to eight bits costs more than computing it.
        """
        x = normalise(rgb)
        if self.model.conv1a.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16, enabled=self.bf16):
            f = self.model.features(x)
        f = Features(*(feature.float() for feature in f))
        return self.model.pooled_logits(f) if self.pooled else self.model.logits(self.model.cams(f))


def share_dropout(model: SSHR, rank: int, world: int) -> None:
    """Let process `rank` of `world` take its part of every dropout draw (`ChannelDropout`)."""
    for module in model.modules():
        if isinstance(module, ChannelDropout):
            module.rank, module.world = rank, world


def _batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
