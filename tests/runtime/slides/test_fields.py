"""Where fields are laid: all tissue is covered, nothing without tissue is read, few are needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.geometry import BLOCK_PX, Geometry
from sshr_deploy.runtime.slides import Mpp, open_slide
from sshr_deploy.runtime.slides.fields import (
    Field,
    core_sides,
    place_fields,
    plain_fields,
    tissue_blocks,
)
from sshr_deploy.runtime.slides.grid import TileGrid
from sshr_deploy.runtime.slides.plan import plan_fields, read_field, survey_slide
from sshr_deploy.runtime.slides.tissue_map import TissueMap
from tests.runtime.slides.synthetic import ArrayReader, smooth_noise


def pieces_of_tissue(rows: int, columns: int, seed: int, pieces: int = 4) -> NDArray[np.bool_]:
    """Round pieces at random places, as sections lie on a slide."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((rows, columns), np.uint8)
    for _ in range(pieces):
        centre = int(rng.integers(columns)), int(rng.integers(rows))
        axes = int(rng.integers(2, columns // 4)), int(rng.integers(2, rows // 4))
        cv2.ellipse(drawn, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
    return drawn > 0


def work(fields: list[Field]) -> int:
    """Blocks computed, with margins of one."""
    return sum((field.rows + 2) * (field.columns + 2) for field in fields)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sides", [[1], [4], [9], [2, 4, 6, 8, 10]])
def test_all_tissue_is_covered_and_no_core_is_without(seed: int, sides: list[int]) -> None:
    tissue = pieces_of_tissue(40, 57, seed)
    fields = place_fields(tissue, sides)
    covered = np.zeros_like(tissue)
    for field in fields:
        assert 0 <= field.row <= 40 - field.rows
        assert 0 <= field.column <= 57 - field.columns
        assert {field.rows, field.columns} <= set(sides)
        assert tissue[field.core].any()
        covered[field.core] = True
    assert covered[tissue].all()
    assert work(fields) <= work(plain_fields(tissue, sides[-1]))
    assert fields == sorted(set(fields))


@pytest.mark.parametrize("seed", range(4))
def test_trimmed_fields_are_less_work(seed: int) -> None:
    tissue = pieces_of_tissue(60, 90, seed)
    trimmed, whole = place_fields(tissue, [6, 8, 10, 12, 14]), place_fields(tissue, [14])
    assert work(trimmed) < 0.95 * work(whole)


def test_sides_of_cores_are_those_that_the_graph_takes() -> None:
    geometry = Geometry(896, 56, 56, 14)
    assert core_sides(geometry, any_side=False) == [14]
    assert core_sides(geometry, any_side=True) == [6, 8, 10, 12, 14]
    assert all(geometry.fits(56 * (side + 2)) for side in (6, 8, 14))


def test_shifted_fields_are_fewer_than_a_plain_grid() -> None:
    slides = [pieces_of_tissue(120, 90, seed, pieces=6) for seed in range(5)]
    plain = sum(len(plain_fields(slide, 14)) for slide in slides)
    assert sum(len(place_fields(slide, [14])) for slide in slides) < 0.9 * plain


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (20, 3)])
def test_a_slide_smaller_than_a_core_has_fields_at_its_corner(size: tuple[int, int]) -> None:
    fields = place_fields(np.ones(size, np.bool_), [5])
    assert all(min(field) >= 0 for field in fields)
    assert len(fields) == -(-max(size) // 5)
    assert place_fields(np.zeros(size, np.bool_), [5]) == []


@pytest.mark.parametrize("mpp_um", [0.5, 0.87, 4.0])
def test_blocks_with_tissue_are_found_as_pixel_by_pixel(mpp_um: float) -> None:
    """`mpp_um` of the thumbnail, of a slide of 0.5 x 0.47 um whose mask ends within a block."""
    mpp = Mpp(0.5, 0.47, "file")
    grid = TileGrid.of_slide((1750, 1333), mpp, 1.0)
    scale = mpp_um / mpp.x_um, mpp_um / mpp.y_um
    shape = (round(1333 / scale[1]), round(1750 / scale[0]))
    mask = pieces_of_tissue(*shape, seed=3)
    mask[-2:, shape[1] // 2 :] = True
    mask[0, 0] = True
    tissue = TissueMap(mask, scale, mpp_um)
    x_scale, y_scale = grid.l0_px_per_px
    whole = tissue.window(
        0, 0, grid.width_px * x_scale, grid.height_px * y_scale, grid.width_px, grid.height_px
    )
    rows, columns = (-(-side // BLOCK_PX) for side in whole.shape)
    expected = [
        [
            whole[r * BLOCK_PX : (r + 1) * BLOCK_PX, c * BLOCK_PX : (c + 1) * BLOCK_PX].any()
            for c in range(columns)
        ]
        for r in range(rows)
    ]
    assert np.array_equal(tissue_blocks(grid, tissue), expected)


def test_a_field_is_read_with_its_margins_and_white_around_the_slide() -> None:
    picture = smooth_noise(700, 600)
    with ArrayReader([picture], (1.0, 1.0)) as reader:
        plan = plan_fields(survey_slide(reader, 1.0), Geometry(448, 56))
        inner = read_field(reader, plan, Field(3, 2, 6, 6))
        assert np.array_equal(inner, picture[112 : 112 + 448, 56 : 56 + 448])
        flat = read_field(reader, plan, Field(4, 1, 2, 4))
        assert flat.shape == (224, 336, 3)
        assert np.array_equal(flat, picture[168 : 168 + 224, 0:336])
        assert (read_field(reader, plan, Field(9, 1, 6, 6))[252:] == 255).all()
        corner = read_field(reader, plan, Field(0, 0, 6, 6))
    assert (corner[:56] == 255).all()
    assert (corner[:, :56] == 255).all()
    assert np.array_equal(corner[56:, 56:], picture[:392, :392])


def test_fields_of_the_demo_slide_hold_more_tissue_than_a_plain_grid(demo_slide: Path) -> None:
    geometry = Geometry(448, 56)
    with open_slide(demo_slide) as reader:
        plan = plan_fields(survey_slide(reader, 1.0), geometry)
    plain = plain_fields(plan.blocks, geometry.core_px // BLOCK_PX)
    assert 0 < len(plan.fields) <= len(plain)
