"""The result files of a slide that are written where they are asked for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.outputs import DICOM_SEG_NAME, OME_ZARR_NAME, PROBABILITIES_NAME, Outputs
from sshr_deploy.runtime.slides.dicom_source import SlideIdentity
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.writers.bands import ProbSink
from sshr_deploy.runtime.writers.dicom_seg import dicom_seg_sink
from sshr_deploy.runtime.writers.ome_zarr import ome_zarr_sink
from sshr_deploy.runtime.writers.probabilities import probability_sink


class _Said(TypedDict):
    profile: Profile
    mask_mpp_um: float
    name: str


def requested_sinks(
    stack: ExitStack,
    folder: Path,
    name: str,
    identity: SlideIdentity | None,
    grid: TileGrid,
    profile: Profile,
    outputs: Outputs,
) -> list[ProbSink]:
    """Sinks of these files, which take all bands of the mask.

    Args:
        stack: finishes the files where it ends well.
        folder: of the results.
        name: of the slide.
        identity: of the slide, for the DICOM Segmentation.
        grid: of the mask.
        profile: class names and colours.
        outputs: tells which.

    Raises:
        OutputError: one of them cannot be written.
        InputError: the mask is too large for one.
    """
    size_px = grid.width_px, grid.height_px
    sinks: list[ProbSink] = []
    if outputs.dicom_seg and identity is not None:
        seg = dicom_seg_sink(folder / DICOM_SEG_NAME, identity, grid, profile)
        sinks.append(stack.enter_context(seg))
    said: _Said = {"profile": profile, "mask_mpp_um": grid.mpp_um, "name": name}
    if outputs.ome_zarr:
        labels = ome_zarr_sink(folder / OME_ZARR_NAME, size_px, **said)
        sinks.append(stack.enter_context(labels))
    if outputs.probabilities:
        prob = probability_sink(folder / PROBABILITIES_NAME, size_px, **said)
        sinks.append(stack.enter_context(prob))
    return sinks
