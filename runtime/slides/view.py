"""The part of a slide that its pictures show: the tissue, with a little glass around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.runtime.slides.area import choose_level, read_in_blocks, resample
from sshr_deploy.runtime.slides.plan import SlideSurvey
from sshr_deploy.runtime.slides.reader import SlideReader

MAX_VIEW_PX = 4096
"""Longest side: 48 MiB of RGB at most."""
_MAX_SOURCE_PX = 64 << 20
"""Pixels of a level that are read for a view: about 3 s of one core, as OpenSlide decodes 20
million pixels of JPEG tiles a second. Where a finer view would need more, a coarser level is shown
as it is, or the slide's thumbnail."""
_MARGIN = 0.04
"""Glass around the tissue, as a fraction of the longer side of both."""
_MIN_GAIN = 0.1
"""Fraction of the slide that a crop has to leave out: less is not worth a picture of a part."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a slide, as fractions of its width and height from the top left corner."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the slide."""
        return self == Box()

    def of(self, width: int, height: int) -> tuple[slice, slice]:
        """Rows and columns of a picture of the whole slide of that size, at least one of each."""
        left, right = round(self.left * width), round(self.right * width)
        top, bottom = round(self.top * height), round(self.bottom * height)
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def box_around(tissue: NDArray[np.bool_]) -> Box:
    """Box of the tissue in a mask [h, w] of a slide, with a margin; all of it where there is none.

    Its edges lie on those of the mask's pixels.
    """
    rows, columns = np.flatnonzero(tissue.any(1)), np.flatnonzero(tissue.any(0))
    if not len(rows):
        return Box()
    height, width = tissue.shape
    long_px = max(np.ptp(rows), np.ptp(columns)) + 1
    margin_px = max(1, round(_MARGIN * float(long_px)))
    left, right = max(0, columns[0] - margin_px), min(width, columns[-1] + 1 + margin_px)
    top, bottom = max(0, rows[0] - margin_px), min(height, rows[-1] + 1 + margin_px)
    if (right - left) * (bottom - top) > (1 - _MIN_GAIN) * tissue.size:
        return Box()
    return Box(
        *(float(edge) for edge in (left / width, top / height, right / width, bottom / height))
    )


@dataclass(frozen=True)
class SlideView:
    """The part of a slide with tissue as its pictures show it, before its pixels are read."""

    width_px: int
    height_px: int
    mpp_um: float
    box: Box
    """Its place on the slide."""
    of_thumbnail: bool
    """Cut from the slide's thumbnail, so that nothing is read for it."""


def plan_view(reader: SlideReader, survey: SlideSurvey) -> SlideView:
    """All tissue, at most 4096 px on its longer side and as fine as the mask."""
    box, mpp = box_around(survey.tissue_map.mask), survey.mpp
    width, height = reader.level_sizes_px[0]
    width_um = (box.right - box.left) * width * mpp.x_um
    height_um = (box.bottom - box.top) * height * mpp.y_um
    mpp_um = _pixel_size(reader, survey, width_um, height_um)
    if mpp_um is None:
        high, wide = _of_thumbnail(survey, box).shape[:2]
        return SlideView(wide, high, survey.thumbnail_mpp_um, box, of_thumbnail=True)
    wide, high = (max(1, round(side_um / mpp_um)) for side_um in (width_um, height_um))
    return SlideView(wide, high, mpp_um, box, of_thumbnail=False)


def read_view(
    reader: SlideReader,
    survey: SlideSurvey,
    view: SlideView,
    check_stop: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Pixels of a view, RGB [height_px, width_px, 3].

    `check_stop` is called often; what it raises ends the reading.

    Raises:
        InputError: the file is damaged there.
    """
    if view.of_thumbnail:
        return thumbnail_view(survey, view)
    width, height = reader.level_sizes_px[0]
    return read_in_blocks(
        reader,
        survey.mpp,
        target_mpp_um=view.mpp_um,
        width_px=view.width_px,
        height_px=view.height_px,
        l0_x=view.box.left * width,
        l0_y=view.box.top * height,
        check_stop=check_stop,
    )


def thumbnail_view(survey: SlideSurvey, view: SlideView) -> NDArray[np.uint8]:
    """The same of the slide's thumbnail, enlarged, for which nothing is read."""
    return resample(_of_thumbnail(survey, view.box), view.width_px, view.height_px)


def _of_thumbnail(survey: SlideSurvey, box: Box) -> NDArray[np.uint8]:
    height, width = survey.thumbnail.shape[:2]
    return survey.thumbnail[box.of(width, height)]


def _pixel_size(
    reader: SlideReader, survey: SlideSurvey, width_um: float, height_um: float
) -> float | None:
    """Finest pixel size in um that may be read; None if the thumbnail is as fine."""
    mpp = survey.mpp
    finest_um = max(mpp.x_um, mpp.y_um)
    wanted_um = max(survey.grid.mpp_um, finest_um, max(width_um, height_um) / MAX_VIEW_PX)
    levels_um = [finest_um * downsample for downsample in reader.level_downsamples]
    for mpp_um in [wanted_um, *sorted(um for um in levels_um if um > wanted_um)]:
        if mpp_um >= survey.thumbnail_mpp_um:
            break
        level_um = levels_um[choose_level(reader, mpp, mpp_um)]
        if width_um * height_um / level_um**2 <= _MAX_SOURCE_PX:
            return mpp_um
    return None
