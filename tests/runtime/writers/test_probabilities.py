"""The file of probabilities as tifffile and GDAL read it."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.writers import probabilities
from sshr_deploy.runtime.writers.bands import BAND_PX
from sshr_deploy.runtime.writers.probabilities import probability_sink

PROFILE = load_profile("luad")
ONE_CLASS = PROFILE.model_copy(update={"classes": PROFILE.classes[:1]})
SHAPES = [(1, 1), (9, 1024), (1500, 2100), (5000, 300)]
"""Of the mask, in pixels."""


def _prob(shape: tuple[int, int], profile: Profile = PROFILE) -> NDArray[np.float16]:
    """[N, height, width] cells, with a gap where the network saw nothing."""
    cells = tuple(-(-side // 8) for side in shape)
    rng = np.random.default_rng(0)
    prob = (rng.random((profile.num_classes, *cells)) * 0.9 + 0.05).astype(np.float16)
    prob[:, cells[0] // 3 : cells[0] // 2] = 0
    prob[:, :, : cells[1] // 5] = 0
    return prob


def _write(
    path: Path,
    shape: tuple[int, int],
    prob: NDArray[np.float16],
    profile: Profile = PROFILE,
    band_px: int = BAND_PX,
) -> Path:
    with probability_sink(path, shape[::-1], profile=profile, mask_mpp_um=0.5, name="s") as sink:
        for y in range(0, shape[0], band_px):
            rows = np.zeros((min(band_px, shape[0] - y), shape[1]), np.uint8)
            cells = prob[:, y // 8 : (y + band_px) // 8]
            sink.put(rows, cells if cells.any() else None)
    return path


def _levels(path: Path, classes: int) -> list[NDArray[np.float16]]:
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series) == len(tiff.pages) == 1
        levels = [level.asarray() for level in tiff.series[0].levels]
    return [level.reshape(classes, *level.shape[-2:]) for level in levels]


@pytest.mark.parametrize("profile", [PROFILE, ONE_CLASS], ids=["four", "one"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tifffile_and_gdal_read_what_was_given(
    tmp_path: Path, shape: tuple[int, int], profile: Profile
) -> None:
    prob = _prob(shape, profile)
    path = _write(tmp_path / "p.tif", shape, prob, profile)
    levels = _levels(path, profile.num_classes)
    np.testing.assert_array_equal(levels[0], prob)
    assert levels[0].dtype == np.float16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(), prob)
            tags = dataset.tags()
    assert json.loads(tags["TIFFTAG_IMAGEDESCRIPTION"]) == {
        "name": "s",
        "profile": "luad",
        "classes": [{"name": c.name, "color": c.color} for c in profile.classes],
        "pixel_um": 4.0,
        "mask_px_per_pixel": 8,
    }
    assert float(tags["TIFFTAG_XRESOLUTION"]) == float(tags["TIFFTAG_YRESOLUTION"]) == 2500
    assert tags["TIFFTAG_RESOLUTIONUNIT"].startswith("3")  # cm


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_level_has_the_means_of_what_was_seen(tmp_path: Path, shape: tuple[int, int]) -> None:
    levels = _levels(_write(tmp_path / "p.tif", shape, _prob(shape)), 4)
    for larger, level in pairwise(levels):
        assert level.shape[1:] == tuple(-(-side // 2) for side in larger.shape[1:])
        seen = np.where(larger.any(axis=0), larger.astype(np.float64), np.nan)
        for row, column in np.random.default_rng(1).integers(0, level.shape[1:], (50, 2)):
            block = seen[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            block = block.reshape(4, -1)[:, ~np.isnan(block[0]).ravel()]
            expected = block.mean(axis=1) if block.size else 0
            np.testing.assert_allclose(level[:, row, column], expected, atol=5e-4)
    assert max(levels[-1].shape[1:]) <= 128


def test_any_bands_give_the_same_file(tmp_path: Path) -> None:
    shape, prob = (1500, 2100), _prob((1500, 2100))
    whole = _write(tmp_path / "whole.tif", shape, prob).read_bytes()
    for band_px in (8, 136, 2048):
        path = _write(tmp_path / "p.tif", shape, prob, band_px=band_px)
        assert path.read_bytes() == whole


def test_bigtiff_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probabilities, "_CLASSIC_TIFF_BYTES", 1000)
    path = _write(tmp_path / "p.tif", (600, 700), _prob((600, 700)))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        np.testing.assert_array_equal(tiff.asarray(), _prob((600, 700)))


def test_leaving_early_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="11 rows of cells did not come"),
        probability_sink(
            tmp_path / "p.tif", (40, 600), profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as sink,
    ):
        sink.put(np.zeros((512, 40), np.uint8), None)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    cells = np.full((4, 64, 500), 0.5, np.float16)
    rows = np.broadcast_to(np.uint8(0), (512, 4000))
    tracemalloc.start()
    try:
        with probability_sink(
            tmp_path / "p.tif", (4000, 20480), profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as sink:
            for _ in range(40):
                sink.put(rows, cells)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20  # the probabilities have 10 MiB
