"""The part of a slide that its pictures show."""

from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.runtime.slides.view import Box, box_around


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
