"""Bands: all sinks fed by one loop, counts, rows without tissue."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.writers.bands import Band, LabelCounts, bands_of, feed, tissue_columns
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.ome_tiff import ome_tiff_sink
from sshr_deploy.runtime.writers.overlay import LabelPicker

PROFILE = load_profile("luad")
BACKGROUND = PROFILE.num_classes


def _mask() -> NDArray[np.uint8]:
    mask = np.full((1100, 700), BACKGROUND, np.uint8)
    mask[300:900, 100:500] = 0
    mask[400:500, 200:600] = 2
    return mask


def test_one_loop_feeds_all(tmp_path: Path) -> None:
    mask = _mask()
    size_px = mask.shape[1], mask.shape[0]
    counts, picker = LabelCounts(BACKGROUND), LabelPicker(size_px, (110, 70))
    with (
        ome_tiff_sink(
            tmp_path / "m.ome.tif", size_px, profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as tiff,
        regions_sink(
            tmp_path / "r.geojson",
            MaskScale(size_px, 1.0, (1.0, 1.0)),
            profile=PROFILE,
            outputs=Outputs(),
        ) as regions,
    ):
        feed(bands_of(mask), [tiff, counts, picker], [regions])
        assert not any(path.suffix in (".tif", ".geojson") for path in tmp_path.iterdir())
    assert regions.count == 2
    assert counts.counts.tolist() == np.bincount(mask.ravel(), minlength=5).tolist()
    np.testing.assert_array_equal(picker.labels, mask[5::10, 5::10])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.ome.tif", "r.geojson"]


@pytest.mark.parametrize("error", [KeyError("engine"), KeyboardInterrupt()])
def test_an_error_between_bands_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    rows = _mask()[:512]
    with (
        pytest.raises(type(error)),
        ome_tiff_sink(
            tmp_path / "m.ome.tif", (700, 1100), profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as tiff,
        regions_sink(
            tmp_path / "r.geojson",
            MaskScale((700, 1100), 1.0, (1.0, 1.0)),
            profile=PROFILE,
            outputs=Outputs(),
        ) as regions,
    ):
        feed([Band(rows)], [tiff], [regions])
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk, on Linux")
def test_a_sink_that_cannot_write_names_its_own_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 5, (100, 100)).astype(np.uint8)
    with (
        pytest.raises(OutputError, match=r"cannot write .*r\.geojson: No space left"),
        regions_sink(
            tmp_path / "r.geojson",
            MaskScale((100, 100), 1.0, (1.0, 1.0)),
            profile=PROFILE,
            outputs=Outputs(),
        ) as regions,
        ome_tiff_sink(
            tmp_path / "m.ome.tif", (100, 100), profile=PROFILE, mask_mpp_um=1.0, name="s"
        ) as tiff,
    ):
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, regions._file.fileno())
        os.close(full)
        feed([Band(noise)], [tiff], [regions])


def test_rows_without_tissue_may_be_one_row(tmp_path: Path) -> None:
    mask = _mask()
    blank = np.broadcast_to(np.uint8(BACKGROUND), (2000, 700))
    counts = LabelCounts(BACKGROUND)
    with regions_sink(
        tmp_path / "r.geojson",
        MaskScale((700, 5100), 1.0, (1.0, 1.0)),
        profile=PROFILE,
        outputs=Outputs(),
    ) as regions:
        feed([Band(blank), *bands_of(mask), Band(blank)], [counts], [regions])
    with regions_sink(
        tmp_path / "whole.geojson",
        MaskScale((700, 5100), 1.0, (1.0, 1.0)),
        profile=PROFILE,
        outputs=Outputs(),
    ) as whole:
        whole.put(np.concatenate([blank, mask, blank]))
    assert (tmp_path / "r.geojson").read_bytes() == (tmp_path / "whole.geojson").read_bytes()
    assert counts.counts.sum() == 5100 * 700
    assert counts.counts[0] == np.count_nonzero(mask == 0)


def test_tissue_columns() -> None:
    mask = _mask()
    assert tissue_columns(mask, BACKGROUND) == slice(100, 600)
    assert tissue_columns(mask[:300], BACKGROUND) == slice(0, 0)
    assert tissue_columns(np.broadcast_to(mask[450], (9, 700)), BACKGROUND) == slice(100, 600)
