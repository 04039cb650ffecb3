"""What the network says of patches, as plain arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sshr_deploy.model.normalisation import normalise
from sshr_deploy.model.sshr import SSHR

Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """CAMs after ReLU and probabilities of B patches, N classes; the heads that inference keeps."""

    cam_28_1: Floats  # [B, N, H/8, W/8]
    cam_28_2: Floats  # [B, N, H/8, W/8]
    cam_deep: Floats  # [B, N, H/8, W/8]
    prob: Floats  # [B, N]


@torch.inference_mode()
def predict(model: SSHR, patches: NDArray[np.uint8]) -> Prediction:
    """uint8 RGB [B, H, W, 3] -> `Prediction`, FP32, on the device where the weights are.

    The plain form of HFRM: the reference that everything else is compared with. `model` has to be
    in evaluation mode.
    """
    device = model.fc8.weight.device
    cams = model(normalise(torch.tensor(patches, device=device)))
    prob = torch.sigmoid(cams.cam_deep.mean((2, 3)))
    kept = (*(torch.relu(cam) for cam in cams[1:]), prob)
    return Prediction(*(t.cpu().numpy() for t in kept))
