"""Losses of the heads, and the sum that training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.model import HEAD_LOSS_WEIGHTS


def head_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Multilabel soft margin loss of each head [4], meaned over patches and classes.

    `logits` [4, B, N] in head order 56, 28_1, 28_2, deep; `labels` [B, N] of 0 and 1, float.
    """
    return torch.stack([F.multilabel_soft_margin_loss(head, labels) for head in logits.float()])


def total_loss(losses: Tensor) -> Tensor:
    """The training loss: the heads' losses [4] weighted 0.1, 0.15, 0.25, 0.5 (arXiv 2606.20250)."""
    return (torch.tensor(HEAD_LOSS_WEIGHTS, device=losses.device) * losses).sum()
