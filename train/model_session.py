"""A PyTorch network as a session, so that it is evaluated by the code that evaluates bundles."""

from __future__ import annotations

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.model import SSHR, Inference
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession


class ModelSession(PyTorchSession):
    """Runs `model` in FP32 where its weights are, after setting it to evaluation mode."""

    def __init__(self, model: SSHR, geometry: Geometry = PATCH) -> None:
        super().__init__(Inference(model, geometry), geometry=geometry)
