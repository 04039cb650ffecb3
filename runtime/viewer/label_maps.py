"""Label maps of results: which class is at a place, and its colour."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.slides.reader import mapped_read_errors
from sshr_deploy.runtime.viewer.tiff_pages import TiffPages

Rgb = tuple[int, int, int]


class LabelMap(Protocol):
    """Labels of an input's mask; may be read from any thread."""

    size_px: tuple[int, int]
    """Width and height of the mask."""
    palette: list[Rgb]
    """Colour by label."""

    def sample(
        self, x_px: NDArray[np.float64], y_px: NDArray[np.float64], step_px: float
    ) -> NDArray[np.uint8]:
        """Labels at the crossings of columns and rows, [len(y_px), len(x_px)].

        Args:
            x_px: columns in ascending order, in pixels of the mask; outside ones count as its edge.
            y_px: rows likewise.
            step_px: distance between them; labels of a coarser level are taken where it is larger.

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class MaskTiff(Closing):
    """`mask.ome.tif` of a slide."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            InputError: it is missing or not a mask of ours.
        """
        self._pages = TiffPages(path)
        self.size_px = self._pages.size_px
        with mapped_read_errors(path, "is no mask", "run infer on the input again"):
            if (colormap := self._pages.colormap) is None:
                raise ValueError("it has no palette")
            self.palette: list[Rgb] = [(r, g, b) for r, g, b in (colormap.T >> 8).tolist()]

    def sample(
        self, x_px: NDArray[np.float64], y_px: NDArray[np.float64], step_px: float
    ) -> NDArray[np.uint8]:
        """See `LabelMap.sample`."""
        level = min(max(0, int(step_px).bit_length() - 1), len(self._pages.levels) - 1)
        width, height = self._pages.level_size_px(level)
        x = np.clip(x_px / (1 << level), 0, width - 1).astype(np.intp)
        y = np.clip(y_px / (1 << level), 0, height - 1).astype(np.intp)
        region = self._pages.region(level, int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)
        labels: NDArray[np.uint8] = region[np.ix_(y - y[0], x - x[0])]
        return labels

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._pages.close()


class MaskPng(Closing):
    """`mask.png` of an image, held in memory: 25 MB at most."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            InputError: it is missing or not a mask of ours.
        """
        with (
            mapped_read_errors(path, "cannot be read", "run infer on the input again"),
            Image.open(path, formats=("PNG",)) as image,
        ):
            if image.mode != "P":
                raise ValueError("it has no palette")
            self.size_px = image.size
            channels = image.getpalette() or []
            self.palette: list[Rgb] = [
                (r, g, b)
                for r, g, b in zip(channels[::3], channels[1::3], channels[2::3], strict=False)
            ]
            self._labels = np.asarray(image)

    def sample(
        self,
        x_px: NDArray[np.float64],
        y_px: NDArray[np.float64],
        step_px: float,  # noqa: ARG002  there is one level
    ) -> NDArray[np.uint8]:
        """See `LabelMap.sample`."""
        x = np.clip(x_px, 0, self.size_px[0] - 1).astype(np.intp)
        y = np.clip(y_px, 0, self.size_px[1] - 1).astype(np.intp)
        labels: NDArray[np.uint8] = self._labels[np.ix_(y, x)]
        return labels

    def close(self) -> None:
        """Nothing is open."""
