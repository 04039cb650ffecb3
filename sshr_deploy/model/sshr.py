"""SSHR: ResNet38d, HFRM on three feature levels, and four CAM heads.

"Single-Stage Hierarchical Rectification", MICCAI 2026, arXiv 2606.20250.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.model.config import ModelConfig
from sshr_deploy.model.dropout import ChannelDropout
from sshr_deploy.model.hfrm import HFRM, WeightedMeans
from sshr_deploy.model.resnet38d import Features, ResNet38d

HEAD_LOSS_WEIGHTS = (0.1, 0.15, 0.25, 0.5)
"""Weights of the four heads' losses in training as published: 56, 28_1, 28_2, deep."""


class Cams(NamedTuple):
    """Raw class activation maps (before ReLU) of the four heads."""

    cam_56: Tensor  # [B, N, H/4, W/4]
    cam_28_1: Tensor  # [B, N, H/8, W/8]
    cam_28_2: Tensor  # [B, N, H/8, W/8]
    cam_deep: Tensor  # [B, N, H/8, W/8]


class SSHR(ResNet38d):
    """The whole network; tensor names are those of the published checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.width)
        self.config = config
        w, n = config.width, config.num_classes
        deep, hidden = 64 * w, 8 * w
        self.hfrm_56 = HFRM(4 * w, deep, hidden)
        self.hfrm_28_1 = HFRM(8 * w, deep, hidden)
        self.hfrm_28_2 = HFRM(16 * w, deep, hidden)
        self.ic_56 = nn.Conv2d(4 * w, n, 1)
        self.ic1 = nn.Conv2d(8 * w, n, 1)
        self.ic2 = nn.Conv2d(16 * w, n, 1)
        self.fc8 = nn.Conv2d(deep, n, 1, bias=False)
        self.dropout7 = ChannelDropout(0.5)

    def levels(self, f: Features) -> tuple[tuple[Tensor, HFRM, nn.Conv2d], ...]:
        """(feature, its HFRM, its head) of the three rectified levels, shallow to deep."""
        return (
            (f.f56, self.hfrm_56, self.ic_56),
            (f.f28_1, self.hfrm_28_1, self.ic1),
            (f.f28_2, self.hfrm_28_2, self.ic2),
        )

    def forward(self, x: Tensor) -> Cams:
        """Normalised RGB [B, 3, H, W] -> the four CAMs, by the plain form of HFRM."""
        return self.cams(self.features(x))

    def cams(self, f: Features) -> Cams:
        """Backbone features -> the four CAMs, by the plain form of HFRM."""
        context = f.deep.mean((2, 3))
        c56, c28_1, c28_2 = (head(hfrm(feature, context)) for feature, hfrm, head in self.levels(f))
        return Cams(c56, c28_1, c28_2, self.fc8(self.dropout7(f.deep)))

    def logits(self, cams: Cams) -> Tensor:
        """CAMs -> logits [4, B, N] by global average pooling, in head order."""
        return torch.stack([cam.mean((2, 3)) for cam in cams])

    def pooled_logits(self, f: Features, weighted_means: WeightedMeans | None = None) -> Tensor:
        """Backbone features -> `logits(cams(f))` [4, B, N] without CAMs or 15x15 convolutions.

        Exact, for training: a 1x1 head and the mean over the map commute (`HFRM.rectified_mean`),
        and so do channel dropout and the mean.
        """
        context = f.deep.mean((2, 3))
        means = []
        for feature, hfrm, head in self.levels(f):
            mean = hfrm.rectified_mean(feature, context, weighted_means)
            means.append(F.linear(mean, head.weight[:, :, 0, 0], head.bias))
        deep = F.linear(self.dropout7(context), self.fc8.weight[:, :, 0, 0])
        return torch.stack([*means, deep])
