"""Sums over the steps of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sshr_deploy.train.history import EpochRow, ValScores
from sshr_deploy.train.losses import total_loss

_HEADS = 4
_FIELDS = _HEADS + 6


@dataclass(frozen=True)
class EpochMeans:
    """An epoch in figures."""

    head_losses: tuple[float, float, float, float]  # 56, 28_1, 28_2, deep
    exact_match: float
    label_accuracy: float
    patches: int
    seconds: float
    data_wait_s: float


class EpochMeter:
    """Adds up losses, hits and times of an epoch; `sums` goes into checkpoints and all-reduces."""

    def __init__(self) -> None:
        self.sums = torch.zeros(_FIELDS, dtype=torch.float64)

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """One step: the heads' losses [4], logits [4, B, N], labels [B, N], all on the CPU."""
        right = (logits[-1] > 0) == labels.bool()  # probability > 0.5, [B, N]
        hits = [right.all(1).sum().item(), right.sum().item(), right.numel(), len(right)]
        self.sums[:_HEADS] += losses.double() * len(right)
        self.sums[_HEADS : _HEADS + 4] += torch.tensor(hits, dtype=torch.float64)

    def add_time(self, seconds: float, data_wait_s: float) -> None:
        """Time of a step, and the part of it in which the device waited for data."""
        self.sums[-2:] += torch.tensor([seconds, data_wait_s], dtype=torch.float64)


def epoch_means(sums: Tensor, world: int = 1) -> EpochMeans:
    """Figures of `sums` added over `world` processes, whose times are averaged."""
    *losses, exact, right, labels, patches, seconds, waited = sums.tolist()
    a, b, c, d = (loss / patches for loss in losses)
    return EpochMeans(
        head_losses=(a, b, c, d),
        exact_match=exact / patches,
        label_accuracy=right / labels,
        patches=int(patches),
        seconds=seconds / world,
        data_wait_s=waited / world,
    )


def epoch_row(
    means: EpochMeans,
    *,
    epoch: int,
    steps: int,
    learning_rate: float,
    val: ValScores | None,
    validation_s: float,
    peak_memory_mb: float | None,
) -> EpochRow:
    """An epoch's figures as the row that is recorded; see `EpochRow`."""
    return EpochRow(
        epoch=epoch,
        steps=steps,
        learning_rate=learning_rate,
        loss=total_loss(torch.tensor(means.head_losses)).item(),
        loss_56=means.head_losses[0],
        loss_28_1=means.head_losses[1],
        loss_28_2=means.head_losses[2],
        loss_deep=means.head_losses[3],
        exact_match=means.exact_match,
        label_accuracy=means.label_accuracy,
        val=val,
        patches_per_s=means.patches / means.seconds,
        data_wait_share=means.data_wait_s / means.seconds,
        seconds=means.seconds + validation_s,
        peak_memory_mb=peak_memory_mb,
    )
