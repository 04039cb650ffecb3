"""The header of a DICOM Segmentation of a slide: all but its frames."""

from __future__ import annotations

import hashlib
import re
import uuid

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from sshr_deploy.profiles import Code, Profile, TissueClass
from sshr_deploy.runtime.slides.dicom_source import DicomSource, SlideIdentity
from sshr_deploy.runtime.writers.dicom_place import MaskPlace
from sshr_deploy.version import __version__

FRAME_PX = 512
DIMENSIONS = (
    ("RowPositionInTotalImagePixelMatrix", "PlanePositionSlideSequence"),
    ("ColumnPositionInTotalImagePixelMatrix", "PlanePositionSlideSequence"),
    ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
)
"""Attributes that frames are sorted by, and the functional groups that hold them."""
OWN_FRAME = (
    "Frame of reference made by sshr-deploy: x counts to the right and y down, both in mm from the "
    "top left of the scanned image."
)

NO_ORIGIN = "The source states no origin of its total pixel matrix; it is taken to be 0, 0."

_TISSUE = Code(value="85756007", scheme="SCT", meaning="Tissue")
_SEGMENTATION = Code(value="113076", scheme="DCM", meaning="Segmentation")
_ARTIFICIAL = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")
_PROCESSED = Code(
    value="121322", scheme="DCM", meaning="Source image for image processing operation"
)
_OWN_SCHEME = "99SSHR"
_SERIES_NUMBER = 9001
"""Scanners count the series of a study from 1."""
_SLICE_MM = 0.001
"""Thickness that is stated, as scanners do: DICOM wants one, and nobody knows it."""


def new_uid(text: str) -> UID:
    """A UID that the same text always gives."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}")


def seg_header(
    slide: SlideIdentity,
    place: MaskPlace,
    size_px: tuple[int, int],
    profile: Profile,
) -> Dataset:
    """Header of a mask's Segmentation, but for what depends on its frames: see `dicom_seg`.

    Patient, study and frame of reference are those of the source; without one they are empty or
    made from the slide's fingerprint, and `ImageComments` says so. So are the date and time: the
    source's, or those of the slide's file, so that the same mask gives the same object.
    """
    header = Dataset()
    _add_patient_and_study(header, slide)
    _add_equipment(header)
    _add_image(header, slide, size_px, profile)
    header.TotalPixelMatrixOriginSequence = [
        _item(
            XOffsetInSlideCoordinateSystem=_ds(place.origin_mm[0]),
            YOffsetInSlideCoordinateSystem=_ds(place.origin_mm[1]),
            ZOffsetInSlideCoordinateSystem=_ds(place.origin_mm[2]),
        )
    ]
    header.ImageOrientationSlide = [_ds(v) for v in (*place.along_row, *place.along_column)]
    header.SegmentSequence = [_segment(n, c) for n, c in enumerate(profile.classes, 1)]
    _add_dimensions(header)
    shared = _item(PixelMeasuresSequence=[_measures(place)])
    if slide.source is not None:
        _add_references(header, shared, slide.source)
    header.SharedFunctionalGroupsSequence = [shared]
    return header


def _add_patient_and_study(header: Dataset, slide: SlideIdentity) -> None:
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
        "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
        "PatientOrientation",
    ):  # fmt: skip  # which must be there, if empty
        setattr(header, keyword, "")
    _add_specimen(header, slide)
    header.LossyImageCompression = "00"
    header.StudyInstanceUID = new_uid(f"study {slide.fingerprint}")
    header.FrameOfReferenceUID = new_uid(f"frame of reference {slide.fingerprint}")
    header.ContentDate = slide.changed.strftime("%Y%m%d")
    header.ContentTime = slide.changed.strftime("%H%M%S")
    if slide.source is None:
        header.TimezoneOffsetFromUTC = "+0000"
        header.ImageComments = OWN_FRAME
    else:
        header.update(slide.source.shared)
        if slide.source.origin_mm is None:
            header.ImageComments = NO_ORIGIN
    header.SpecificCharacterSet = "ISO_IR 192"  # UTF-8


def _add_specimen(header: Dataset, slide: SlideIdentity) -> None:
    """One that is named after the slide's file."""
    header.ContainerIdentifier = _text(slide.name)
    header.IssuerOfTheContainerIdentifierSequence = header.ContainerTypeCodeSequence = []
    header.SpecimenDescriptionSequence = [
        _item(
            SpecimenIdentifier=_text(slide.name),
            SpecimenUID=new_uid(f"specimen {slide.fingerprint}"),
            IssuerOfTheSpecimenIdentifierSequence=[],
            SpecimenPreparationSequence=[],
        )
    ]


def _add_equipment(header: Dataset) -> None:
    header.Modality = "SEG"
    header.Manufacturer = header.ManufacturerModelName = "sshr-deploy"
    header.DeviceSerialNumber, header.SoftwareVersions = "none", __version__


def _add_image(
    header: Dataset, slide: SlideIdentity, size_px: tuple[int, int], profile: Profile
) -> None:
    header.SOPClassUID = SegmentationStorage
    header.ImageType = ["DERIVED", "PRIMARY"]
    header.SeriesNumber, header.InstanceNumber = _SERIES_NUMBER, 1
    header.SeriesDescription = _text(f"SSHR tissue classes, {profile.name}")
    header.ContentLabel, header.ContentDescription = "TISSUE", _text(slide.name)
    header.ContentCreatorName = ""
    header.SegmentationType, header.SegmentsOverlap = "BINARY", "NO"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.PresentationLUTShape = "IDENTITY"
    header.BitsAllocated = header.BitsStored = 1
    header.HighBit = header.PixelRepresentation = 0
    header.Rows = header.Columns = FRAME_PX
    header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = size_px
    header.TotalPixelMatrixFocalPlanes = 1
    header.DimensionOrganizationType = "TILED_SPARSE"
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _add_dimensions(header: Dataset) -> None:
    organization = new_uid("dimensions: row, column, segment")
    header.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    header.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=attribute,
            FunctionalGroupPointer=group,
        )
        for attribute, group in DIMENSIONS
    ]


def _add_references(header: Dataset, shared: Dataset, source: DicomSource) -> None:
    def references() -> list[Dataset]:
        return [
            _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=instance)
            for sop_class, instance in source.instances
        ]

    header.SourceImageSequence = references()
    header.ReferencedSeriesSequence = [
        _item(SeriesInstanceUID=source.series_uid, ReferencedInstanceSequence=references())
    ]
    derivation = _item(DerivationCodeSequence=[_code(_SEGMENTATION)])
    derivation.SourceImageSequence = references()
    for image in derivation.SourceImageSequence:
        image.SpatialLocationsPreserved = "YES"
        image.PurposeOfReferenceCodeSequence = [_code(_PROCESSED)]
    shared.DerivationImageSequence = [derivation]


def _segment(number: int, tissue: TissueClass) -> Dataset:
    label = _text(tissue.name)
    return _item(
        SegmentNumber=number,
        SegmentLabel=label,
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName="SSHR",
        SegmentationAlgorithmIdentificationSequence=[
            _item(
                AlgorithmFamilyCodeSequence=[_code(_ARTIFICIAL)],
                AlgorithmName="SSHR",
                AlgorithmVersion=f"sshr-deploy {__version__}",
            )
        ],
        SegmentedPropertyCategoryCodeSequence=[_code(tissue.category or _TISSUE)],
        SegmentedPropertyTypeCodeSequence=[_code(tissue.code or _own_code(tissue.name))],
        RecommendedDisplayCIELabValue=_cielab(tissue.rgb),
    )


def _own_code(name: str) -> Code:
    """Code of a class by its name, so that it is another for another class in every profile."""
    value = re.sub("[^A-Z0-9]+", "_", name.upper())
    if len(value) > 16 or value.lower() != name:  # two names may have it
        value = f"{value[:9]}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return Code(value=value, scheme=_OWN_SCHEME, meaning=_text(name))


def _cielab(rgb: tuple[int, int, int]) -> list[int]:
    """L*, a* and b* as DICOM counts them (PS3.3, C.10.7.1.1); white is D65, as in its viewers."""
    pixel = np.array([[rgb]], np.float32) / 255
    light, a, b = cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0].tolist()
    return [round(light / 100 * 65535), *(round((v + 128) / 255 * 65535) for v in (a, b))]


def _measures(place: MaskPlace) -> Dataset:
    width_mm, height_mm = place.pixel_mm
    return _item(PixelSpacing=[_ds(height_mm), _ds(width_mm)], SliceThickness=_ds(_SLICE_MM))


def _code(code: Code) -> Dataset:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning)


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _ds(number: float) -> str:
    return format_number_as_ds(float(number))


def _text(text: str) -> str:
    """What an attribute of 64 characters (LO) can hold: no controls, backslashes or surrogates."""
    return re.sub("[\x00-\x1f\x7f\\\\\ud800-\udfff]", "?", text)[:64]
