"""DICOM Segmentations as highdicom and pydicom read them."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from highdicom.spatial import PixelToReferenceTransformer, ReferenceToPixelTransformer
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian

from sshr_deploy.errors import InputError
from sshr_deploy.profiles import Profile, TissueClass, load_profile, shipped_profiles
from sshr_deploy.runtime.slides.dicom_source import slide_identity
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.writers import dicom_seg
from sshr_deploy.runtime.writers.bands import BAND_PX
from sshr_deploy.runtime.writers.dicom_seg import dicom_seg_sink
from tests.runtime.slides.dicom_slides import DicomWriter

PROFILE = load_profile("luad")
N = PROFILE.num_classes
SHAPES = [(1, 1), (513, 1030), (1500, 2100)]

Change = Callable[[pydicom.Dataset], None]


def _mask(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """All labels, mostly background, and some tiles without tissue."""
    mask = np.full(shape, N, np.uint8)
    rng = np.random.default_rng(0)
    for label in range(N):
        y, x = rng.integers(0, shape)
        mask[y : y + 90, x : x + 150] = label
    mask[-1, -1] = 1
    return mask


def _grid(shape: tuple[int, int], l0_px_per_px: tuple[float, float] = (2.0, 2.0)) -> TileGrid:
    return TileGrid(shape[1], shape[0], 1.0, l0_px_per_px)


def _write(
    path: Path,
    mask: NDArray[np.uint8],
    slide: Path,
    grid: TileGrid | None = None,
    fingerprint: str = "f",
    profile: Profile = PROFILE,
    band_px: int = BAND_PX,
) -> pydicom.Dataset:
    grid = grid or _grid((mask.shape[0], mask.shape[1]))
    identity = slide_identity(slide, fingerprint)
    with dicom_seg_sink(path, identity, grid, profile) as sink:
        for y in range(0, len(mask), band_px):
            sink.put(mask[y : y + band_px])
    return pydicom.dcmread(path)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "Präparat 1.svs"
    path.write_bytes(b"")
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def dicom_slide(tmp_path: Path) -> Callable[..., Path]:
    def write(parts: int = 1, change: Change = lambda _: None) -> Path:
        level = np.zeros((400, 600, 3), np.uint8)
        writer = DicomWriter(ExplicitVRLittleEndian, parts, mpp_um=0.5)
        files = writer(tmp_path / "slide", [level, level[::2, ::2]])
        for path in files[:parts]:
            data = pydicom.dcmread(path)
            change(data)
            data.save_as(path)
        return files[0]

    return write


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_highdicom_reads_the_mask(tmp_path: Path, slide: Path, shape: tuple[int, int]) -> None:
    mask = _mask(shape)
    _write(tmp_path / "s.dcm", mask, slide)
    seg = highdicom.seg.segread(tmp_path / "s.dcm")
    read = seg.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(read, np.where(mask == N, 0, mask + 1))


def test_pydicom_reads_each_frame_at_its_place(tmp_path: Path, slide: Path) -> None:
    mask = _mask((1500, 2100))
    data = _write(tmp_path / "s.dcm", mask, slide)
    pixels, seen = data.pixel_array, np.full(mask.shape, N, np.uint8)
    indices = []
    for frame, groups in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        place = groups.PlanePositionSlideSequence[0]
        x, y = (
            int(place[f"{side}PositionInTotalImagePixelMatrix"].value) - 1
            for side in ("Column", "Row")
        )
        offsets_mm = [float(place[f"{a}OffsetInSlideCoordinateSystem"].value) for a in "XYZ"]
        assert offsets_mm == pytest.approx([(x + 0.5) / 1000, (y + 0.5) / 1000, 0])
        target = seen[y : y + 512, x : x + 512]
        inside = frame[: target.shape[0], : target.shape[1]].astype(bool)
        assert inside.any() and inside.sum() == frame.sum()
        target[inside] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1
        indices.append(list(groups.FrameContentSequence[0].DimensionIndexValues))
    np.testing.assert_array_equal(seen, mask)
    assert indices[0][:2] == [1, 1] and all(one < other for one, other in pairwise(indices))
    assert len(pixels) < 15 * N / 2, "tiles without a class have no frame of it"


def test_segments_have_codes_and_colours(tmp_path: Path, slide: Path) -> None:
    data = _write(tmp_path / "s.dcm", _mask((60, 50)), slide)
    found = []
    for segment in data.SegmentSequence:
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        colour = CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        found.append((segment.SegmentLabel, code.CodingSchemeDesignator, code.CodeValue, colour))
    assert found == [
        ("tumour epithelium", "SCT", "108369006", PROFILE.classes[0].rgb),
        ("necrosis", "SCT", "6574001", PROFILE.classes[1].rgb),
        ("lymphocyte", "99SSHR", "LYMPHOCYTE", PROFILE.classes[2].rgb),
        ("tumour-associated stroma", "99SSHR", "TUMOUR_AS_ada71e", PROFILE.classes[3].rgb),
    ]


@pytest.mark.parametrize("name", shipped_profiles())
def test_the_kind_of_each_class_is_that_of_its_code(tmp_path: Path, slide: Path, name: str) -> None:
    """By the tables of DICOM: CID 7194 is abnormal structures, CID 7150 the kinds."""
    profile = load_profile(name)
    mask = np.zeros((60, 50), np.uint8)
    data = _write(tmp_path / "s.dcm", mask, slide, profile=profile)
    for segment in data.SegmentSequence:
        (kind,), (code,) = (
            segment[f"SegmentedProperty{part}CodeSequence"].value for part in ("Category", "Type")
        )
        abnormal = _pydicom_code(code) in codes.cid7194.concepts.values()
        expected = codes.cid7150.MorphologicallyAbnormalStructure
        expected = expected if abnormal else codes.cid7150.Tissue
        assert (_pydicom_code(kind), kind.CodeMeaning) == (expected, expected.meaning)
        assert abnormal == (code.CodingSchemeDesignator == "SCT")


def _pydicom_code(item: pydicom.Dataset) -> PydicomCode:
    return PydicomCode(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)


def test_codes_of_one_s_own_are_those_of_the_names(tmp_path: Path, slide: Path) -> None:
    names = ["stroma", "Stroma", "a b", "a_b", "tumour-associated stroma", "tumour-associated fat"]
    classes = [TissueClass(name=name, color="#102030") for name in names]
    found: list[list[str]] = []
    for these in (classes, classes[::-1]):
        profile = PROFILE.model_copy(update={"classes": tuple(these)})
        mask = np.zeros((60, 50), np.uint8)
        data = _write(tmp_path / "s.dcm", mask, slide, profile=profile)
        found.append(
            [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in data.SegmentSequence]
        )
    assert found[0] == found[1][::-1], "they do not go by the place"
    assert found[0][0] == "STROMA" and len(set(found[0])) == len(names)
    assert all(0 < len(value) <= 16 for value in found[0])


@pytest.mark.parametrize("parts", [1, 2])
def test_a_dicom_slide_is_referenced(
    tmp_path: Path, dicom_slide: Callable[..., Path], parts: int
) -> None:
    def patient(data: pydicom.Dataset) -> None:
        data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jörg"
        data.PatientID, data.ContentDate, data.ContentTime = "17", "20200102", "030405"
        data.SeriesNumber = 1

    data = _write(tmp_path / "s.dcm", _mask((200, 300)), dicom_slide(parts, patient))
    seg = highdicom.seg.segread(tmp_path / "s.dcm")
    uids = [f"1.2.3.0.{part + 1}" for part in range(parts)]
    assert seg.get_source_image_uids() == [("1.2", "1.2.3", uid) for uid in uids]
    sources = data.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    assert [source.ReferencedSOPInstanceUID for source in sources] == uids
    assert (data.StudyInstanceUID, data.FrameOfReferenceUID) == ("1.2", "1.2.9")
    assert (data.PatientName, data.PatientID) == ("Müller^Jörg", "17")
    assert (data.ContentDate, data.ContentTime) == ("20200102", "030405")
    assert "ImageComments" not in data
    assert data.SeriesNumber != 1, "viewers list the series of a study by it"


def test_a_dicom_slide_may_state_no_origin(
    tmp_path: Path, dicom_slide: Callable[..., Path]
) -> None:
    def without_origin(data: pydicom.Dataset) -> None:
        del data.TotalPixelMatrixOriginSequence

    path = dicom_slide(change=without_origin)
    data = _write(tmp_path / "s.dcm", _mask((200, 300)), path)
    assert data.ImageComments.startswith("The source states no origin")
    assert data.FrameOfReferenceUID == "1.2.9"
    origin = data.TotalPixelMatrixOriginSequence[0]
    assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (
        pytest.approx(0.00025),
        pytest.approx(0.00025),
    )


@pytest.mark.parametrize(
    ("origin_mm", "orientation"),
    [((0.0, 0.0), [0, 1, 0, 1, 0, 0]), ((20.25, 40.5), [0, -1, 0, -1, 0, 0])],
)
def test_a_pixel_lies_where_those_below_it_do(
    tmp_path: Path,
    dicom_slide: Callable[..., Path],
    origin_mm: tuple[float, float],
    orientation: list[int],
) -> None:
    """By highdicom, in the slide's frame of reference."""

    def place(data: pydicom.Dataset) -> None:
        origin = data.TotalPixelMatrixOriginSequence[0]
        origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = origin_mm
        data.ImageOrientationSlide = orientation

    path, scale = dicom_slide(change=place), (2.004, 1.996)
    _write(tmp_path / "s.dcm", _mask((200, 299)), path, _grid((200, 299), scale))
    seg, source = highdicom.seg.segread(tmp_path / "s.dcm"), pydicom.dcmread(path)
    to_mm = PixelToReferenceTransformer.for_image(seg, for_total_pixel_matrix=True)
    to_source = ReferenceToPixelTransformer.for_image(
        source, for_total_pixel_matrix=True, round_output=False
    )
    pixels = np.array([(0, 0), (298, 0), (0, 199), (123, 45)])
    expected = (pixels + 0.5) * scale - 0.5
    np.testing.assert_allclose(to_source(to_mm(pixels))[:, :2], expected, atol=1e-3)


def test_other_slides_get_a_frame_of_reference_that_says_so(tmp_path: Path, slide: Path) -> None:
    mask = _mask((60, 50))
    one = _write(tmp_path / "1.dcm", mask, slide)
    assert one.ImageComments.startswith("Frame of reference made by sshr-deploy")
    assert one.ContentDate == "20010909" and one.ContentDescription == "Präparat 1.svs"
    mask[0, 0] = 2
    other = _write(tmp_path / "2.dcm", mask, slide)
    another = _write(tmp_path / "3.dcm", mask, slide, fingerprint="g")
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[keyword] == other[keyword] != another[keyword]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({str(data[keyword].value) for data in (one, other, another)}) == 3


@pytest.mark.parametrize("band_px", [1, 100, 1500])
def test_any_bands_give_the_same_file(tmp_path: Path, slide: Path, band_px: int) -> None:
    mask = _mask((1500, 1030))
    _write(tmp_path / "whole.dcm", mask, slide)
    _write(tmp_path / "s.dcm", mask, slide, band_px=band_px)
    assert (tmp_path / "s.dcm").read_bytes() == (tmp_path / "whole.dcm").read_bytes()


def test_memory_does_not_grow_with_the_height(tmp_path: Path, slide: Path) -> None:
    band = np.repeat((np.arange(1024) // 256).astype(np.uint8)[None], 512, axis=0)
    tracemalloc.start()
    try:
        identity, grid = slide_identity(slide, "f"), _grid((20480, 1024))
        with dicom_seg_sink(tmp_path / "s.dcm", identity, grid, PROFILE) as sink:
            for _ in range(40):
                sink.put(band)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20  # the frames have 10 MiB


def test_a_mask_without_tissue_has_one_empty_frame(tmp_path: Path, slide: Path) -> None:
    _write(tmp_path / "s.dcm", np.full((60, 50), N, np.uint8), slide)
    seg = highdicom.seg.segread(tmp_path / "s.dcm")
    assert seg.NumberOfFrames == 1
    assert not seg.get_total_pixel_matrix(combine_segments=True).any()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    slide = tmp_path / "a\\b\udc80\x01.svs"
    slide.write_bytes(b"")
    classes = [c.model_copy(update={"name": "ß\\" * 40, "code": None}) for c in PROFILE.classes]
    profile = PROFILE.model_copy(update={"classes": tuple(classes)})
    data = _write(tmp_path / "s.dcm", _mask((60, 50)), slide, profile=profile)
    assert data.ContentDescription == data.ContainerIdentifier == "a?b??.svs"
    assert data.SegmentSequence[3].SegmentLabel == "ß?" * 32
    code = data.SegmentSequence[3].SegmentedPropertyTypeCodeSequence[0]
    assert code.CodeMeaning == "ß?" * 32 and code.CodeValue.isascii()


def test_what_cannot_be_written_is_told(
    tmp_path: Path,
    slide: Path,
    dicom_slide: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_place(data: pydicom.Dataset) -> None:
        del data.ImageOrientationSlide

    with pytest.raises(InputError, match=r"does not say where it lies: .*`dicom_seg`"):
        _write(tmp_path / "s.dcm", _mask((60, 50)), dicom_slide(change=without_place))
    with pytest.raises(InputError, match="No such file"):
        _write(tmp_path / "s.dcm", _mask((60, 50)), tmp_path / "gone.svs")
    with pytest.raises(ValueError, match="988 rows of the mask did not come"):
        _write(tmp_path / "s.dcm", _mask((512, 40)), slide, _grid((1500, 40)))
    monkeypatch.setattr(dicom_seg, "_MOST_FRAMES", 3)
    with pytest.raises(InputError, match=r"too large for s\.dcm.*leave `dicom_seg` out"):
        _write(tmp_path / "s.dcm", _mask((1500, 2100)), slide)
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "s.dcm").exists()
