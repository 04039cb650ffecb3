"""How far a slide's tissue looks from the tissue that a network knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.known_tissue import Appearance, KnownTissue
from sshr_deploy.manifest import Frozen
from sshr_deploy.runtime.machine.read_ahead import side_by_side
from sshr_deploy.runtime.slides.appearance import appearance_of
from sshr_deploy.runtime.slides.area import read_area
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.slides.reader import SlideReader
from sshr_deploy.runtime.slides.stain import EOSIN_OD, HAEMATOXYLIN_OD

DIFFERS_FROM, FAR_FROM = 0.4, 0.9
"""Thresholds of the score, chosen on one network of width 8 and tried on another seed with
`benchmarks.fit_curve`: 11 images changed in 32 ways. On the second, ways below the first threshold
lost at most 0.06 of mean IoU, those between them -0.01 to 0.20, those above the second 0.00 to
0.18. So the score tells how different tissue looks and little of what that costs: darker tissue
scores as high as lighter tissue, which costs far more. Tissue differs as well: alone, those images,
240 to 500 um wide, score 0.2 to 0.9, so only the second is worth a warning."""

SLIDE_PATCHES = 16
"""Of a slide that is measured."""

_STAINS = np.array([HAEMATOXYLIN_OD, EOSIN_OD])
_STAINS_OF = np.linalg.pinv(_STAINS.T)
"""Concentrations of both from an optical density."""
_NEITHER = np.cross(*_STAINS) / np.linalg.norm(np.cross(*_STAINS))
"""Direction of an optical density that neither stain has: positive is yellow, negative blue."""
_FLOOR_OD = 0.02
"""Spread that is added in every direction of density: less is noise of the camera. Real tissue has
0.06 at least."""
_PAIRS = ((0, 1), (0, 2), (1, 2))
_LEAST_OD, _LEAST_SPREAD = 0.01, 1e-3
"""For ratios."""

Verdict = Literal["fits", "differs", "far"]


class Fit(Frozen):
    """How a slide's tissue looks beside the tissue that the network knows."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    score: float
    """Distance in standard deviations of the known tissue; 0 for the same look."""
    verdict: Verdict
    words: str
    """The verdict as a sentence, for people."""
    darkness: float
    """Optical density over that of the known tissue; 1 where it is equal."""
    haematoxylin: float
    """The same of the part that haematoxylin absorbs."""
    eosin: float
    """The same of the part that eosin absorbs."""
    tint: float
    """Optical density of a colour that is neither stain's, less that of the known tissue."""
    detail: float
    """Spread of the first layer's channels over that of the optical densities, both against the
    known tissue: below 1 where it is blurred, above 1 where it is sharp or noisy."""


def fit_of(known: KnownTissue, measured: Appearance) -> Fit:
    """Compare what was measured with what a network knows.

    Two distances are taken, of the optical densities and of the channels of the first layer; the
    score is the larger one. Each is the root mean square, over channels, of two differences: of
    means, in standard deviations of the known tissue, and of standard deviations, as the logarithm
    of their ratio. Means of densities are compared by Mahalanobis' distance (1936): a shift of hue
    counts for more than one towards dark or light, along which the tissue itself varies.
    """
    look = known.appearance
    score = max(_density_distance(look, measured), _layer_distance(look, measured))
    then, now = np.array(look.density_mean), np.array(measured.density_mean)
    stains_then, stains_now = (np.maximum(_STAINS_OF @ d, _LEAST_OD) for d in (then, now))
    haematoxylin, eosin = (stains_now / stains_then).tolist()
    darkness = float(max(now.sum(), _LEAST_OD) / max(then.sum(), _LEAST_OD))
    tint = float(_NEITHER @ (now - darkness * then))
    detail = _detail(look, measured)
    verdict = verdict_of(score)
    tint_share = tint / max(float(np.mean(look.density_spread)), _LEAST_SPREAD)
    return Fit(
        score=round(score, 4),
        verdict=verdict,
        words=_words(verdict, haematoxylin, eosin, darkness, tint_share, detail),
        darkness=round(darkness, 4),
        haematoxylin=round(haematoxylin, 4),
        eosin=round(eosin, 4),
        tint=round(tint, 4),
        detail=round(detail, 4),
    )


def verdict_of(score: float) -> Verdict:
    """By the thresholds."""
    if score < DIFFERS_FROM:
        return "fits"
    return "differs" if score < FAR_FROM else "far"


def slide_fit(bundle: Bundle, reader: SlideReader, survey: SlideSurvey) -> Fit | None:
    """Fit of an open slide for a bundle; None without tissue, or where the bundle states none.

    Raises:
        BundleError: its first layer cannot be read.
        InputError: the file is damaged.
    """
    if bundle.manifest.model.known_tissue is None:
        return None
    return patches_fit(bundle, sample_patches(reader, survey), survey.grid.mpp_um)


def patches_fit(bundle: Bundle, patches: Sequence[NDArray[np.uint8]], mpp_um: float) -> Fit | None:
    """`slide_fit` by patches of it, RGB [H, W, 3] with pixels of `mpp_um`.

    Raises:
        BundleError: its first layer cannot be read.
    """
    known, first_layer = bundle.manifest.model.known_tissue, bundle.first_layer()
    if known is None or first_layer is None:
        return None
    measured = measure_patches(patches, first_layer, mpp_um)
    return None if measured is None else fit_of(known, measured)


def sample_patches(reader: SlideReader, survey: SlideSurvey) -> list[NDArray[np.uint8]]:
    """At most 16 patches spread evenly over a slide's tissue, RGB [224, 224, 3] each.

    Raises:
        InputError: the file is damaged there.
    """
    grid, tissue = survey.grid, survey.tissue_map
    half = [PATCH_PX / 2 * scale for scale in grid.l0_px_per_px]

    def read(place: tuple[int, int]) -> NDArray[np.uint8]:
        row, column = place
        return read_area(
            reader,
            survey.mpp,
            target_mpp_um=grid.mpp_um,
            l0_x=(column + 0.5) * tissue.l0_px_per_px[0] - half[0],
            l0_y=(row + 0.5) * tissue.l0_px_per_px[1] - half[1],
            width_px=PATCH_PX,
            height_px=PATCH_PX,
        )

    return side_by_side(spread_over(tissue.mask, SLIDE_PATCHES), read)


def measure_patches(
    patches: Sequence[NDArray[np.uint8]],
    first_layer: NDArray[np.float32],  # [C, 3, 3, 3], weights of conv1a
    mpp_um: float,
) -> Appearance | None:
    """Appearance of patches RGB [H, W, 3]; None where there are none, or no tissue in them."""
    if not patches:
        return None
    try:
        return appearance_of(np.stack(patches), first_layer, mpp_um)
    except InputError:  # ink or another stain, which was let pass as tissue
        return None


def spread_over(mask: NDArray[np.bool_], count: int) -> list[tuple[int, int]]:
    """At most `count` pixels (row, column) of a mask, evenly spaced in the order of reading."""
    ends = np.cumsum(np.count_nonzero(mask, axis=1))
    total = int(ends[-1]) if len(ends) else 0
    chosen: list[tuple[int, int]] = []
    for index in range(min(count, total)):
        rank = int((index + 0.5) * total / min(count, total))
        row = int(np.searchsorted(ends, rank, side="right"))
        columns = np.flatnonzero(mask[row])
        chosen.append((row, int(columns[rank - int(ends[row])])))  # counted from the row's end
    return chosen


def _density_distance(known: Appearance, now: Appearance) -> float:
    covariance = np.outer(*[np.maximum(known.density_spread, _LEAST_SPREAD)] * 2)
    for (row, column), correlation in zip(_PAIRS, known.density_correlation, strict=True):
        covariance[row, column] *= correlation
        covariance[column, row] *= correlation
    covariance += _FLOOR_OD**2 * np.eye(3)
    shift = np.subtract(now.density_mean, known.density_mean)
    squares = shift @ np.linalg.solve(covariance, shift) / 3
    return math.sqrt(squares + _spread_change(known.density_spread, now.density_spread))


def _layer_distance(known: Appearance, now: Appearance) -> float:
    spread = np.maximum(known.layer_spread, _LEAST_SPREAD)
    shift = np.subtract(now.layer_mean, known.layer_mean) / spread
    squares = float(np.square(shift).mean())
    return math.sqrt(squares + _spread_change(known.layer_spread, now.layer_spread))


def _spread_change(known: Sequence[float], now: Sequence[float]) -> float:
    """Mean square of the logarithm of the ratio of standard deviations."""
    ratios = np.maximum(now, _LEAST_SPREAD) / np.maximum(known, _LEAST_SPREAD)
    return float(np.square(np.log(ratios)).mean())


def _detail(known: Appearance, now: Appearance) -> float:
    """Geometric mean of how the first layer's spread grew, over that of the densities."""
    layer, density = (
        np.log(np.maximum(a, _LEAST_SPREAD) / np.maximum(b, _LEAST_SPREAD)).mean()
        for a, b in (
            (now.layer_spread, known.layer_spread),
            (now.density_spread, known.density_spread),
        )
    )
    return float(np.exp(layer - density))


def _words(
    verdict: Verdict,
    haematoxylin: float,
    eosin: float,
    darkness: float,
    tint: float,  # in standard deviations of density
    detail: float,
) -> str:
    """Name what differs most."""
    if verdict == "fits":
        return "looks like the slides that this model knows"
    far = "far " if verdict == "far" else ""
    blue, pink = math.log(haematoxylin), math.log(eosin)
    stain = max(abs(blue), abs(pink))
    fix = "adapt it with sshr-deploy adapt"
    if abs(math.log(detail)) > max(abs(tint), stain):
        how = f"{far}more blurred" if detail < 1 else f"{far}sharper or noisier"
        fix = "check focus, compression and noise of the scan"
    elif abs(tint) > stain:
        how = f"{far}yellower" if tint > 0 else f"{far}bluer"
    elif blue * pink > 0 and min(abs(blue), abs(pink)) > stain / 3:
        how = f"stained {far}darker" if darkness > 1 else f"stained {far}lighter"
    else:
        name, change = ("haematoxylin", blue) if abs(blue) == stain else ("eosin", pink)
        how = f"{far}{'stronger' if change > 0 else 'weaker'} in {name}"
    end = f": {fix}" if verdict == "far" else ""
    return f"{how} than the slides that this model knows{end}"
