"""The SSHR network in PyTorch, and its checkpoints."""

from sshr_deploy.model.config import FULL_WIDTH, ModelConfig
from sshr_deploy.model.hfrm import HFRM
from sshr_deploy.model.inference import Inference, NetworkOutput, predict
from sshr_deploy.model.normalisation import normalise
from sshr_deploy.model.sshr import HEAD_LOSS_WEIGHTS, SSHR, Cams

__all__ = [
    "FULL_WIDTH",
    "HEAD_LOSS_WEIGHTS",
    "HFRM",
    "SSHR",
    "Cams",
    "Inference",
    "ModelConfig",
    "NetworkOutput",
    "normalise",
    "predict",
]
