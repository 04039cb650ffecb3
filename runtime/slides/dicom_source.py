"""The finest level of a DICOM slide, for objects that are derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom

from sshr_deploy.runtime.slides.dicom_series import series_uid, volume_files
from sshr_deploy.runtime.slides.opening import companions
from sshr_deploy.runtime.slides.reader import mapped_read_errors

_SHARED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    # patient and study
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    # place and specimen
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "SpecimenDescriptionSequence",
    # pixels and when they were made
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "ContentDate",
    "ContentTime",
)
"""What a derived object has in common with its source."""
_OWN = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixOriginSequence",
    "ImageOrientationSlide",
    "SharedFunctionalGroupsSequence",
)

Vector = tuple[float, float, float]
"""x, y, z in mm, in a slide's frame of reference."""


@dataclass(frozen=True)
class DicomSource:
    """Instances with the pixels of level 0, and where they lie."""

    shared: pydicom.Dataset
    """Attributes of patient, study, frame of reference and specimen, those that are there."""
    series_uid: str
    instances: tuple[tuple[str, str], ...]
    """SOP class and instance UID of each file; more than one where the level was cut."""
    origin_mm: Vector | None
    """Middle of the pixel at the top left; None if missing, which is against the standard and
    happens."""
    along_row: Vector
    """Direction in which columns count, of length 1."""
    along_column: Vector
    """Direction in which rows count."""
    pixel_mm: tuple[float, float] | None
    """Width and height of a pixel; None if missing."""


@dataclass(frozen=True)
class SlideIdentity:
    """What a derived object says of its slide, known while the slide's file is there."""

    name: str
    """Of its file."""
    fingerprint: str
    """See `fingerprint_of`."""
    changed: datetime
    """Last change of the file, UTC."""
    source: DicomSource | None
    """None where it is no DICOM slide."""


def slide_identity(path: Path, fingerprint: str) -> SlideIdentity:
    """That of a slide's file.

    Raises:
        InputError: it is gone, or one of a DICOM slide's files is damaged or says too little.
    """
    with mapped_read_errors(path, "cannot be read", "copy it again"):
        changed = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    return SlideIdentity(path.name, fingerprint, changed, _dicom_source(path))


def _dicom_source(path: Path) -> DicomSource | None:
    if path.suffix.lower() != ".dcm" or series_uid(path) is None:
        return None
    problem, fix = "does not say where it lies", "copy it again, or leave out `dicom_seg`"
    with mapped_read_errors(path, problem, fix):
        headers = [
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_SHARED, *_OWN])
            for file in volume_files({path, *companions(path)})
        ]
        widest = max(int(header.TotalPixelMatrixColumns) for header in headers)
        return _source([h for h in headers if int(h.TotalPixelMatrixColumns) == widest])


def _source(headers: list[pydicom.FileDataset]) -> DicomSource:
    first = headers[0]
    first.decode()  # texts; they may be written in another character set
    shared = pydicom.Dataset()
    for keyword in _SHARED:
        if keyword in first:
            shared[keyword] = first[keyword]
    orientation = [float(number) for number in first.ImageOrientationSlide]
    return DicomSource(
        shared,
        str(first.SeriesInstanceUID),
        tuple((str(h.SOPClassUID), str(h.SOPInstanceUID)) for h in headers),
        _origin_mm(first),
        (orientation[0], orientation[1], orientation[2]),
        (orientation[3], orientation[4], orientation[5]),
        _pixel_mm(first),
    )


def _origin_mm(header: pydicom.FileDataset) -> Vector | None:
    for origin in header.get("TotalPixelMatrixOriginSequence", ()):
        return (
            float(origin.XOffsetInSlideCoordinateSystem),
            float(origin.YOffsetInSlideCoordinateSystem),
            float(origin.get("ZOffsetInSlideCoordinateSystem") or 0),
        )
    return None


def _pixel_mm(header: pydicom.FileDataset) -> tuple[float, float] | None:
    for groups in header.get("SharedFunctionalGroupsSequence", ()):
        for measures in groups.get("PixelMeasuresSequence", ()):
            if spacing := measures.get("PixelSpacing"):
                return float(spacing[1]), float(spacing[0])
    return None
