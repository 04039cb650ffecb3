"""Labels of fields against the formula in float64, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.profiles import CamWeights, Profile, SeamlessRule, load_profile
from sshr_deploy.runtime.contract import CamBatch, FieldRule
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_label_map,
    field_rule,
    labels_of,
    stacked_cams,
    to_halves,
)

RULE = FieldRule((0.6, 0.2, 0.2), 0.2)


def cams(seed: int, *shape: int) -> NDArray[np.float16]:
    rng = np.random.default_rng(seed)
    return to_halves(np.maximum(rng.normal(0, 3, (3, *shape)), 0).astype(np.float32))


def test_scales_are_the_percentiles_of_all_that_was_added() -> None:
    first, second = cams(0, 4, 31, 17), cams(1, 4, 8, 90)
    inside = np.random.default_rng(2).random((8, 90)) < 0.4
    found = LevelScales()
    found.add(first)
    found.add(second, inside)
    cells = np.concatenate([first.max(1).reshape(3, -1), second.max(1)[:, inside]], 1)
    for percentile in (50.0, 90.0, 99.0, 99.9, 100.0):
        wanted = np.percentile(cells.astype(np.float64), percentile, 1, method="inverted_cdf")
        np.testing.assert_array_equal(found.scales(percentile), wanted)


@pytest.mark.parametrize("empty", [True, False])
def test_a_level_that_is_nil_everywhere_is_not_divided(empty: bool) -> None:
    scales = LevelScales()
    if not empty:
        scales.add(np.zeros((3, 2, 5, 5), np.float16))
    assert scales.scales(99.0) == (1.0, 1.0, 1.0)


def test_what_half_precision_does_not_hold_becomes_the_largest() -> None:
    assert to_halves(np.array([1e9, 3.0], np.float32)).tolist() == [65504.0, 3.0]


def test_a_negative_zero_is_counted_as_zero() -> None:
    scales = LevelScales()
    scales.add(to_halves(np.full((3, 1, 2, 2), -0.0, np.float32)))
    assert scales.scales(99.0) == (1.0, 1.0, 1.0)


def test_scores_are_the_formula() -> None:
    values, prob = cams(3, 4, 6, 7), np.random.default_rng(4).random((4, 6, 7), np.float32)
    rule = FieldRule((0.5, 0.3, 0.2), 0.4, bias=(0.1, -0.2, 0.0, 0.3))
    scales = (2.0, 4.0, 0.5)
    found = cell_scores(values, prob, scales, rule)
    for n, y, x in np.ndindex(4, 6, 7):
        p = prob[:, y, x]
        score = sum(
            weight * float(level[n, y, x]) / scale
            for weight, level, scale in zip(rule.weights, values, scales, strict=True)
        )
        score = max(score + rule.bias[n], 0.0)
        is_on = p[n] > 0.4 or n == p.argmax()
        assert found[n, y, x] == pytest.approx(score if is_on else 0.0, abs=1e-5)


def test_the_likeliest_class_counts_where_nothing_is_seen() -> None:
    prob = np.zeros((3, 2, 2), np.float32)
    prob[1], prob[2] = 0.05, 0.1
    prob[2, 0, 0], prob[1, 1, 1] = 0.01, 0.3
    scores = cell_scores(np.zeros((3, 3, 2, 2), np.float16), prob, (1, 1, 1), RULE)
    assert scores.argmax(0).tolist() == [[1, 2], [2, 1]]


def test_labels_interpolate_scores_between_the_centres_of_cells() -> None:
    scores = np.random.default_rng(5).random((3, 4, 5), np.float32)
    labels = labels_of(scores)
    rows, columns = (np.clip((np.arange(8 * n) + 0.5) / 8 - 0.5, 0, n - 1) for n in (4, 5))
    exact = np.array(
        [[[_bilinear(level, y, x) for x in columns] for y in rows] for level in scores]
    )
    first, second = np.sort(exact, 0)[-1], np.sort(exact, 0)[-2]
    clear = first - second > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], exact.argmax(0)[clear])


def test_parts_with_a_cell_around_them_join_without_a_seam() -> None:
    scores = np.random.default_rng(6).random((3, 12, 20), np.float32)
    whole = labels_of(scores)
    for left in (0, 8):
        columns = slice(max(left - 1, 0), left + 9)
        part = labels_of(scores[:, :, columns])
        start = 8 * (left - columns.start)
        np.testing.assert_array_equal(
            part[:, start : start + 64], whole[:, 8 * left : 8 * left + 64]
        )


def test_a_field_by_itself_takes_its_own_scales() -> None:
    values = np.maximum(np.random.default_rng(7).normal(0, 3, (3, 1, 4, 6, 6)), 0)
    prob = np.random.default_rng(8).random((1, 4, 6, 6), np.float32)
    first, second, deep = values.astype(np.float32)
    batch = CamBatch(first, second, deep, prob)
    halves, scales = stacked_cams(batch, 0), LevelScales()
    scales.add(halves)
    expected = labels_of(cell_scores(halves, prob[0], scales.scales(99.0), RULE))
    np.testing.assert_array_equal(field_label_map(batch, 0, RULE), expected)


def test_rule_of_a_profile() -> None:
    luad = load_profile("luad")
    assert field_rule(luad) == FieldRule((0.6, 0.2, 0.2), 0.2)
    seamless = SeamlessRule(
        percentile=95,
        gate_threshold=0.3,
        cam_weights=CamWeights(cam_28_1=1, cam_28_2=0, cam_deep=0),
        class_bias=(0.1, 0, 0, -0.1),
    )
    changed = luad.model_copy(update={"seamless": seamless})
    assert field_rule(changed) == FieldRule((1, 0, 0), 0.3, 95, (0.1, 0, 0, -0.1))
    with pytest.raises(ValueError, match="one number for each class"):
        Profile.model_validate({**luad.model_dump(), "seamless": {"class_bias": [0.1]}})


def _bilinear(level: NDArray[np.float32], y: float, x: float) -> float:
    top, left = int(y), int(x)
    bottom, right = min(top + 1, level.shape[0] - 1), min(left + 1, level.shape[1] - 1)
    a, b = y - top, x - left
    above = (1 - b) * float(level[top, left]) + b * float(level[top, right])
    below = (1 - b) * float(level[bottom, left]) + b * float(level[bottom, right])
    return (1 - a) * above + a * below
