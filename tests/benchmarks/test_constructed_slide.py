from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sshr_deploy.benchmarks.constructed_slide import CELL_PX, build_slide, disc
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.slides import open_slide

SIDE_PX = 3 * CELL_PX - 160


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    path = tmp_path_factory.mktemp("slides") / "constructed.svs"
    built = build_slide(demo_slide, path, side_px=SIDE_PX, tissue_share=0.5)
    assert built == (SIDE_PX, 4)
    return path


def test_tissue_is_the_demo_slide_s_and_the_rest_is_glass(slide: Path, demo_slide: Path) -> None:
    with open_slide(demo_slide) as source:
        real = source.read_region(0, 3 * 240, 4 * 240, CELL_PX, 2 * CELL_PX)
    with open_slide(slide) as reader:
        assert reader.file_mpp_um == (0.499, 0.499)
        for row in (0, 1):
            found = reader.read_region(0, CELL_PX, row * CELL_PX, CELL_PX, CELL_PX)
            first = row % 2 * CELL_PX
            assert np.array_equal(found, real[first : first + CELL_PX])
        assert np.abs(reader.read_region(0, 0, 0, CELL_PX, CELL_PX).astype(int) - 243).max() <= 1


def test_all_levels_show_the_same(slide: Path) -> None:
    with open_slide(slide) as reader:
        assert reader.level_sizes_px == tuple((SIDE_PX // f,) * 2 for f in (1, 4, 16))
        smallest = reader.read_region(2, 0, 0, *reader.level_sizes_px[2]).astype(int)
        for level in (0, 1):
            picture = reader.read_region(level, 0, 0, *reader.level_sizes_px[level])
            small = cv2.resize(picture, smallest.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(small.astype(int) - smallest).mean() < 4
    assert slide.stat().st_size < 2e6, "tiles are stored once"


def test_a_disc_takes_its_share() -> None:
    for share in (0, 0.3, 0.75):
        assert disc(40, share).mean() == pytest.approx(share, abs=1e-3)
    assert np.argwhere(disc(5, 0.04)).tolist() == [[2, 2]]


@pytest.mark.parametrize(("side_px", "share", "words"), [(900, 0.4, "960"), (9000, 0.9, "0.75")])
def test_what_cannot_be_built_is_refused(
    tmp_path: Path, demo_slide: Path, side_px: int, share: float, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        build_slide(demo_slide, tmp_path / "x.svs", side_px=side_px, tissue_share=share)
