"""Tissue of a slide at any place and size, from a mask of its thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TissueMap:
    """Tissue mask of a whole slide on the grid of its thumbnail."""

    mask: NDArray[np.bool_]  # [h, w]
    l0_px_per_px: tuple[float, float]
    """Level-0 pixels along one pixel of the mask (x, y)."""
    mpp_um: float

    def window(
        self,
        l0_x: float,
        l0_y: float,
        l0_width: float,
        l0_height: float,
        width_px: int,
        height_px: int,
    ) -> NDArray[np.bool_]:
        """Tissue in a level-0 rectangle, [height_px, width_px]; outside the slide there is none.

        The mask is sampled at the centre of each wanted pixel with the quadratic B-spline, which
        rounds the mask's corners and leaves straight edges and one-pixel lines where they are.
        Sample positions are absolute, so neighbouring windows agree.
        """
        rows = (l0_y + (np.arange(height_px) + 0.5) * (l0_height / height_px)) / self.l0_px_per_px[
            1
        ]
        columns = (l0_x + (np.arange(width_px) + 0.5) * (l0_width / width_px)) / self.l0_px_per_px[
            0
        ]
        row_index, row_weight = _spline_taps(rows, self.mask.shape[0])
        column_index, column_weight = _spline_taps(columns, self.mask.shape[1])
        top, bottom = int(row_index.min()), int(row_index.max()) + 1
        left, right = int(column_index.min()), int(column_index.max()) + 1
        part = self.mask[top:bottom, left:right].astype(np.float32)
        across = sum(part[:, column_index[k] - left] * column_weight[k] for k in range(3))
        value = sum(across[row_index[k] - top] * row_weight[k][:, None] for k in range(3))
        inside = _inside(rows, self.mask.shape[0])[:, None] & _inside(columns, self.mask.shape[1])
        tissue: NDArray[np.bool_] = (value >= 0.5) & inside
        return tissue

    def is_even(self, l0_x: float, l0_y: float, l0_width: float, l0_height: float) -> bool | None:
        """Whether all of a level-0 rectangle is tissue for certain (True), or none of it (False).

        None where its `window` must be asked, which takes far longer.
        """
        scale_x, scale_y = self.l0_px_per_px
        right, bottom = (l0_x + l0_width) / scale_x, (l0_y + l0_height) / scale_y
        rows = slice(max(0, int(l0_y / scale_y) - 1), int(bottom) + 2)
        columns = slice(max(0, int(l0_x / scale_x) - 1), int(right) + 2)
        around = self.mask[rows, columns]  # every pixel whose spline reaches into the rectangle
        if not around.any():
            return False
        ends_inside = bottom <= self.mask.shape[0] and right <= self.mask.shape[1]
        return True if ends_inside and around.all() else None

    def even_rectangles(
        self, l0_step: tuple[float, float], rows: int, columns: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """`is_even` of all rectangles of a raster from the slide's corner at once.

        Args:
            l0_step: level-0 pixels along a rectangle, (x, y).
            rows: rectangles from top to bottom.
            columns: rectangles from left to right.

        Returns:
            Whether all of a rectangle is tissue, and whether it is all tissue or none, both
            bool [rows, columns].
        """
        spans = [
            _reach(count, step / scale, size)
            for count, step, scale, size in zip(
                (rows, columns),
                l0_step[::-1],
                self.l0_px_per_px[::-1],
                self.mask.shape,
                strict=True,
            )
        ]
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), np.int32)
        cv2.integral(self.mask.view(np.uint8), sum=sums)
        (top, bottom, down), (left, right, across) = spans
        counts = sums[bottom][:, right] - sums[top][:, right]
        counts -= sums[bottom][:, left] - sums[top][:, left]
        full = counts == np.multiply.outer(bottom - top, right - left)
        full &= down[:, None] & across
        return full, full | (counts == 0)


def _spline_taps(
    positions: NDArray[np.floating], size: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Indices and weights [3, n] of the quadratic B-spline; pixel i spans i to i + 1."""
    nearest = np.floor(positions)
    offset = positions - nearest - 0.5
    weights = np.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2])
    index = nearest.astype(np.intp) + np.arange(-1, 2)[:, None]
    return np.clip(index, 0, size - 1), weights.astype(np.float32)


def _reach(
    count: int, step: float, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Pixels whose splines reach into each of `count` steps: the first, one past the last.

    And whether the step ends within the mask.
    """
    starts, ends = np.arange(count) * step, np.arange(1, count + 1) * step
    first = np.clip(starts.astype(np.intp) - 1, 0, size)
    return first, np.clip(ends.astype(np.intp) + 2, first, size), ends <= size


def _inside(positions: NDArray[np.floating], size: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (positions >= 0) & (positions < size)
    return inside
