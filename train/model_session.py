"""A PyTorch network as a session, so that it is evaluated by the code that evaluates bundles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sshr_deploy.model import SSHR, normalise
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession


class ModelSession(PyTorchSession):
    """Runs `model` in FP32 where its weights are, after setting it to evaluation mode."""

    def __init__(self, model: SSHR) -> None:
        super().__init__(_Published(model))


class _Published(nn.Module):
    """The network in its plain form, between what enters an engine and what leaves it."""

    def __init__(self, model: SSHR) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cams = self.model(normalise(patches))
        prob = torch.sigmoid(cams.cam_deep.mean((2, 3)))
        return torch.relu(cams[1]), torch.relu(cams[2]), torch.relu(cams[3]), prob
