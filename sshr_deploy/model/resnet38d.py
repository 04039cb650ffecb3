"""ResNet38d, the pre-activation backbone of SSHR.

Wu, Shen, van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition",
arXiv 1611.10080, in the dilated form (output stride 8) that weakly supervised segmentation uses.
Tensor names are those of the published checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.model.dropout import ChannelDropout


class Features(NamedTuple):
    """Backbone outputs, for width 64 and an input of 224 x 224."""

    f56: Tensor  # [B, 256, 56, 56], before batch norm and ReLU
    f28_1: Tensor  # [B, 512, 28, 28], >= 0
    f28_2: Tensor  # [B, 1024, 28, 28], >= 0
    deep: Tensor  # [B, 4096, 28, 28], >= 0


def _conv(c_in: int, c_out: int, size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(
        c_in, c_out, size, stride=stride, padding=padding, dilation=dilation, bias=False
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, plus a shortcut.

    The shortcut is the input itself where shapes agree, else a 1x1 convolution of relu(bn(input)).
    """

    def __init__(
        self,
        c_in: int,
        c_mid: int,
        c_out: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(c_in)
        self.conv_branch2a = _conv(c_in, c_mid, 3, stride, first_dilation)
        self.bn_branch2b1 = nn.BatchNorm2d(c_mid)
        self.conv_branch2b1 = _conv(c_mid, c_out, 3, 1, dilation)
        same_shape = c_in == c_out and stride == 1
        self.conv_branch1 = None if same_shape else _conv(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H/stride, W/stride]."""
        a = F.relu(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(a)
        branch = self.conv_branch2a(a)
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(branch)))
        out: Tensor = shortcut + branch
        return out


class BottleneckBlock(nn.Module):
    """1x1, dilated 3x3, 1x1 convolutions with channel dropout, plus a 1x1 shortcut."""

    def __init__(self, c_in: int, c_mid: int, c_out: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(c_in)
        self.conv_branch2a = _conv(c_in, c_mid // 2, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(c_mid // 2)
        self.conv_branch2b1 = _conv(c_mid // 2, c_mid, 3, 1, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(c_mid)
        self.conv_branch2b2 = _conv(c_mid, c_out, 1)
        self.conv_branch1 = _conv(c_in, c_out, 1)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H, W]."""
        a = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2a(a)
        branch = self.dropout(F.relu(self.bn_branch2b1(branch)))
        branch = self.conv_branch2b1(branch)
        branch = self.dropout(F.relu(self.bn_branch2b2(branch)))
        out: Tensor = self.conv_branch1(a) + self.conv_branch2b2(branch)
        return out


class ResNet38d(nn.Module):
    """Backbone; `width` is the channel count of the first convolution (64 as published)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.conv1a = _conv(3, w, 3)
        self.b2 = BasicBlock(w, 2 * w, 2 * w, stride=2)
        self.b2_1 = BasicBlock(2 * w, 2 * w, 2 * w)
        self.b2_2 = BasicBlock(2 * w, 2 * w, 2 * w)
        self.b3 = BasicBlock(2 * w, 4 * w, 4 * w, stride=2)
        self.b3_1 = BasicBlock(4 * w, 4 * w, 4 * w)
        self.b3_2 = BasicBlock(4 * w, 4 * w, 4 * w)
        self.b4 = BasicBlock(4 * w, 8 * w, 8 * w, stride=2)
        self.b4_1 = BasicBlock(8 * w, 8 * w, 8 * w)
        self.b4_2 = BasicBlock(8 * w, 8 * w, 8 * w)
        self.b4_3 = BasicBlock(8 * w, 8 * w, 8 * w)
        self.b4_4 = BasicBlock(8 * w, 8 * w, 8 * w)
        self.b4_5 = BasicBlock(8 * w, 8 * w, 8 * w)
        self.bn45 = nn.BatchNorm2d(8 * w)
        self.b5 = BasicBlock(8 * w, 8 * w, 16 * w, first_dilation=1, dilation=2)
        self.b5_1 = BasicBlock(16 * w, 8 * w, 16 * w, first_dilation=2, dilation=2)
        self.b5_2 = BasicBlock(16 * w, 8 * w, 16 * w, first_dilation=2, dilation=2)
        self.bn52 = nn.BatchNorm2d(16 * w)
        self.b6 = BottleneckBlock(16 * w, 16 * w, 32 * w, dilation=4, dropout=0.3)
        self.b7 = BottleneckBlock(32 * w, 32 * w, 64 * w, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(64 * w)

    def features(self, x: Tensor) -> Features:
        """Normalised RGB [B, 3, H, W], H and W multiples of 8 -> the four feature maps."""
        x = self.b2_2(self.b2_1(self.b2(self.conv1a(x))))
        f56 = x = self.b3_2(self.b3_1(self.b3(x)))
        for block in (self.b4, self.b4_1, self.b4_2, self.b4_3, self.b4_4, self.b4_5):
            x = block(x)
        f28_1 = torch.relu(self.bn45(x))
        x = self.b5_2(self.b5_1(self.b5(x)))
        f28_2 = torch.relu(self.bn52(x))
        deep = torch.relu(self.bn7(self.b7(self.b6(x))))
        return Features(f56, f28_1, f28_2, deep)
