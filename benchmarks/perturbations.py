"""Changes that another scanner or stain makes to an image: a fixed set, the same in every run.

The set is part of what a figure means: a change of it makes figures of other releases incomparable.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.train.augmentation import jitter_stains

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, np.random.Generator], Pixels]

_DISPLAY_GAMMA = 2.2


@dataclass(frozen=True)
class Perturbation:
    """One change; the shape of an image stays as it is."""

    name: str
    """For file names and JSON, "eosin-1.4"."""
    words: str
    """For tables, "eosin x1.4"."""
    colours: Change | None = None
    """What happens to the pixels; None leaves them."""
    scale: float = 1.0
    """How much larger the tissue becomes, about the middle of the image: above 1 its edges are cut
    off, below 1 it is mirrored there. So an image falls into the same parts whatever the scale."""

    def apply(
        self,
        rgb: Pixels,  # [H, W, 3]
        rng: np.random.Generator,
    ) -> Pixels:
        """The changed image, uint8 [H, W, 3]; a copy."""
        changed = np.ascontiguousarray(rgb)
        if self.colours is not None:
            changed = self.colours(changed, rng)
        return _rescaled(changed, self.scale, cv2.INTER_CUBIC)

    def apply_to_truth(
        self,
        rgb: Pixels,  # [H, W, 3]
        truth: Pixels,  # [H, W]
        image_name: str,
    ) -> tuple[Pixels, Pixels]:
        """The changed image and its labels; chance is drawn by the two names alone."""
        rng = np.random.default_rng([*f"{self.name}/{image_name}".encode()])
        return self.apply(rgb, rng), _rescaled(truth, self.scale, cv2.INTER_NEAREST)


def _rescaled(image: Pixels, scale: float, interpolation: int) -> Pixels:
    """The image about its middle, pixel centres on the grid; the same size."""
    if scale == 1:
        return image.copy()
    height, width = image.shape[:2]
    shifts = [[(1 - scale) * (side - 1) / 2] for side in (width, height)]
    about_middle = np.hstack([scale * np.eye(2), shifts])
    return np.asarray(
        cv2.warpAffine(
            image, about_middle, (width, height), flags=interpolation,
            borderMode=cv2.BORDER_REFLECT,
        ),
        np.uint8,
    )  # fmt: skip


def _stains(haematoxylin: float, eosin: float) -> Change:
    """Concentrations of the two stains times these factors, in HED space."""
    u = np.array([haematoxylin, eosin, 1.0]) - 1
    return lambda rgb, _: jitter_stains(rgb, u, np.zeros(3))


def _levels(curves: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Change:
    """Each channel by its curve, given as values [256, 1] -> [256, 1 or 3], both 0 to 1."""
    values = curves(np.linspace(0, 1, 256)[:, None])
    table = np.rint(255 * np.broadcast_to(values, (256, 3)).clip(0, 1)).astype(np.uint8)
    return lambda rgb, _: np.asarray(cv2.LUT(rgb, table[None]), np.uint8)


def _blur(sigma_px: float) -> Change:
    return lambda rgb, _: np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma_px), np.uint8)


def _jpeg(quality: int) -> Change:
    def through_jpeg(rgb: Pixels, _: np.random.Generator) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            return np.array(image)

    return through_jpeg


def _noise(sigma: float) -> Change:
    """Normal noise of each pixel and channel, its spread in levels of 255."""

    def noisy(rgb: Pixels, rng: np.random.Generator) -> Pixels:
        drawn = rgb + sigma * rng.standard_normal(rgb.shape, np.float32)
        return np.rint(drawn).clip(0, 255).astype(np.uint8)

    return noisy


CLEAN = Perturbation("clean", "clean")
PERTURBATIONS = (
    CLEAN,
    Perturbation("haematoxylin-0.7", "haematoxylin x0.7", _stains(0.7, 1)),
    Perturbation("haematoxylin-1.4", "haematoxylin x1.4", _stains(1.4, 1)),
    Perturbation("eosin-0.7", "eosin x0.7", _stains(1, 0.7)),
    Perturbation("eosin-1.4", "eosin x1.4", _stains(1, 1.4)),
    Perturbation("gamma-0.7", "gamma 0.7 (lighter)", _levels(lambda v: v**0.7)),
    Perturbation("gamma-1.4", "gamma 1.4 (darker)", _levels(lambda v: v**1.4)),
    Perturbation("tint", "warm tint", _levels(lambda v: v * (1.05, 0.97, 0.88))),
    Perturbation(
        "white-balance",
        "cold white balance",
        # Gains of 0.85 and 1.15 for red and blue in linear light.
        _levels(lambda v: v * np.array([0.85, 1, 1.15]) ** (1 / _DISPLAY_GAMMA)),
    ),
    Perturbation("blur", "blur, sigma 1.5 px", _blur(1.5)),
    Perturbation("jpeg", "JPEG quality 30", _jpeg(30)),
    Perturbation("noise", "noise, sigma 8 levels", _noise(8)),
    *(
        Perturbation(f"scale-{scale:.2f}", f"scale {100 * scale - 100:+.0f} %", scale=scale)
        for scale in (0.9, 0.95, 1.05, 1.1)
    ),
)
"""The first is the image as it is."""
