"""The network as inference runs it: uint8 patches or fields in, CAMs and probabilities out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.model.hfrm import Spread
from sshr_deploy.model.normalisation import normalise
from sshr_deploy.model.resnet38d import Features
from sshr_deploy.model.sshr import SSHR
from sshr_deploy.model.windows import Windows

Floats = NDArray[np.float32]


class NetworkOutput(NamedTuple):
    """CAMs after ReLU and probabilities of B inputs, N classes; the heads that inference keeps."""

    cam_28_1: Floats  # [B, N, core_cells, core_cells]
    cam_28_2: Floats  # the same
    cam_deep: Floats  # the same
    prob: Floats  # [B, N] of patches, else the same


class Inference(nn.Module):
    """The network with all that surrounds it but the mask, by the plain form of HFRM.

    The published inference gives the CAM of level 56 no weight, so neither it nor its HFRM is
    computed. The network computes in the type of its weights. `DeployGraph` of the export gives the
    same outputs by other forms of HFRM.

    On a field, context d, gates and probabilities are those of windows: with x a cell,

        d_i  = mean of Fdeep over window i          w(x) = sigmoid(W2 relu(W1 d_i)), spread to x
        p(x) = sigmoid(mean of CAM_deep over window i, spread to x)

    "Spread" is bilinear interpolation between the windows' centres (`Windows.spread`).
    """

    def __init__(self, model: SSHR, geometry: Geometry = PATCH) -> None:
        super().__init__()
        self.model = model
        self.windows = Windows(geometry).to(model.fc8.weight.device)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """uint8 RGB [B, side_px, side_px, 3] -> the outputs of `NetworkOutput`, float32."""
        model, windows, spread = self.model, self.windows, self.spread
        f = model.features(self.normalised(patches).to(model.fc8.weight.dtype))
        context = windows.means(f.deep)
        cams = [torch.relu(windows.core(c.float())) for c in self.rectified_cams(f, context)]
        deep = model.fc8(f.deep).float()
        logits = windows.means(deep)
        if spread is not None:
            logits = windows.core(spread(logits))
        return cams[0], cams[1], torch.relu(windows.core(deep)), torch.sigmoid(logits)

    @property
    def spread(self) -> Spread | None:
        """From windows to cells; None where one window is all."""
        return None if self.windows.geometry.is_patch else self.windows.spread

    def normalised(self, patches: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> float32 [B, 3, H, W]."""
        return normalise(patches)

    def rectified_cams(self, f: Features, context: Tensor) -> Iterator[Tensor]:
        """Backbone features and means of the deep one -> raw CAMs of 28_1 and 28_2, not cut."""
        for feature, hfrm, head in self.model.levels(f)[1:]:
            yield head(hfrm(feature, context, self.spread))


@torch.inference_mode()
def predict(model: SSHR, patches: NDArray[np.uint8], geometry: Geometry = PATCH) -> NetworkOutput:
    """uint8 RGB [B, side_px, side_px, 3] -> `NetworkOutput`, on the device of the weights.

    The plain form of HFRM: the reference that everything else is compared with. `model` has to be
    in evaluation mode.
    """
    outputs = Inference(model, geometry)(torch.tensor(patches, device=model.fc8.weight.device))
    return NetworkOutput(*(output.cpu().numpy() for output in outputs))
