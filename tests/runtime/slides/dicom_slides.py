"""Constructed DICOM slides of several files: levels of other slides, as scanners may write them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    VLWholeSlideMicroscopyImageStorage,
)

from tests.runtime.slides.synthetic import Rgb

TILE_PX = 128
MPEG2 = UID("1.2.840.10008.1.2.4.100")
"""Which no library here reads."""


def _jpeg2000(tile: Rgb) -> bytes:
    out = io.BytesIO()
    Image.fromarray(tile).save(out, "JPEG2000", no_jp2=True, mct=1)
    return out.getvalue()


def _rle(tile: Rgb) -> bytes:
    return RLELosslessEncoder.encode(
        tile,
        rows=TILE_PX,
        columns=TILE_PX,
        samples_per_pixel=3,
        bits_allocated=8,
        bits_stored=8,
        photometric_interpretation="RGB",
        pixel_representation=0,
        number_of_frames=1,
        planar_configuration=0,
    )


ENCODERS: dict[UID, Callable[[Rgb], bytes]] = {
    ExplicitVRLittleEndian: lambda tile: tile.tobytes(),
    JPEG2000Lossless: _jpeg2000,
    JPEGLSLossless: lambda tile: bytes(imagecodecs.jpegls_encode(tile)),
    RLELossless: _rle,
    HTJ2KLossless: lambda tile: bytes(imagecodecs.htj2k_encode(tile)),
    MPEG2: lambda tile: tile.tobytes()[:100],
}


@dataclass
class DicomWriter:
    """Writes the levels of one slide, each as one instance or as the parts of one."""

    syntax: UID = JPEGLSLossless
    parts: int = 1
    """Files a level; more than one make a concatenation."""
    sparse: bool = False
    """Each tile says where it lies, instead of all standing in their order."""
    series: str = "1.2.3"
    mpp_um: float = 0.499

    def __call__(self, folder: Path, levels: Sequence[Rgb]) -> list[Path]:
        """Files by level and part; each level is half as large as the one before."""
        folder.mkdir(exist_ok=True)
        return [
            self._write(folder / f"{number}-{part}.dcm", level, number, part)
            for number, level in enumerate(levels)
            for part in range(self.parts)
        ]

    def _write(self, path: Path, level: Rgb, number: int, part: int) -> Path:
        data = _instance(level, self.mpp_um * 2**number, self.series, f"{number}.{part + 1}")
        tiles, corners = _tiles(level)
        first, end = (len(tiles) * p // self.parts for p in (part, part + 1))
        data.ImageType = ["DERIVED" if number else "ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        if self.parts > 1:
            data.ConcatenationUID = f"{self.series}.{number}.99"
            data.SOPInstanceUIDOfConcatenationSource = f"{self.series}.{number}.98"
            data.InConcatenationNumber, data.InConcatenationTotalNumber = part + 1, self.parts
            data.ConcatenationFrameOffsetNumber = first
        if self.sparse:
            data.DimensionOrganizationType = "TILED_SPARSE"
            places = [_at(*corner) for corner in corners[first:end]]
            data.PerFrameFunctionalGroupsSequence = places
        frames = [ENCODERS[self.syntax](tile) for tile in tiles[first:end]]
        data.NumberOfFrames = len(frames)
        data.file_meta.TransferSyntaxUID = self.syntax
        data.PhotometricInterpretation = "YBR_RCT" if self.syntax == JPEG2000Lossless else "RGB"
        data.PixelData = encapsulate(frames) if self.syntax.is_encapsulated else b"".join(frames)
        data["PixelData"].VR = "OB"
        data.save_as(path, enforce_file_format=True)
        return path


def _tiles(level: Rgb) -> tuple[list[Rgb], list[tuple[int, int]]]:
    """Tiles row by row, and their corners."""
    height, width = level.shape[:2]
    whole = np.pad(level, ((0, -height % TILE_PX), (0, -width % TILE_PX), (0, 0)), mode="edge")
    corners = [(x, y) for y in range(0, height, TILE_PX) for x in range(0, width, TILE_PX)]
    tiles = [np.ascontiguousarray(whole[y : y + TILE_PX, x : x + TILE_PX]) for x, y in corners]
    return tiles, corners


def _instance(level: Rgb, mpp_um: float, series: str, uid: str) -> Dataset:
    """All but the pixels and what depends on them."""
    height, width = level.shape[:2]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = UID(f"{series}.{uid}")
    data.SOPClassUID, data.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, f"{series}.{uid}"
    data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2", "1.2.9"
    data.SeriesInstanceUID, data.Modality, data.ContainerIdentifier = series, "SM", "1"
    data.DimensionOrganizationType = "TILED_FULL"
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.Rows = data.Columns = TILE_PX
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = height, width
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mpp_um / 1000, height * mpp_um / 1000
    data.ImagedVolumeDepth, data.LossyImageCompression = 0.001, "00"
    data.FocusMethod, data.ExtendedDepthOfField = "AUTO", "NO"
    data.SpecimenLabelInImage = data.BurnedInAnnotation = "NO"
    data.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    data.TotalPixelMatrixOriginSequence = [
        _item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)
    ]
    data.OpticalPathSequence = [_item(OpticalPathIdentifier="1", ObjectiveLensPower=20)]
    spacing = [mpp_um / 1000, mpp_um / 1000]
    data.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(PixelSpacing=spacing, SliceThickness=0.001)],
            OpticalPathIdentificationSequence=[_item(OpticalPathIdentifier="1")],
        )
    ]
    return data


def _at(x: int, y: int) -> Dataset:
    place = _item(
        ColumnPositionInTotalImagePixelMatrix=x + 1,
        RowPositionInTotalImagePixelMatrix=y + 1,
        XOffsetInSlideCoordinateSystem=0,
        YOffsetInSlideCoordinateSystem=0,
        ZOffsetInSlideCoordinateSystem=0,
    )
    return _item(PlanePositionSlideSequence=[place])


def _item(**values: object) -> Dataset:
    data = Dataset()
    for name, value in values.items():
        setattr(data, name, value)
    return data
