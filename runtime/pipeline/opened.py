"""Results as values; those of slides and image files are read from their files when asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import InputError, first_line
from sshr_deploy.runtime.results.file_names import MASK_NAME, PATCH_MASK_NAME, REGIONS_NAME
from sshr_deploy.runtime.results.findings import InputResult, Status, Summary


class Segmentation(NamedTuple):
    """The network's answer for an image; N classes."""

    mask: NDArray[np.uint8]  # [H, W], labels 0 to N - 1
    prob: NDArray[np.float32]  # [N]; of an image that was cut, the largest of its parts
    classes: tuple[str, ...]  # N names, in the order of the labels


@dataclass(frozen=True)
class Result:
    """How one slide or image ended, and its results.

    Where it failed, `summary` and all that comes of it raise the error, which is an InputError.
    """

    ended: InputResult
    out: Path
    """Folder of the run's results, absolute."""

    @property
    def path(self) -> Path:
        """The slide or image."""
        return self.ended.path

    @property
    def status(self) -> Status:
        """ "done", "skipped" (done by an earlier run with the same settings) or "failed"."""
        return self.ended.status

    @property
    def reason(self) -> str:
        """Why it failed, in one line; else empty."""
        return self.ended.reason

    @property
    def summary(self) -> Summary:
        """Content of its `summary.json`."""
        self.check()
        assert self.ended.summary is not None
        return self.ended.summary

    def check(self) -> None:
        """Raise what it failed with, if it failed."""
        if self.status == "failed":
            raise self.ended.error or InputError(self.reason)

    @property
    def folder(self) -> Path:
        """Folder of its files."""
        return self.out / self.summary.folder

    @property
    def areas_mm2(self) -> dict[str, float | None]:
        """Area by class name, in mm2; None for an image whose pixel size is not known."""
        return {entry.name: entry.area_mm2 for entry in self.summary.classes}

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Label map, uint8 [H, W]: 0 to N - 1, N for background. A slide's is read as a whole."""
        is_image = self.summary.input.kind == "patch"
        file = self.folder / (PATCH_MASK_NAME if is_image else MASK_NAME)
        try:
            return np.asarray(Image.open(file) if is_image else tifffile.imread(file))
        except Exception as error:  # the decoders have errors of their own
            raise InputError(
                f"{self.folder} holds no mask: {first_line(error)}; compute it again"
            ) from error

    @property
    def regions(self) -> list[dict[str, Any]]:
        """Polygons of a slide as GeoJSON features, in level-0 pixels; images have none."""
        if self.summary.input.kind == "patch":
            return []
        try:
            document = json.loads((self.folder / REGIONS_NAME).read_text("utf-8"))
            features: list[dict[str, Any]] = document["features"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{self.folder} holds no regions: {first_line(error)}; compute it again"
            ) from error
        return features
