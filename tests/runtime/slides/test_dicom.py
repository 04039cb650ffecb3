"""DICOM slides of many files; constructed from a real slide's pixels, see `dicom_slides`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from openslide import OpenSlide
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.pipeline.discovery import fingerprint_of, search
from sshr_deploy.runtime.slides import companions, open_slide
from sshr_deploy.runtime.slides.wsidicom_reader import WsidicomReader
from tests.runtime.running import Runner
from tests.runtime.slides.dicom_slides import MPEG2, DicomWriter
from tests.runtime.slides.synthetic import Rgb, pyramid

BOXES = [(0, 0, 50, 40), (100, 70, 90, 80), (-30, -20, 60, 50), (150, 100, 300, 300)]
"""x, y, width, height."""


@pytest.fixture(scope="module")
def levels(demo_slide: Path) -> list[Rgb]:
    with OpenSlide(demo_slide) as slide:
        return pyramid(np.asarray(slide.read_region((600, 600), 0, (700, 500)).convert("RGB")), 3)


def read(path: Path) -> list[Rgb]:
    with open_slide(path) as slide:
        return [slide.read_region(n, 0, 0, *size) for n, size in enumerate(slide.level_sizes_px)]


@pytest.mark.parametrize(("sparse", "parts"), [(False, 1), (True, 2)])
@pytest.mark.parametrize(
    ("syntax", "reader"),
    [
        (ExplicitVRLittleEndian, "openslide"),
        (JPEG2000Lossless, "openslide"),
        (JPEGLSLossless, "wsidicom"),
        (RLELossless, "wsidicom"),
        (HTJ2KLossless, "wsidicom"),
    ],
)
def test_the_written_pixels_are_read(
    syntax: UID, reader: str, sparse: bool, parts: int, levels: list[Rgb], tmp_path: Path
) -> None:
    for path in DicomWriter(syntax, parts, sparse)(tmp_path, levels)[::3]:
        with open_slide(path) as slide:
            assert slide.reader.startswith(reader) and slide.reader.endswith("(dicom)")
            assert slide.level_sizes_px == ((700, 500), (350, 250), (175, 125))
            assert slide.level_downsamples == (1.0, 2.0, 4.0)
            assert slide.file_mpp_um == pytest.approx((0.499, 0.499))
            assert slide.file_magnification == 20
            for number, level in enumerate(levels):
                wide = np.pad(level, ((500, 500), (500, 500), (0, 0)), constant_values=255)
                for x, y, width, height in BOXES:
                    got = slide.read_region(number, x, y, width, height)
                    assert got.dtype == np.uint8
                    wanted = wide[y + 500 : y + 500 + height, x + 500 : x + 500 + width]
                    np.testing.assert_array_equal(got, wanted)


def test_both_libraries_agree(levels: list[Rgb], tmp_path: Path) -> None:
    path, *rest = DicomWriter(JPEG2000Lossless, parts=2)(tmp_path, levels)
    with open_slide(path) as one, WsidicomReader(path, rest) as two:
        assert one.level_sizes_px == two.level_sizes_px
        assert one.level_downsamples == two.level_downsamples
        assert one.file_mpp_um == pytest.approx(two.file_mpp_um)
        for number, size in enumerate(one.level_sizes_px):
            np.testing.assert_array_equal(
                one.read_region(number, 0, 0, *size), two.read_region(number, 0, 0, *size)
            )


def test_threads_read_beside_each_other(levels: list[Rgb], tmp_path: Path) -> None:
    path = DicomWriter(parts=2)(tmp_path, levels)[0]
    corners = [(x, y) for x in range(0, 600, 90) for y in range(0, 400, 90)] * 3
    with open_slide(path) as slide, ThreadPoolExecutor(4) as threads:
        got = threads.map(lambda at: slide.read_region(0, at[0], at[1], 100, 100), corners)
        for (x, y), region in zip(corners, got, strict=True):
            np.testing.assert_array_equal(region, levels[0][y : y + 100, x : x + 100])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("missing", range(4))
def test_a_slide_without_one_of_its_parts_is_refused(
    syntax: UID, sparse: bool, missing: int, levels: list[Rgb], tmp_path: Path
) -> None:
    files = DicomWriter(syntax, 2, sparse)(tmp_path, levels[:2])
    files.pop(missing).unlink()
    with pytest.raises(InputError, match="is one of 2 files of an image, of which 1 are here"):
        read(files[0])


def test_a_slide_with_a_file_that_cannot_be_read_is_refused(
    levels: list[Rgb], tmp_path: Path
) -> None:
    DicomWriter()(tmp_path, levels)
    DicomWriter(MPEG2)(tmp_path / "odd", levels)
    (tmp_path / "odd" / "0-0.dcm").replace(tmp_path / "0-0.dcm")
    with pytest.raises(InputError, match="is a slide of 3 files, of which 1 cannot be read"):
        read(tmp_path / "1-0.dcm")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("share", [0.4, 0.9, 0.99])
def test_a_slide_with_a_file_cut_short_is_refused(
    share: float, sparse: bool, levels: list[Rgb], tmp_path: Path
) -> None:
    path = DicomWriter(HTJ2KLossless, sparse=sparse)(tmp_path, levels)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} cannot be ") and "cop" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
            "1 samples a pixel, not 3",
        ),
        ({"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "16 bits a sample"),
    ],
)
def test_pixels_sshr_cannot_use(
    changes: dict[str, object], says: str, levels: list[Rgb], tmp_path: Path
) -> None:
    path = DicomWriter()(tmp_path, levels[:1])[0]
    data = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path)
    with pytest.raises(InputError, match=f"{says}; SSHR needs 8-bit RGB brightfield"):
        read(path)


def test_the_extra_is_named_where_it_is_missing(
    levels: list[Rgb], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = DicomWriter()(tmp_path, levels[:1])[0]
    monkeypatch.delitem(sys.modules, "sshr_deploy.runtime.slides.wsidicom_reader")
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    with pytest.raises(InputError, match=r"Unsupported transfer syntax .*sshr-deploy\[dicom\]"):
        open_slide(path)


def test_a_slide_of_many_files_is_one_input(levels: list[Rgb], tmp_path: Path) -> None:
    files = DicomWriter(parts=2)(tmp_path, levels)
    other = DicomWriter(series="1.2.4")(tmp_path / "other", levels[:1])
    found = search(tmp_path, tmp_path / "out")
    assert [item.path for item in found.inputs] == [files[0], other[0]]
    assert found.left_out == {}
    for path in files:
        assert companions(path) == frozenset(files) - {path}


def test_any_file_of_a_slide_counts_for_its_fingerprint(levels: list[Rgb], tmp_path: Path) -> None:
    first, *_, last = DicomWriter(parts=2)(tmp_path, levels)
    before = fingerprint_of(first)
    last.write_bytes(last.read_bytes() + b"\0")
    assert fingerprint_of(first) != before


def test_a_file_that_joins_a_series_is_noticed(levels: list[Rgb], tmp_path: Path) -> None:
    first = DicomWriter()(tmp_path, levels[:1])[0]
    late = tmp_path / "late.dcm"
    late.write_bytes(b"")
    assert companions(first) == frozenset()
    whole = DicomWriter()(tmp_path / "x", levels[:2])[1].read_bytes()
    late.write_bytes(whole)
    assert companions(first) == {late}


def test_a_run_over_such_a_slide_gives_what_the_plain_one_gives(
    infer: Runner, levels: list[Rgb], tmp_path: Path
) -> None:
    masks = []
    for name, writer in {
        "plain": DicomWriter(ExplicitVRLittleEndian),
        "parts": DicomWriter(parts=2, sparse=True),
    }.items():
        writer(tmp_path / name, levels)
        run = infer(tmp_path / name, tmp_path / f"{name}-out")
        assert [(r.path.name, r.status) for r in run.results] == [("0-0.dcm", "done")]
        masks.append(tifffile.imread(tmp_path / f"{name}-out" / "0-0.dcm" / "mask.ome.tif"))
    plain, in_parts = masks
    np.testing.assert_array_equal(plain, in_parts)
