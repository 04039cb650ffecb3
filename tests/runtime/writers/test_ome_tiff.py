"""The mask file as tifffile and OpenSlide read it."""

from __future__ import annotations

import re
import tracemalloc
import uuid
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.writers import ome_tiff
from sshr_deploy.runtime.writers.ome_tiff import ome_tiff_sink, write_ome_tiff

PROFILE = load_profile("luad")
OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
SHAPES = [(1, 1), (7, 5), (512, 512), (513, 1030), (3000, 1), (1, 1700), (1500, 2100)]


def _mask(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)


def _write(path: Path, mask: NDArray[np.uint8], mpp_um: float = 1.25, name: str = "s") -> Path:
    write_ome_tiff(path, mask, profile=PROFILE, mask_mpp_um=mpp_um, name=name)
    return path


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tifffile_reads_every_level(tmp_path: Path, shape: tuple[int, int]) -> None:
    mask = _mask(shape)
    with tifffile.TiffFile(_write(tmp_path / "m.ome.tif", mask)) as tiff:
        assert tiff.is_ome and not tiff.is_bigtiff
        assert len(tiff.pages) == 1 and len(tiff.series) == 1
        page = tiff.pages.first
        assert page.is_tiled and page.photometric == tifffile.PHOTOMETRIC.PALETTE
        assert page.colormap is not None
        palette = np.asarray(PROFILE.palette) * 257
        np.testing.assert_array_equal(page.colormap[:, : len(palette)].T, palette)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        levels = [level.asarray() for level in tiff.series[0].levels]
    np.testing.assert_array_equal(levels[0], mask)
    for k, level in enumerate(levels):
        assert level.shape == (max(1, shape[0] >> k), max(1, shape[1] >> k))
        rows = np.minimum(np.arange(level.shape[0]) * 2**k + 2**k // 2, shape[0] - 1)
        columns = np.minimum(np.arange(level.shape[1]) * 2**k + 2**k // 2, shape[1] - 1)
        np.testing.assert_array_equal(level, mask[np.ix_(rows, columns)])
    assert max(levels[-1].shape) <= 512
    assert all(max(level.shape) > 512 for level in levels[:-1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_openslide_shows_size_scale_and_colours(tmp_path: Path, shape: tuple[int, int]) -> None:
    mask = _mask(shape)
    with openslide.OpenSlide(_write(tmp_path / "m.ome.tif", mask, mpp_um=0.503)) as slide:
        assert slide.dimensions == shape[::-1]
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.503, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.503, rel=1e-6)
        shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    np.testing.assert_array_equal(shown[..., :3], np.asarray(PROFILE.palette, np.uint8)[mask])
    assert (shown[..., 3] == 255).all()


def test_ome_xml_holds_scale_and_class_names(tmp_path: Path) -> None:
    name = "Präparat <3> & \x01\udc80"
    with tifffile.TiffFile(_write(tmp_path / "m.ome.tif", _mask((600, 40)), name=name)) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    image = root.find(f"{OME}Image")
    assert image is not None and image.get("Name") == "Präparat <3> & ??"
    pixels = image.find(f"{OME}Pixels")
    assert pixels is not None
    size = [pixels.get(k) for k in ("SizeX", "SizeY", "SizeC", "Type", "SignificantBits")]
    assert size == ["40", "600", "1", "uint8", "3"]
    for axis in "XY":
        assert float(pixels.get(f"PhysicalSize{axis}", "nan")) == 1.25
        assert pixels.get(f"PhysicalSize{axis}Unit") == "µm"
    values = {m.get("K"): m.text for m in root.iter(f"{OME}M")}
    names = [*(c.name for c in PROFILE.classes), "background"]
    assert values == {"profile": "luad"} | {f"label {i}": n for i, n in enumerate(names)}


def test_resolution_of_levels_keeps_the_physical_size(tmp_path: Path) -> None:
    with tifffile.TiffFile(_write(tmp_path / "m.ome.tif", _mask((1027, 2051)))) as tiff:
        for level in tiff.series[0].levels:
            page = level.keyframe
            assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
            assert page.imagewidth / page.resolution[0] == pytest.approx(2051 * 1.25e-4, rel=1e-5)
            assert page.imagelength / page.resolution[1] == pytest.approx(1027 * 1.25e-4, rel=1e-5)


def test_bigtiff_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_tiff, "_CLASSIC_TIFF_PX", 1000)
    mask = _mask((600, 700))
    path = _write(tmp_path / "m.ome.tif", mask)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff and tiff.is_ome
        np.testing.assert_array_equal(tiff.series[0].levels[0].asarray(), mask)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (700, 600)


@pytest.mark.parametrize("band_px", [1, 100, 1024])
def test_any_bands_give_the_same_file(tmp_path: Path, band_px: int) -> None:
    mask = np.full((1300, 1900), PROFILE.num_classes, np.uint8)
    mask[200:900, 700:800] = 2
    mask[1299, 1899] = 1
    whole = _write(tmp_path / "whole.ome.tif", mask).read_bytes()
    with ome_tiff_sink(
        tmp_path / "m.ome.tif", (1900, 1300), profile=PROFILE, mask_mpp_um=1.25, name="s"
    ) as sink:
        for y in range(0, 1300, band_px):
            sink.put(mask[y : y + band_px])
    assert (tmp_path / "m.ome.tif").read_bytes() == whole
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    for k, level in enumerate(levels):
        offset = 2**k // 2
        expected = mask[offset :: 2**k, offset :: 2**k][: 1300 >> k, : 1900 >> k]
        np.testing.assert_array_equal(level, expected)


def test_other_content_has_another_id(tmp_path: Path) -> None:
    mask = _mask((600, 700))
    other = mask.copy()
    other[599, 699] = (other[599, 699] + 1) % PROFILE.num_classes
    path = tmp_path / "m.ome.tif"
    ids = []
    for content, name in ((mask, "s"), (mask, "s"), (other, "s"), (mask, "t")):
        with tifffile.TiffFile(_write(path, content, name=name)) as tiff:
            assert tiff.ome_metadata is not None
            ids += [uuid.UUID(found) for found in re.findall('urn:uuid:([^"]+)', tiff.ome_metadata)]
    assert ids[0] == ids[1]
    assert len(ids) == 4
    assert len(set(ids)) == 3
    assert ids[0].version == 5


def test_leaving_early_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="88 rows of the mask did not come"),
        ome_tiff_sink(
            tmp_path / "m.ome.tif", (40, 600), profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as sink,
    ):
        sink.put(np.zeros((512, 40), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_mask(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "m.raw", np.uint8, "w+", shape=(10240, 10240))
    mapped[::64] = 1
    tracemalloc.start()
    try:
        _write(tmp_path / "m.ome.tif", mapped)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20  # the mask has 100 MiB
