"""Components of graphs against OpenCV's of images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sshr_deploy.runtime.writers.runs import Runs, connected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [0] * 6),
        ([5, 5, 5, 5], [1, 2, 3, 4], [0, 1, 1, 1, 1, 1]),  # a star whose centre comes last
        ([4, 0, 2, 2], [2, 3, 4, 2], [0, 1, 2, 0, 2, 3]),
    ],
)
def test_components(one: list[int], other: list[int], expected: list[int]) -> None:
    found = connected(6, np.array(one, np.intp), np.array(other, np.intp))
    assert found.tolist() == expected


@pytest.mark.parametrize("tissue", [0.4, 0.6, 0.8])
def test_regions_of_runs_are_those_of_pixels(tissue: float) -> None:
    rng = np.random.default_rng(0)
    strip = np.full((60, 52), 1, np.uint8)
    strip[:, 1:-1] = rng.random((60, 50)) > tissue
    runs = Runs(strip, 1)
    first_row = np.arange(np.count_nonzero(np.diff(strip[0]) == 255))
    regions = runs.regions(first_row)
    number, pixels = cv2.connectedComponents(1 - strip, connectivity=4)
    assert regions.max() + 1 == number - 1
    inside = np.flatnonzero(strip == 0)
    pairs = set(zip(pixels.reshape(-1)[inside], regions[runs.of(inside)], strict=True))
    assert len(pairs) == number - 1


def test_known_regions_of_the_first_row_join_its_runs() -> None:
    strip = np.array([[4, 0, 4, 0, 4, 2, 4], [4, 0, 4, 4, 4, 2, 4]], np.uint8)
    runs = Runs(strip, 4)
    assert runs.labels.tolist() == [0, 0, 2, 0, 2]
    assert runs.regions(np.array([0, 1, 2])).tolist() == [0, 1, 2, 0, 2]
    assert runs.regions(np.array([0, 0, 1])).tolist() == [0, 0, 1, 0, 1]
    assert runs.in_last_row() == slice(3, 5)
