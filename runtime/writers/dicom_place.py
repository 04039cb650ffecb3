"""Where a mask lies in a slide's frame of reference, as DICOM states it."""

from __future__ import annotations

from dataclasses import dataclass

from sshr_deploy.runtime.slides.dicom_source import DicomSource, Vector
from sshr_deploy.runtime.slides.grid import TileGrid


@dataclass(frozen=True)
class MaskPlace:
    """Middle of the mask's first pixel, and the directions in which its columns and rows count."""

    origin_mm: Vector
    along_row: Vector
    along_column: Vector
    pixel_mm: tuple[float, float]
    """Width and height of a pixel of the mask."""

    def at(self, column: int, row: int) -> Vector:
        """Middle of a pixel."""
        across, down = column * self.pixel_mm[0], row * self.pixel_mm[1]
        return _moved(self.origin_mm, self.along_row, across, self.along_column, down)


def mask_place(grid: TileGrid, source: DicomSource | None) -> MaskPlace:
    """Place of the mask of a slide.

    With a DICOM source it lies on the source's pixels, by their size as the source states it; where
    it states no origin, that is 0.
    Otherwise the frame is a new one: x counts to the right and y down, both from the top left of
    the scanned image.
    """
    if source is None:
        side_mm = grid.mpp_um / 1000
        middle = side_mm / 2
        return MaskPlace((middle, middle, 0), (1, 0, 0), (0, 1, 0), (side_mm, side_mm))
    scale_x, scale_y = grid.l0_px_per_px
    own_mm = grid.mpp_um / 1000 / scale_x, grid.mpp_um / 1000 / scale_y
    width_mm, height_mm = source.pixel_mm or own_mm
    origin_mm = _moved(  # from the middle of a pixel of the source to that of a larger one
        source.origin_mm or (0, 0, 0),
        source.along_row,
        (scale_x - 1) / 2 * width_mm,
        source.along_column,
        (scale_y - 1) / 2 * height_mm,
    )
    pixel_mm = scale_x * width_mm, scale_y * height_mm
    return MaskPlace(origin_mm, source.along_row, source.along_column, pixel_mm)


def _moved(
    start: Vector, along_row: Vector, across: float, along_column: Vector, down: float
) -> Vector:
    x, y, z = (
        s + r * across + c * down for s, r, c in zip(start, along_row, along_column, strict=True)
    )
    return x, y, z
