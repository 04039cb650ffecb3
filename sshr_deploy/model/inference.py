"""The network as inference runs it: uint8 patches in, CAMs and probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.model.normalisation import normalise
from sshr_deploy.model.resnet38d import Features
from sshr_deploy.model.sshr import SSHR

Floats = NDArray[np.float32]


class NetworkOutput(NamedTuple):
    """CAMs after ReLU and probabilities of B patches, N classes; the heads that inference keeps."""

    cam_28_1: Floats  # [B, N, H/8, W/8]
    cam_28_2: Floats  # [B, N, H/8, W/8]
    cam_deep: Floats  # [B, N, H/8, W/8]
    prob: Floats  # [B, N]


class Inference(nn.Module):
    """The network with all that surrounds it but the mask, by the plain form of HFRM.

    The published inference gives the CAM of level 56 no weight, so neither it nor its HFRM is
    computed. The network computes in the type of its weights. `DeployGraph` of the export gives the
    same outputs by other forms of HFRM.
    """

    def __init__(self, model: SSHR) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 RGB [B, H, W, 3] -> the outputs of `NetworkOutput`, float32."""
        model = self.model
        f = model.features(self.normalised(patches).to(model.fc8.weight.dtype))
        context = f.deep.mean((2, 3))
        cams = [torch.relu(cam.float()) for cam in self.rectified_cams(f, context)]
        deep = model.fc8(f.deep).float()
        prob = torch.sigmoid(deep.mean((2, 3)))
        return cams[0], cams[1], torch.relu(deep), prob

    def normalised(self, patches: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> float32 [B, 3, H, W]."""
        return normalise(patches)

    def rectified_cams(self, f: Features, context: Tensor) -> Iterator[Tensor]:
        """Backbone features and mean of the deep one [B, C] -> raw CAMs of 28_1 and 28_2."""
        for feature, hfrm, head in self.model.levels(f)[1:]:
            yield head(hfrm(feature, context))


@torch.inference_mode()
def predict(model: SSHR, patches: NDArray[np.uint8]) -> NetworkOutput:
    """uint8 RGB [B, H, W, 3] -> `NetworkOutput`, on the device where the weights are.

    The plain form of HFRM: the reference that everything else is compared with. `model` has to be
    in evaluation mode.
    """
    outputs = Inference(model)(torch.tensor(patches, device=model.fc8.weight.device))
    return NetworkOutput(*(output.cpu().numpy() for output in outputs))
