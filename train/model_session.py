"""A PyTorch network as a session, so that it is evaluated by the code that evaluates bundles."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.model import SSHR, predict
from sshr_deploy.runtime.closing import Closing
from sshr_deploy.runtime.sessions.session import (
    CamBatch,
    SessionInfo,
    checked_cams,
    checked_patches,
)


class ModelSession(Closing):
    """Runs `model` in FP32 where its weights are, after setting it to evaluation mode."""

    def __init__(self, model: SSHR) -> None:
        self.model = model.eval()
        device = model.fc8.weight.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        self.info = SessionInfo(
            f"pytorch-{device.type}", "fp32", name, f"torch {torch.__version__}"
        )

    def infer(self, patches: NDArray[np.uint8]) -> CamBatch:
        """uint8 RGB [B, 224, 224, 3] -> CAMs and probabilities.

        Raises:
            SessionError: wrong shape or dtype, or outputs that are not finite.
        """
        patches = checked_patches(patches)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # true FP32 on a GPU
            prediction = predict(self.model, patches)
        return checked_cams(CamBatch(*prediction), len(patches))

    def close(self) -> None:
        """Nothing to free; the network belongs to the caller."""
