"""Small slides with pixels of 1 um: pieces of tissue in the colours of H&E on glass."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from sshr_deploy.known_tissue import Appearance
from sshr_deploy.runtime.slides import SlideReader
from sshr_deploy.runtime.slides.fit import measure_patches, sample_patches
from sshr_deploy.runtime.slides.plan import SlideSurvey

_COLOURS = np.array([(176, 96, 160), (120, 60, 150), (205, 120, 170), (190, 80, 120)], np.uint8)


def small_picture(height: int = 600, width: int = 700, seed: int = 0) -> NDArray[np.uint8]:
    """Two pieces of tissue whose colour changes from place to place, [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = _COLOURS[rng.integers(0, len(_COLOURS), (-(-height // 60), -(-width // 60)))]
    colours = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    shape = np.zeros((height, width), np.uint8)
    for x, y in ((0.3, 0.3), (0.65, 0.7)):
        axes = width // 5, height // 6
        cv2.ellipse(shape, (int(x * width), int(y * height)), axes, 30 * seed, 0, 360, 1, -1)
    picture: NDArray[np.uint8] = np.where(shape[..., None] > 0, colours, np.uint8(243))
    return picture


def small_slide(path: Path, picture: NDArray[np.uint8] | None = None, seed: int = 0) -> Path:
    """A tiled TIFF of it."""
    tifffile.imwrite(
        path,
        small_picture(seed=seed) if picture is None else picture,
        tile=(128, 128),
        photometric="rgb",
        metadata=None,
        resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
    )
    return path


def measure_slide(
    reader: SlideReader, survey: SlideSurvey, first_layer: NDArray[np.float32]
) -> Appearance | None:
    """Appearance of a slide's tissue."""
    return measure_patches(sample_patches(reader, survey), first_layer, survey.grid.mpp_um)
