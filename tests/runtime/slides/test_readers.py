from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.slides import companions, open_slide
from sshr_deploy.runtime.slides.openslide_reader import OpenSlideReader
from sshr_deploy.runtime.slides.tifffile_reader import TifffileReader
from tests.runtime.slides.synthetic import (
    Rgb,
    pyramid,
    smooth_noise,
    write_ome,
    write_plain,
    write_svs,
)

SMALL_REGION = Path(__file__).parents[3] / "demo" / "data" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="module")
def levels() -> list[Rgb]:
    return pyramid(smooth_noise(801, 603), 3)


def padded(level: Rgb, x: int, y: int, width: int, height: int) -> Rgb:
    pad = 1000
    wide = np.pad(level, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    return wide[y + pad : y + pad + height, x + pad : x + pad + width]


@pytest.mark.parametrize("reader_class", [OpenSlideReader, TifffileReader])
def test_both_readers_give_the_written_pixels(
    reader_class: type[OpenSlideReader | TifffileReader], levels: list[Rgb], tmp_path: Path
) -> None:
    even = pyramid(levels[0][:600, :800], 3)
    path = tmp_path / "x.tif"
    write_plain(path, even)
    boxes = [(0, 0, 50, 40), (121, 77, 150, 130), (-30, -20, 60, 50), (150, 100, 300, 300)]
    with reader_class(path) as reader:
        assert reader.level_sizes_px == ((800, 600), (400, 300), (200, 150))
        assert reader.level_downsamples == (1.0, 2.0, 4.0)
        for index, level in enumerate(even):
            for box in boxes:
                got = reader.read_region(index, *box)
                assert got.dtype == np.uint8
                np.testing.assert_array_equal(got, padded(level, *box))
            outside = reader.read_region(index, 5000, -5000, 7, 9)
            assert outside.shape == (9, 7, 3)
            assert (outside == 255).all()


def test_a_scanners_file_is_read_by_openslide_with_its_pixel_size(
    levels: list[Rgb], tmp_path: Path
) -> None:
    path = tmp_path / "x.svs"
    write_svs(path, levels, mpp_um=0.2527)
    with open_slide(path) as slide:
        assert slide.reader.startswith("openslide ")
        assert slide.reader.endswith("(aperio)")
        assert slide.file_mpp_um == (0.2527, 0.2527)
    write_svs(path, levels, mpp_um=None)
    with open_slide(path) as slide:
        assert slide.file_mpp_um is None


def test_the_cc0_slide_reads_alike_in_both() -> None:
    with OpenSlideReader(SMALL_REGION) as one, TifffileReader(SMALL_REGION) as two:
        assert one.level_sizes_px == two.level_sizes_px == ((2220, 2967),)
        assert one.file_mpp_um == (0.499, 0.499)
        box = (0, 900, 1100, 500, 300)
        np.testing.assert_array_equal(one.read_region(*box), two.read_region(*box))


@pytest.mark.parametrize(
    ("physical", "mpp_um"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.4}, (0.5, 0.4)),
        ({"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.00025,
          "PhysicalSizeYUnit": "mm"}, (0.25, 0.25)),
        ({}, None),
    ],
)  # fmt: skip
def test_an_ome_pyramid_is_read_with_its_levels_and_pixel_size(
    physical: dict[str, Any], mpp_um: tuple[float, float] | None, levels: list[Rgb], tmp_path: Path
) -> None:
    path = tmp_path / "x.ome.tif"
    write_ome(path, levels, physical)
    with open_slide(path) as slide:
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        assert slide.file_mpp_um == (None if mpp_um is None else pytest.approx(mpp_um))
        for index, level in enumerate(levels):
            box = (33, 21, 150, 120)
            np.testing.assert_array_equal(slide.read_region(index, *box), padded(level, *box))


LAYOUTS: dict[str, dict[str, Any]] = {
    "raw": {},
    "raw strips": {"rowsperstrip": 7},
    "big-endian": {"byteorder": ">"},
    "lzw strips": {"rowsperstrip": 16, "compression": "lzw"},
    "deflate predictor": {"compression": "zlib", "predictor": True, "rowsperstrip": 64},
    "one strip": {"compression": "zlib", "rowsperstrip": 10000},
    "tiles": {"tile": (64, 96), "compression": "zlib"},
    "bigtiff": {"bigtiff": True, "tile": (64, 64)},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_flat_files_of_every_layout(name: str, tmp_path: Path) -> None:
    picture = smooth_noise(421, 303)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, picture, photometric="rgb", metadata=None, **LAYOUTS[name])
    with open_slide(path) as slide:
        for box in [(0, 0, 421, 303), (100, 250, 400, 60), (-3, -3, 9, 9)]:
            np.testing.assert_array_equal(slide.read_region(0, *box), padded(picture, *box))


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_planar_grey_and_transparent_files(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    picture = smooth_noise(200, 150)
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (150, 1))
    a = alpha[..., None].astype(np.float64) / 255
    cases: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "planar": (np.moveaxis(picture, 2, 0), {"photometric": "rgb", "planarconfig": "separate"},
                   picture),
        "grey": (picture[..., 0], {"photometric": "minisblack"}, picture[..., :1].repeat(3, 2)),
        "grey inverted": (picture[..., 0], {"photometric": "miniswhite"},
                          255 - picture[..., :1].repeat(3, 2)),
        "straight": (np.dstack([picture, alpha]),
                     {"photometric": "rgb", "extrasamples": ["unassalpha"]},
                     picture * a + 255 * (1 - a)),
        "premultiplied": (np.dstack([np.round(picture * a).astype(np.uint8), alpha]),
                          {"photometric": "rgb", "extrasamples": ["assocalpha"]},
                          picture * a + 255 * (1 - a)),
    }  # fmt: skip
    for name, (stored, options, wanted) in cases.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stored, metadata=None, tile=tile, **options)
        with TifffileReader(path) as slide:
            got = slide.read_region(0, 0, 0, 200, 150)
        assert np.abs(got - np.asarray(wanted, np.float64)).max() <= 1.0, name


def test_jpeg_tiles_of_a_plain_tiff_have_their_colours(tmp_path: Path) -> None:
    flat = np.full((128, 128, 3), (200, 120, 180), np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path, flat, photometric="rgb", metadata=None, tile=(128, 128), compression="jpeg"
    )
    with open_slide(path) as slide:
        got = slide.read_region(0, 0, 0, 128, 128)
    assert np.abs(got.astype(int) - flat).max() <= 3


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp_um"),
    [
        ((20000, 40000), "CENTIMETER", (0.5, 0.25)),
        ((50800, 50800), "INCH", (0.5, 0.5)),
        ((72, 72), "INCH", (25400 / 72, 25400 / 72)),
        ((2, 2), "NONE", None),
    ],
)
def test_resolution_tags(
    resolution: tuple[int, int], unit: str, mpp_um: tuple[float, float] | None, tmp_path: Path
) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(
        path,
        smooth_noise(64, 64),
        photometric="rgb",
        metadata=None,
        resolution=resolution,
        resolutionunit=unit,
    )
    with open_slide(path) as slide:
        assert slide.file_mpp_um == (None if mpp_um is None else pytest.approx(mpp_um))


@pytest.mark.parametrize("kind", ["svs", "ome.tif"])
def test_threads_read_what_one_thread_reads(kind: str, levels: list[Rgb], tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    (write_svs if kind == "svs" else write_ome)(path, levels)
    boxes = [(i % 3, 13 * i % 180, 29 * i % 130, 90, 70) for i in range(60)]
    with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda box: slide.read_region(*box), boxes))
        for got, (level, *box) in zip(together, boxes, strict=True):
            if kind == "ome.tif":  # OpenSlide interpolates: 801 / 400 is not whole
                np.testing.assert_array_equal(got, padded(levels[level], *box))
            np.testing.assert_array_equal(got, slide.read_region(level, *box))


def test_closing_twice_is_fine(levels: list[Rgb], tmp_path: Path) -> None:
    write_svs(tmp_path / "x.svs", levels)
    write_ome(tmp_path / "x.ome.tif", levels)
    for name in ("x.svs", "x.ome.tif"):
        slide = open_slide(tmp_path / name)
        slide.close()
        slide.close()
        with pytest.raises(InputError, match="was closed"):
            slide.read_region(0, 0, 0, 1, 1)


def test_companions(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a.mrxs", "b.mrxs", "c.svs", "tile(0,0).jpg", "other.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "d.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=tile(0,0).jpg\nNo=3\n"
    )
    assert companions(tmp_path / "a.mrxs") == {tmp_path / "a"}
    assert companions(tmp_path / "b.mrxs") == frozenset()
    assert companions(tmp_path / "c.svs") == frozenset()
    assert companions(tmp_path / "d.vms") == {tmp_path / "tile(0,0).jpg"}
