"""Slides for tests: arrays behind the readers' protocol, and pyramids written with tifffile."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.slides.reader import clipped_box, downsamples_of, white

Rgb = NDArray[np.uint8]


def smooth_noise(width_px: int, height_px: int, seed: int = 0) -> Rgb:
    """A colourful picture with detail at several scales, [height_px, width_px, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px]
    waves = [128 + 90 * np.sin(x / (3 + 7 * c) + c) * np.cos(y / (5 + 4 * c)) for c in range(3)]
    noisy = np.stack(waves, axis=2) + rng.normal(0, 12, (height_px, width_px, 3))
    picture: Rgb = np.clip(noisy, 0, 255).astype(np.uint8)
    return picture


def halved(rgb: Rgb) -> Rgb:
    """2 x 2 means; an odd last row or column is dropped, as slide writers do."""
    h, w = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    blocks = rgb[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).astype(np.float64)
    means: Rgb = np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
    return means


def pyramid(rgb: Rgb, levels: int) -> list[Rgb]:
    """The picture and levels - 1 halvings of it."""
    out = [rgb]
    for _ in range(levels - 1):
        out.append(halved(out[-1]))
    return out


class ArrayReader(Closing):
    """A `SlideReader` on arrays; remembers which regions were read."""

    reader = "arrays"

    def __init__(
        self, levels: Sequence[Rgb], file_mpp_um: tuple[float, float] | None = (0.5, 0.5)
    ) -> None:
        self.path = Path("synthetic.svs")
        self.levels = levels
        self.level_sizes_px = tuple((level.shape[1], level.shape[0]) for level in levels)
        self.level_downsamples = downsamples_of(self.level_sizes_px)
        self.file_mpp_um = file_mpp_um
        self.file_magnification: float | None = None
        self.reads: list[tuple[int, int, int, int, int]] = []

    def read_region(self, level: int, l_x: int, l_y: int, width_px: int, height_px: int) -> Rgb:
        """Read from the array; white outside."""
        self.reads.append((level, l_x, l_y, width_px, height_px))
        out = white(height_px, width_px)
        box = clipped_box(self.level_sizes_px[level], l_x, l_y, width_px, height_px)
        if box is not None:
            x0, y0, x1, y1 = box
            out[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = self.levels[level][y0:y1, x0:x1]
        return out

    def close(self) -> None:
        """Nothing to close."""


def write_svs(path: Path, levels: Sequence[Rgb], mpp_um: float | None = 0.5) -> None:
    """An Aperio-like SVS: level 0, a striped thumbnail, the other levels; lossless."""
    height, width = levels[0].shape[:2]
    stated = f"|AppMag = 20|MPP = {mpp_um}" if mpp_um is not None else ""
    description = f"Aperio Image Library v11.2.1\r\n{width}x{height}{stated}"
    with tifffile.TiffWriter(path) as tiff:
        for index, picture in enumerate([levels[0], levels[-1][::2, ::2], *levels[1:]]):
            tiff.write(
                picture,
                tile=None if index == 1 else (128, 128),
                photometric="rgb",
                metadata=None,
                compression="zlib",
                subfiletype=1 if index else 0,
                description=description,
            )


def write_plain(path: Path, levels: Sequence[Rgb]) -> None:
    """A tiled pyramid of no scanner's format, its coarser levels marked as reduced images."""
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                metadata=None,
                compression="zlib",
                subfiletype=1 if index else 0,
            )


def write_ome(
    path: Path, levels: Sequence[Rgb], physical: dict[str, Any] | None = None, **options: Any
) -> None:
    """An OME-TIFF whose coarser levels are sub-directories of the first page."""
    metadata = {"axes": "YXS", **(physical or {})}
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib", **options}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)


def write_dicom(path: Path, rgb: Rgb, mpp_um: float, series: str = "1.2.3") -> None:
    """A DICOM slide of one level and one JPEG frame, as OpenSlide asks for it."""
    frame = io.BytesIO()
    Image.fromarray(rgb).save(frame, "JPEG", quality=95)
    height, width = rgb.shape[:2]
    measures = Dataset()
    measures.PixelSpacing = [mpp_um / 1000, mpp_um / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = UID(f"{series}.1")
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.SOPClassUID, data.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, f"{series}.1"
    data.SeriesInstanceUID, data.Modality = series, "SM"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType, data.NumberOfFrames = "TILED_FULL", 1
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows, data.Columns = height, width
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = height, width
    data.SharedFunctionalGroupsSequence = [shared]
    data.PixelData = encapsulate([frame.getvalue()])
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)


@contextmanager
def unblocked(pipe: Path) -> Iterator[None]:
    """Fail instead of waiting for ever where the block opens a pipe to read it.

    A writer that is not there yet comes after a moment, and its coming is the proof: opening a pipe
    to write without waiting succeeds only while someone reads or waits to read.
    """
    done, opened = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            try:
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # ENXIO: nobody reads
                continue
            opened.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert not opened.is_set(), f"{pipe} was opened"
