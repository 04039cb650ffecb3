"""The network as a TorchScript file for other libraries' runners, with and without label maps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.geometry import PATCH_CELLS, PATCH_PX
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.model.inference import Inference
from sshr_deploy.runtime.contract import MaskRule
from sshr_deploy.runtime.masks import MIN_MAX_EPSILON


class Scores(nn.Module):
    """CAMs and probabilities -> a score of each class at each pixel, whose argmax is the label.

    The published post-processing as a few tensor operations, as a user of PyTorch would write it.
    """

    def __init__(self, weights: Sequence[float], threshold: float) -> None:
        super().__init__()
        self.weights, self.threshold = weights, threshold

    def forward(self, cam_28_1: Tensor, cam_28_2: Tensor, cam_deep: Tensor, prob: Tensor) -> Tensor:
        """Three times [B, N, 28, 28], and [B, N] -> [B, N, 224, 224]."""
        fused = torch.zeros(())
        for cam, weight in zip((cam_28_1, cam_28_2, cam_deep), self.weights, strict=True):
            up = F.interpolate(cam, (PATCH_PX, PATCH_PX), mode="bilinear")
            low, high = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
            fused = fused + weight * (up - low) / (high - low + MIN_MAX_EPSILON)
        best = F.one_hot(prob.argmax(1), prob.shape[1]).bool()
        on = (prob > self.threshold) | best
        return fused * on[:, :, None, None]


class Network(nn.Module):
    """Normalised patches, float32 [B, 3, 224, 224] -> scores [B, N, 224, 224], logits [B, N]."""

    def __init__(self, inference: Inference, scores: Scores) -> None:
        super().__init__()
        self.inference, self.scores = inference, scores

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        *cams, prob = self.inference(x)
        return self.scores(*cams, prob), torch.logit(prob)


class Classifier(nn.Module):
    """Normalised patches, float32 [B, 3, 224, 224] -> logits [B, N]."""

    def __init__(self, inference: Inference) -> None:
        super().__init__()
        self.inference = inference

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.logit(self.inference(x)[3])


class _Normalised(Inference):
    def normalised(self, patches: Tensor) -> Tensor:
        return patches


def write_networks(checkpoint: Path, rule: MaskRule, folder: Path) -> dict[str, Path]:
    """Write "network", "classifier" and "scores", each a module above; gives their files.

    Raises:
        CheckpointError: the checkpoint cannot be used.
    """
    model, scores = load_checkpoint(checkpoint), Scores(rule.weights, rule.threshold)
    inference, classes = _Normalised(model), model.config.num_classes
    patches = torch.zeros(2, 3, PATCH_PX, PATCH_PX)
    cam = torch.zeros(2, classes, PATCH_CELLS, PATCH_CELLS)
    scored = (cam, cam, cam, torch.zeros(2, classes))
    modules: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "network": (Network(inference, scores), (patches,)),
        "classifier": (Classifier(inference), (patches,)),
        "scores": (scores, scored),
    }
    files = {name: folder / f"{name}.pt" for name in modules}
    for name, (module, examples) in modules.items():
        _write(module, files[name], examples)
    return files


def _write(module: nn.Module, file: Path, examples: tuple[Tensor, ...]) -> None:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but what runners take
        traced = torch.jit.trace(module.eval(), examples)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, file)
