from __future__ import annotations

import pickle

import numpy as np
import pytest

from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.slides import Mpp
from sshr_deploy.runtime.slides.grid import TileGrid, TileTissue
from sshr_deploy.runtime.slides.tissue_map import TissueMap


def test_grid_covers_the_slide_at_the_target_pixel_size() -> None:
    grid = TileGrid.of_slide((2220, 2967), Mpp(0.499, 0.499, "file"), 1.0)
    assert (grid.width_px, grid.height_px) == (round(2220 * 0.499), round(2967 * 0.499))
    assert (grid.columns, grid.rows) == (5, 7)
    tiles = list(grid.tiles())
    assert len(tiles) == 35
    last = tiles[-1]
    assert (last.t_row, last.t_column) == (6, 4)
    assert last.l0_x == pytest.approx(4 * 224 / 0.499)
    assert last.l0_y == pytest.approx(6 * 224 / 0.499)


def test_pixels_that_are_not_square_have_two_scales() -> None:
    grid = TileGrid.of_slide((1000, 1000), Mpp(0.5, 0.25, "file"), 1.0)
    assert grid.l0_px_per_px == (2.0, 4.0)
    assert (grid.width_px, grid.height_px) == (500, 250)


def test_a_tiny_slide_is_one_tile() -> None:
    grid = TileGrid.of_slide((1, 1), Mpp(0.25, 0.25, "file"), 1.0)
    assert (grid.width_px, grid.height_px, grid.rows, grid.columns) == (1, 1, 1, 1)


def test_only_tiles_with_tissue_are_kept_and_their_edges_are_cut() -> None:
    grid = TileGrid.of_slide((500, 300), Mpp(1.0, 1.0, "file"), 1.0)
    mask = np.zeros((30, 50), bool)
    mask[25:, 40:] = True  # 10 px a mask pixel: x >= 400, y >= 250
    tissue = TissueMap(mask, (10.0, 10.0), 10.0)
    (tile,) = [t for t in grid.tissue_by_tile(tissue) if (t.t_row, t.t_column) == (1, 1)]
    inside = grid.tissue_in(tile, tissue)
    assert inside.shape == (224, 224)
    assert inside[60, 200]
    assert not inside[300 - 224 :].any()
    assert all((t.t_row, t.t_column) != (0, 0) for t in grid.tissue_by_tile(tissue))


def test_the_quick_look_misses_no_tile() -> None:
    rng = np.random.default_rng(0)
    grid = TileGrid.of_slide((4000, 3000), Mpp(0.45, 0.5, "file"), 1.0)
    for _ in range(5):
        mask = np.zeros((300, 400), bool)
        for y, x in rng.integers(0, 300, (4, 2)):
            mask[y : y + 3, x : x + 3] = True
        tissue = TissueMap(mask, (10.0, 10.0), 4.5)
        slow = [t for t in grid.tiles() if grid.tissue_in(t, tissue).any()]
        assert list(grid.tissue_by_tile(tissue)) == slow
        assert 0 < len(slow) < grid.rows * grid.columns


@pytest.mark.parametrize("shape", [(300, 400), (280, 390)])  # the second ends before the slide
def test_what_is_kept_of_a_tile_is_its_tissue(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    grid = TileGrid.of_slide((4000, 3000), Mpp(0.45, 0.5, "file"), 1.0)
    for share in (0.0, 0.0005, 0.003):
        tissue = TissueMap(rng.random(shape) >= share, (10.0, 10.0), 4.5)
        kept = grid.tissue_by_tile(tissue)
        for tile in grid.tiles():
            mask = kept[tile].mask() if tile in kept else np.zeros((PATCH_PX, PATCH_PX), bool)
            np.testing.assert_array_equal(mask, grid.tissue_in(tile, tissue))


def test_tissue_of_many_tiles_is_small() -> None:
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX]
    edge = pickle.dumps(TileTissue.of(x + 20 * np.sin(y / 9) > 100))
    assert len(edge) < 1500, "a bit a pixel is 6,272 bytes"
    assert len(pickle.dumps(TileTissue.of(np.ones((PATCH_PX, PATCH_PX), bool)))) < 200
