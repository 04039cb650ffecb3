"""A reference set and a session of which everything is known, without a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import CamBatch, MaskRule, SessionInfo
from sshr_deploy.runtime.engines.reference import ReferenceSet
from sshr_deploy.runtime.masks import label_map
from sshr_deploy.runtime.sessions.base import BaseSession

RULE = MaskRule((0.6, 0.2, 0.2), 0.5)


def cams_of(patches: NDArray[np.uint8]) -> CamBatch:
    """CAM of class c is colour channel c, averaged over 8 x 8 pixels; the probability its mean."""
    cells = patches.reshape(-1, 28, 8, 28, 8, 3).mean((2, 4), dtype=np.float32)
    cam = (cells.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    return CamBatch(cam, cam**2, cam**3, cam.mean((2, 3)))


def make_reference(patches: int = 4, *, truth: bool = False) -> ReferenceSet:
    """Smooth random patches of images of several sizes; their truth is what the network says."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (patches, 4, 4, 3), np.uint8)
    images = coarse.repeat(56, 1).repeat(56, 2)
    sizes = np.array([(224 + 10 * i, 200 + 7 * i) for i in range(patches)], np.int64)
    cams = cams_of(images)
    maps = tuple(
        label_map(cams, i, RULE, height_px=int(h), width_px=int(w))
        for i, (h, w) in enumerate(sizes)
    )
    return ReferenceSet(images, sizes, cams, "known", "made up", maps if truth else None)


class KnownSession(BaseSession):
    """`cams_of`, with `noise` added to one CAM and the classes turned by `turn`."""

    def __init__(self, noise: float = 0.0, turn: int = 0) -> None:
        self.info = SessionInfo("known", "fp32", "CPU", "none 0")
        self.noise, self.turn = noise, turn

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        cams = cams_of(patches)
        noisy = (cams.cam_28_1 + np.float32(self.noise)).astype(np.float32)
        outputs = (noisy, cams.cam_28_2, cams.cam_deep, cams.prob)
        return CamBatch(*(np.roll(output, self.turn, 1) for output in outputs))

    def close(self) -> None: ...
