"""Faults of a slide that make its result doubtful: pale stain, blur, tissue that is cut off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.machine.read_ahead import side_by_side
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.slides.tissue import detect_tissue
from sshr_deploy.runtime.slides.tissue_map import TissueMap

PALE_OD = 0.35
"""Mean natural optical density of green in hardly stained tissue. A skin and a lung scan have 0.88
to 0.98, 11 fields of lung 0.47 to 1.35; the scans stained 0.3 times as strongly 0.31 to 0.36.
Laboratories count to base 10: there the limit is 0.15, and H&E has 0.20 and more."""
BLURRED_BELOW = 0.62
"""Sharpness of a patch that is out of focus. 191 patches of a skin and a lung scan, at 0.5 and
1 um/px, have 0.70 to 1.31, 154 images of lung H&E 0.75 to 1.19, with noise of 4 levels and JPEG
quality 30 too. Blurred with a Gaussian sigma of 1 px 1 in 100 is below this limit, of 1.5 px 4 in
10, of 2 px all but two, of 3 px all, at 0.47 and less (0.53 with that noise)."""
_FINE_PX, _MIDDLE_PX, _COARSE_PX = 1.0, 2.0, 4.0
"""Gaussian sigmas between which the two bands of detail lie, in pixels of the slide or the model,
whichever is coarser. The finest detail is left out: noise and JPEG hide there."""
_EDGE_SIGMAS = 2
_MIN_TISSUE = 0.1
"""Of a patch that is judged."""
_EDGE_PX = 2
"""Of the thumbnail: a last row may be glass in part, as it reaches past the slide."""

_DENSITY = np.log(256 / (np.arange(256) + 1.0)).astype(np.float32)


@dataclass(frozen=True)
class Quality:
    """Measures of a slide."""

    judged: int
    """Patches with tissue."""
    blurred: int
    """Those of them that are out of focus."""
    green_od: float | None
    """Mean natural optical density of their tissue in green; None without tissue."""
    border_um: float
    """Length along which tissue lies at the edge of the scanned area."""


def quality_of(survey: SlideSurvey, patches: Iterable[NDArray[np.uint8]]) -> Quality:
    """Measure a slide by its survey and patches of its tissue, RGB [H, W, 3] of the mask's pixels.

    Where everything counts as tissue, as for a stain that is not H&E, nothing is at the border.
    """
    mpp_um = survey.grid.mpp_um
    px = max(1.0, survey.mpp.x_um / mpp_um, survey.mpp.y_um / mpp_um)

    def measured(rgb: NDArray[np.uint8]) -> tuple[float, int, float | None]:
        """Sum of green density in the tissue, its pixels, and its sharpness where it is judged."""
        tissue, density = detect_tissue(rgb, mpp_um), _DENSITY[rgb[..., 1]]
        inner = _without_edge(tissue, px)
        sharp = sharpness(density, inner, px) if inner.mean() >= _MIN_TISSUE else None
        return float(density[tissue].sum(dtype=np.float64)), int(np.count_nonzero(tissue)), sharp

    found = side_by_side(patches, measured)
    sharp = [value for _, _, value in found if value is not None]
    count = sum(pixels for _, pixels, _ in found)
    return Quality(
        judged=len(sharp),
        blurred=sum(value < BLURRED_BELOW for value in sharp),
        green_od=sum(total for total, _, _ in found) / count if count else None,
        border_um=border_um(survey.tissue_map),
    )


def sharpness(
    density: NDArray[np.float32],  # [H, W]
    tissue: NDArray[np.bool_],  # [H, W]
    px: float = 1.0,
) -> float:
    """How much fine detail there is beside coarser detail.

    The ratio of standard deviations, within the tissue, of two neighbouring bands of differences of
    Gaussians, 1 to 2 px over 2 to 4 px. Pictures of natural scenes have about the same contrast in
    each octave (Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", JOSA A 4 (1987)), so it is near 1 whatever the contrast is, and
    falls with blur, which takes the finer band first.

    Args:
        density: optical density.
        tissue: where to measure.
        px: pixels of the picture along one pixel that was scanned, where it was enlarged.
    """
    fine, middle, coarse = (
        cv2.GaussianBlur(density, (0, 0), sigma * px)
        for sigma in (_FINE_PX, _MIDDLE_PX, _COARSE_PX)
    )
    above, below = (fine - middle)[tissue].std(), (middle - coarse)[tissue].std()
    return float(above / below) if below > 0 else 0.0


def _without_edge(tissue: NDArray[np.bool_], px: float) -> NDArray[np.bool_]:
    """Tissue whose detail is all its own: past the slide it is white, with a sharp edge."""
    side = 2 * round(_EDGE_SIGMAS * _COARSE_PX * px) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cv2.erode(tissue.astype(np.uint8), disc) > 0


def border_um(tissue: TissueMap) -> float:
    """Length in um along which tissue lies at the edges of a slide; 0 where all of it is tissue."""
    mask = tissue.mask
    if mask.all():
        return 0.0
    edges = mask[:_EDGE_PX].any(0), mask[-_EDGE_PX:].any(0), mask[:, :_EDGE_PX].any(1)
    count = sum(int(np.count_nonzero(edge)) for edge in (*edges, mask[:, -_EDGE_PX:].any(1)))
    return count * tissue.mpp_um
