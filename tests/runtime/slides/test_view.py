"""The part of a slide that its pictures show."""

from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.runtime.slides import Mpp, read_area
from sshr_deploy.runtime.slides.plan import SlideSurvey, survey_slide
from sshr_deploy.runtime.slides.view import Box, box_around, plan_view, read_view, thumbnail_view
from tests.runtime.slides.synthetic import ArrayReader, pyramid


def test_the_box_holds_all_tissue_and_some_glass() -> None:
    tissue = np.zeros((400, 1000), np.bool_)
    tissue[100:300, 200:300] = tissue[250, 500] = True
    box = box_around(tissue)
    rows, columns = box.of(1000, 400)
    assert (rows, columns) == (slice(88, 312), slice(188, 513))  # 4 % of 301 px around
    rows, columns = box.of(10_000, 4000)
    assert (rows, columns) == (slice(880, 3120), slice(1880, 5130))


def test_the_box_ends_at_the_slide() -> None:
    tissue = np.zeros((400, 1000), np.bool_)
    tissue[:50, 900:] = True
    assert box_around(tissue).of(1000, 400) == (slice(0, 54), slice(896, 1000))


@pytest.mark.parametrize("tissue", [np.zeros((40, 30), np.bool_), np.ones((40, 30), np.bool_)])
def test_without_glass_to_leave_out_it_is_the_slide(tissue: np.ndarray) -> None:
    assert box_around(tissue) == Box()
    tissue[1:-1] = True  # a crop would leave out less than a tenth
    assert box_around(tissue).is_whole
    assert Box().of(7, 5) == (slice(0, 5), slice(0, 7))


def test_a_speck_is_a_pixel_at_least() -> None:
    tissue = np.zeros((4000, 4000), np.bool_)
    tissue[7, 9] = True
    rows, columns = box_around(tissue).of(3, 3)
    assert rows.stop - rows.start == columns.stop - columns.start == 1


def biopsy() -> tuple[ArrayReader, SlideSurvey]:
    """A slide of 1 x 1.5 mm with tissue in an eighth of it, and its survey."""
    rgb = np.full((3000, 2000, 3), 243, np.uint8)
    noise = np.random.default_rng(0).integers(-40, 40, (750, 1000, 1))
    rgb[1500:2250, 250:1250] = np.array((170, 90, 160)) + noise
    reader = ArrayReader(pyramid(rgb, 3))
    return reader, survey_slide(reader, 1.0)


def test_a_view_is_as_fine_as_the_mask_and_shows_the_tissue() -> None:
    reader, survey = biopsy()
    view = plan_view(reader, survey)
    reader.reads.clear()
    rgb = read_view(reader, survey, view)
    rows, columns = view.box.of(2000, 3000)
    assert (columns.start, rows.start) == pytest.approx((210, 1460), abs=12)
    assert view.mpp_um == 1.0 and {read[0] for read in reader.reads} == {1}
    height, width = rgb.shape[:2]
    assert (width, height) == (view.width_px, view.height_px) == pytest.approx((540, 415), abs=12)
    expected = read_area(
        reader, Mpp(0.5, 0.5, "file"), target_mpp_um=1.0, l0_x=view.box.left * 2000,
        l0_y=view.box.top * 3000, width_px=width, height_px=height,
    )  # fmt: skip
    np.testing.assert_array_equal(rgb, expected)
    enlarged = thumbnail_view(survey, view)
    assert enlarged.shape == rgb.shape
    assert abs(np.subtract(enlarged, rgb, dtype=np.float64)).mean() < 20  # of the same place


def test_a_view_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, survey = biopsy()
    monkeypatch.setattr("sshr_deploy.runtime.slides.view.MAX_VIEW_PX", 400)
    view = plan_view(reader, survey)
    assert view.width_px == read_view(reader, survey, view).shape[1] == 400
    monkeypatch.undo()
    for budget, mpp_um in ((250_000, 1.0), (100_000, 2.0), (1000, 2.0)):
        monkeypatch.setattr("sshr_deploy.runtime.slides.view._MAX_SOURCE_PX", budget)
        reader.reads.clear()
        view = plan_view(reader, survey)
        rgb = read_view(reader, survey, view)
        assert view.mpp_um == mpp_um
        assert sum(read[3] * read[4] for read in reader.reads) <= 250_000
    assert reader.reads == [] and view.of_thumbnail
    np.testing.assert_array_equal(
        rgb, survey.thumbnail[view.box.of(*survey.thumbnail.shape[1::-1])]
    )
    assert view.box == box_around(survey.tissue_map.mask)


def test_a_survey_that_stops_ends_the_view() -> None:
    reader, survey = biopsy()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_view(reader, survey, plan_view(reader, survey), stop)
