"""Pictures, and a session whose answer follows from their colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, Session, SessionInfo
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.pipeline.image_work import Prediction
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.sessions.base import BaseSession
from sshr_deploy.runtime.settings import LargeImages

Pixels = NDArray[np.uint8]
TILES, WHOLE = LargeImages.TILES, LargeImages.WHOLE


class ColourSession(BaseSession):
    """Its CAM of class c is colour channel c, its probability that channel's mean.

    Of fields each cell's probability is its CAM.
    """

    def __init__(self, geometry: Geometry = PATCH, *, any_side: bool = False) -> None:
        self.info = SessionInfo("colours", "fp32", "CPU", "none 0")
        self.geometry, self.any_side = geometry, any_side
        self.batches: list[int] = []

    def _compute(self, patches: Pixels) -> CamBatch:
        self.batches.append(len(patches))
        cam = colour_cams(patches)
        margin = self.geometry.margin_cells
        if margin:
            cam = np.ascontiguousarray(cam[:, :, margin:-margin, margin:-margin])
        prob = cam.mean((2, 3)) if self.geometry.is_patch else cam
        return CamBatch(cam, cam**2, cam**3, prob)

    def close(self) -> None: ...


def colour_cams(patches: Pixels) -> NDArray[np.float32]:
    """Means of 8 x 8 pixels of [B, H, W, 3] by channel, 0 to 1: [B, 3, H / 8, W / 8]."""
    count, height, width, _ = patches.shape
    blocks = patches.reshape(count, height // 8, 8, width // 8, 8, 3)
    cells = blocks.mean((2, 4), dtype=np.float32)
    return np.asarray(cells.transpose(0, 3, 1, 2) / 255, np.float32)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def published(rgb: Pixels, profile: Profile) -> tuple[Pixels, NDArray[np.float32]]:
    """One patch alone, straight from the definition."""
    resized = np.asarray(Image.fromarray(rgb).resize((224, 224), Image.Resampling.BILINEAR))
    cams = ColourSession().infer(resized[None])
    height, width = rgb.shape[:2]
    return reference_mask(cams, 0, profile, height_px=height, width_px=width), cams.prob[0]


def predict_image(
    rgb: Pixels,
    session: Session,
    profile: Profile,
    large: LargeImages,
    batch: int,
    mpp_um: float | None = None,
) -> Prediction:
    images = [(None, rgb)]
    ((_, prediction),) = predict_images(images, session, profile, large, batch, mpp_um=mpp_um)
    return prediction
