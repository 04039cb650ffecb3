"""A small trainer: fits an SSHR network from random weights to synthetic textures.

What comes out knows four synthetic textures (`sshr_deploy.train.textures`) and nothing else. It
is no medical model; it exists so that the path from checkpoint to mask can be tried and tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.model import HEAD_LOSS_WEIGHTS, SSHR, ModelConfig, normalise
from sshr_deploy.profiles import CamWeights
from sshr_deploy.train.textures import CLASS_NAMES, GLASS, TexturePatch, make_patch

_CAM_SHARES = CamWeights().as_tuple()  # 28_1, 28_2, deep
_GATE = 0.2


@dataclass(frozen=True)
class FitSettings:
    """How long and how to train; the defaults make the demo checkpoint."""

    steps: int = 800
    seed: int = 0
    width: int = 8
    """Channels of the first convolution; 8 gives 1.8 M parameters."""
    batch: int = 16
    """Patches a step; a quarter of it at the full patch size, for equal cost."""
    patch_px: int = 224
    """Side of a patch at 1.0 um/px, as at inference."""
    early_patch_px: int = 112
    """Side in the first part: half the side costs a quarter and says more about where."""
    early_share: float = 0.75
    """Part of the steps that uses `early_patch_px`."""
    learning_rate: float = 1.5e-3
    """Peak of AdamW's one-cycle schedule."""
    weight_decay: float = 1e-2
    bf16: bool = True
    """Convolutions in bfloat16: 1.7 times as fast on one core that has it."""


@dataclass(frozen=True)
class Scores:
    """Agreement with synthetic patches; fractions 0-1, glass left out of the maps."""

    label_accuracy: float
    """Share of patch labels that `probability > 0.5` gets right."""
    pixel_accuracy: float
    mean_iou: float
    """Over the textures that occur in a label map or a mask."""


def head_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Training loss: multilabel soft margin of each head, weighted `HEAD_LOSS_WEIGHTS` and summed.

    `logits` [4, B, N] in head order 56, 28_1, 28_2, deep; `labels` [B, N] of 0 and 1, float.
    The weights are those of SSHR (arXiv 2606.20250).
    """
    losses = [F.multilabel_soft_margin_loss(head, labels) for head in logits.float()]
    weights = torch.tensor(HEAD_LOSS_WEIGHTS, device=logits.device)
    return (weights * torch.stack(losses)).sum()


def fit(
    settings: FitSettings, on_step: Callable[[int, float], None] | None = None
) -> tuple[SSHR, list[float]]:
    """Train a new network; returns it in evaluation mode with the loss of every step.

    Only patch labels are seen, never label maps. The gammas of HFRM start at 0 and every
    batch norm learns, because the other weights start at random. One seed gives the same weights
    bit for bit on the same processor and torch, because it runs on one thread. `on_step` gets
    (step, loss). The caller's random state and thread count are left as they were.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            return _fit(settings, on_step)
    finally:
        torch.set_num_threads(threads)


def _fit(
    settings: FitSettings, on_step: Callable[[int, float], None] | None
) -> tuple[SSHR, list[float]]:
    model = _new_model(settings.width).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.15
    )
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    for step in range(settings.steps):
        rgb, labels = _batch(rng, settings, early=step < settings.early_share * settings.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            logits = model.pooled_logits(normalise(rgb))
        loss = head_loss(logits, labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step, losses[-1])
    return model.eval(), losses


def _new_model(width: int) -> SSHR:
    """Random weights; the backbone's as in He et al., arXiv 1502.01852, HFRM's as published."""
    model = SSHR(ModelConfig(num_classes=len(CLASS_NAMES), width=width))
    heads = {model.ic_56, model.ic1, model.ic2, model.fc8}
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module not in heads:
            nn.init.kaiming_normal_(module.weight)
    return model


def _batch(
    rng: np.random.Generator, settings: FitSettings, *, early: bool
) -> tuple[NDArray[np.uint8], Tensor]:
    """New patches [B, H, W, 3] and their labels [B, N]; no patch is seen twice."""
    count = settings.batch if early else max(1, settings.batch // 4)
    size = settings.early_patch_px if early else settings.patch_px
    patches = [make_patch(rng, size) for _ in range(count)]
    labels = torch.from_numpy(np.stack([p.labels for p in patches])).float()
    return np.stack([p.rgb for p in patches]), labels


@torch.inference_mode()
def evaluate(model: SSHR, patches: Sequence[TexturePatch]) -> Scores:
    """Compare a network in evaluation mode with the labels and label maps of `patches`."""
    confusion = np.zeros((GLASS, GLASS), np.int64)  # [true, predicted]
    right = 0
    for patch in patches:
        mask, probability = predict_mask(model, patch.rgb)
        right += int(((probability > 0.5) == patch.labels.astype(bool)).sum())
        tissue = patch.label_map != GLASS
        pairs = patch.label_map[tissue].astype(np.int64) * GLASS + mask[tissue]
        confusion += np.bincount(pairs, minlength=GLASS * GLASS).reshape(GLASS, GLASS)
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return Scores(
        label_accuracy=right / (len(patches) * GLASS),
        pixel_accuracy=float(hits.sum() / confusion.sum()),
        mean_iou=float((hits[union > 0] / union[union > 0]).mean()),
    )


@torch.inference_mode()
def predict_mask(
    model: SSHR, rgb: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Mask [H, W] and probabilities [N] of one patch uint8 [H, W, 3], as SSHR's inference does.

    CAMs after ReLU, upsampled bilinearly, min-max per class, mixed 0.6 / 0.2 / 0.2; classes with
    a probability of 0.2 or less are out, but for the best; then argmax.
    """
    cams = model(normalise(rgb[None]))
    probability = torch.sigmoid(cams.cam_deep.mean((2, 3)))[0]
    fused = torch.zeros(model.config.num_classes, *rgb.shape[:2])
    for share, cam in zip(_CAM_SHARES, cams[1:], strict=True):
        full = F.interpolate(cam.relu(), rgb.shape[:2], mode="bilinear", align_corners=False)[0]
        low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
        fused += share * (full - low) / (high - low + 1e-8)
    kept = probability > _GATE
    kept[probability.argmax()] = True
    mask = (fused * kept[:, None, None]).argmax(0)
    return mask.numpy().astype(np.uint8), probability.numpy()
