from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.plan import plan_tiles, read_tile, survey_slide
from sshr_deploy.runtime.slides.tissue import detect_tissue, thumbnail


def test_the_tiles_of_the_demo_slide(demo_slide: Path) -> None:
    with open_slide(demo_slide) as reader:
        plan = plan_tiles(survey_slide(reader, 1.0))
        picture, mpp_um = thumbnail(reader, plan.mpp)
        tile = next(iter(plan.tissue))
        assert read_tile(reader, plan.mpp, plan.grid, tile).shape == (224, 224, 3)
    assert len(plan.tissue) == 26
    assert plan.grid.rows * plan.grid.columns == 35
    np.testing.assert_array_equal(plan.thumbnail, picture)
    px = sum(tissue.mask().sum() for tissue in plan.tissue.values())
    area_mm2 = detect_tissue(picture, mpp_um).sum() * (mpp_um / 1000) ** 2
    assert px * 1e-6 == pytest.approx(area_mm2, rel=0.005)


def test_every_tile_counts_where_all_are_asked_for_or_colours_are_not_those_of_he(
    demo_slide: Path,
) -> None:
    seen: list[NDArray[np.uint8]] = []

    def concern(rgb: NDArray[np.uint8]) -> str:
        seen.append(rgb)
        return "it is blue"

    with open_slide(demo_slide) as reader:
        everything = plan_tiles(survey_slide(reader, 1.0, tissue=TissueChoice.ALL))
        plan = plan_tiles(survey_slide(reader, 1.0, concern_of=concern))
    assert len(everything.tissue) == len(plan.tissue) == 35
    assert (everything.concern, plan.concern) == (None, "it is blue")
    assert seen[0] is plan.thumbnail
    whole = sum(tissue.mask().sum() for tissue in plan.tissue.values())
    assert whole == plan.grid.width_px * plan.grid.height_px, "nothing past the slide's edge"


def test_a_slide_that_is_too_coarse_is_refused_before_its_thumbnail(
    demo_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.slides.plan.thumbnail", None)
    with open_slide(demo_slide) as reader, pytest.raises(InputError, match="too coarse"):
        survey_slide(reader, 0.1)
