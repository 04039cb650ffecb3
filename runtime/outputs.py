"""What a run writes of each slide: the form of its regions, and files beside the usual ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sshr_deploy.errors import UsageError

DICOM_SEG_NAME = "segmentation.dcm"
OME_ZARR_NAME = "mask.ome.zarr"
PROBABILITIES_NAME = "probabilities.tif"
ON_REQUEST = (DICOM_SEG_NAME, OME_ZARR_NAME, PROBABILITIES_NAME)
"""Files, and one folder, that are written where they are asked for."""


@dataclass(frozen=True)
class Outputs:
    """Settings of the result files of slides."""

    simplify_um: float = 2.0
    """Outlines in regions.geojson lie at most so far from the edges of the mask's pixels, and never
    more than 0.7 mask pixels. From 0.7 mask pixels on, most staircases are straightened; below,
    outlines follow the edges exactly. The default straightens those of masks of up to 2.8 um a
    pixel."""
    min_region_um2: float = 0.0
    """Smaller regions are left out of regions.geojson, and stay in the mask. By default none are,
    so that the file has all of the mask. 100, about a cell, leaves out 16 of the 54 regions of the
    demo slide, with 0.03 % of the tissue."""
    classes: tuple[str, ...] = ()
    """Names of the classes in regions.geojson; all of them where there is none."""
    dicom_seg: bool = False
    """Write segmentation.dcm, a DICOM Segmentation."""
    ome_zarr: bool = False
    """Write mask.ome.zarr, the mask as OME-Zarr labels."""
    probabilities: bool = False
    """Write probabilities.tif, a pyramid of the classes' probabilities."""

    def __post_init__(self) -> None:
        for setting in ("simplify_um", "min_region_um2"):
            value = getattr(self, setting)
            if not 0 <= value < float("inf"):
                raise UsageError(f"`{setting}` is {value:g}; give a number from 0 on")

    @property
    def on_request(self) -> tuple[str, ...]:
        """Names of the files that are asked for."""
        asked = (self.dicom_seg, self.ome_zarr, self.probabilities)
        return tuple(name for name, wanted in zip(ON_REQUEST, asked, strict=True) if wanted)

    @property
    def regions_key(self) -> str:
        """All that decides the regions of a mask."""
        names = ", ".join(self.classes) or "all classes"
        return f"simplified by {self.simplify_um:g} um, from {self.min_region_um2:g} um2, {names}"

    def are_in(self, files: Collection[str]) -> bool:
        """Whether a result with these files has all that is asked for."""
        return set(self.on_request) <= set(files)

    def check_classes(self, known: Iterable[str]) -> None:
        """Raise UsageError for a class that the model does not have."""
        names = tuple(known)
        for name in self.classes:
            if name not in names:
                raise UsageError(
                    f"`classes` names {name!r}, which the model does not have; "
                    f"it has {', '.join(names)}"
                )
