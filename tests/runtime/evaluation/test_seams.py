from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.runtime.evaluation.seams import Seams


def counted_one_by_one(
    mask: NDArray[np.uint8], num_classes: int, rows: list[int], columns: list[int]
) -> Seams:
    """The definition of the counts, a pair at a time."""
    counts = [0, 0, 0, 0]
    for y, x in np.ndindex(mask.shape):
        for below, right in ((1, 0), (0, 1)):
            if y + below == len(mask) or x + right == len(mask[0]):
                continue
            one, other = mask[y, x], mask[y + below, x + right]
            if max(one, other) >= num_classes:
                continue
            at_border = y + 1 in rows if below else x + 1 in columns
            kind = 0 if at_border else 2
            counts[kind] += 1
            counts[kind + 1] += one != other
    return Seams(*counts)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((23, 31), [8, 16], [8, 16, 24]),
        ((16, 9), [8, 16], [0, 9]),
        ((1, 12), [], [5]),
        ((1, 1), [], []),
    ],
)
def test_the_counts_are_those_of_the_definition(
    shape: tuple[int, int], rows: list[int], columns: list[int]
) -> None:
    mask = np.random.default_rng(3).integers(0, 5, shape, np.uint8)  # 3 and 4 are no classes
    found = Seams.of_mask(mask, 3, rows=rows, columns=columns)
    assert found == counted_one_by_one(mask, 3, rows, columns)


def test_tiles_of_one_label_each_are_seams_only_and_stripes_have_none() -> None:
    tiles = np.kron([[0, 1], [1, 0]], np.ones((8, 8), np.uint8)).astype(np.uint8)
    tiles[0, 0] = 1  # one corner pixel, differing from both neighbours
    seams = Seams.of_mask(tiles, 2, rows=[8], columns=[8])
    assert (seams.border_differing, seams.inner_differing) == (seams.border_pairs, 2) == (32, 2)
    assert seams.ratio == pytest.approx(seams.inner_pairs / 2)
    stripes = np.tile(np.arange(16, dtype=np.uint8) % 2, (16, 1))
    assert Seams.of_mask(stripes, 2, rows=[8], columns=[8]).ratio == pytest.approx(
        (16 / 32) / (14 / 28)
    )


@pytest.mark.parametrize(
    "seams",
    [Seams(), Seams(0, 0, 10, 5), Seams(10, 5, 10, 0), Seams.of_mask(
        np.full((9, 9), 3, np.uint8), 3, rows=[3], columns=[3]
    )],
)  # fmt: skip
def test_there_is_no_ratio_where_there_is_nothing_to_divide(seams: Seams) -> None:
    assert seams.ratio is None


def test_maps_add_up() -> None:
    assert Seams(1, 2, 3, 4) + Seams(10, 20, 30, 40) == Seams(11, 22, 33, 44)
