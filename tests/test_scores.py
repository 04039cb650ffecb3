from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sshr_deploy.errors import DatasetError
from sshr_deploy.scores import Tally, confusion_matrix, mean_iou_error, scores_from

PUBLISHED = {
    "Pixel Accuracy": "pixel_accuracy",
    "Mean Accuracy": "mean_accuracy",
    "Frequency Weighted IoU": "frequency_weighted_iou",
    "Mean IoU": "mean_iou",
    "Class IoU": "class_iou",
    "Dice Coefficients": "class_dice",
    "Mean Dice": "mean_dice",
}


def test_scores_are_the_published_ones(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "official_scores.npz")
    ours = asdict(scores_from(confusion_matrix(golden["gt"], golden["pred"], 4)))
    official = json.loads(str(golden["scores"]))
    assert set(official) == set(PUBLISHED)
    assert len(ours) == len(PUBLISHED)
    for name, value in official.items():
        expected = [value[str(i)] for i in range(4)] if isinstance(value, dict) else value
        assert ours[PUBLISHED[name]] == pytest.approx(expected, rel=1e-12), name


def test_one_matrix_of_all_images_or_the_sum_of_each(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "official_scores.npz")
    parts = [confusion_matrix(t, p, 4) for t, p in zip(golden["gt"], golden["pred"], strict=True)]
    assert np.array_equal(sum(parts), confusion_matrix(golden["gt"], golden["pred"], 4))


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    classes = draw(st.integers(1, 5))
    label = st.integers(0, classes)
    truth = draw(st.lists(label, max_size=30))
    return classes, truth, draw(st.lists(label, min_size=len(truth), max_size=len(truth)))


@given(label_maps())
def test_scores_agree_with_sets_of_pixels(maps: tuple[int, list[int], list[int]]) -> None:
    classes, truth, prediction = maps
    confusion = confusion_matrix(np.array(truth, np.uint8), np.array(prediction, np.uint8), classes)
    scored = {i for i, t in enumerate(truth) if t < classes}
    true = [{i for i in scored if truth[i] == c} for c in range(classes)]
    found = [{i for i in scored if prediction[i] == c} for c in range(classes + 1)]
    expected = [[len(t & f) for f in found] for t in true]
    assert confusion.tolist() == expected
    if not scored:
        with pytest.raises(DatasetError, match="background only"):
            scores_from(confusion)
        return
    scores = scores_from(confusion)
    pairs = list(zip(true, found, strict=False))
    iou = [len(t & f) / len(t | f) if t | f else None for t, f in pairs]
    dice = [2 * len(t & f) / (len(t) + len(f)) if t | f else None for t, f in pairs]
    assert list(scores.class_iou) == pytest.approx(iou)
    assert list(scores.class_dice) == pytest.approx(dice)
    assert scores.mean_iou == pytest.approx(np.mean([v for v in iou if v is not None]))
    assert scores.mean_dice == pytest.approx(np.mean([v for v in dice if v is not None]))
    recalls = [len(t & f) / len(t) for t, f in pairs if t]
    assert scores.mean_accuracy == pytest.approx(np.mean(recalls))
    right = sum(truth[i] == prediction[i] for i in scored)
    assert scores.pixel_accuracy == pytest.approx(right / len(scored))
    weighted = sum(len(t) * (v or 0) for t, v in zip(true, iou, strict=True)) / len(scored)
    assert scores.frequency_weighted_iou == pytest.approx(weighted)


def test_a_class_only_predicted_scores_zero_and_a_missing_one_nothing() -> None:
    scores = scores_from(confusion_matrix(np.array([0, 0, 3]), np.array([0, 1, 2]), 3))
    assert scores.class_iou == (0.5, 0.0, None), "class 2 is predicted on background only"
    assert scores.mean_iou == 0.25


@pytest.mark.parametrize(
    ("truth", "prediction"), [([4], [0]), ([0], [4]), ([-1], [0]), ([0, 1], [0])]
)
def test_labels_and_shapes_that_do_not_fit_are_refused(
    truth: list[int], prediction: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"not 0 to 3|prediction \(1,\)"):
        confusion_matrix(np.array(truth), np.array(prediction), 3)


def _tally(seed: int) -> Tally:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 4, (2, 9, 9))
    labels = rng.integers(0, 2, 3).tolist()
    prob = rng.random(3, np.float32)
    return Tally.of_image(confusion_matrix(truth, prediction, 3), labels, prob)


def test_tallies_add_up_as_vectors_do() -> None:
    first, second = _tally(1), _tally(2)
    vector = first.to_vector() + second.to_vector()
    assert vector.dtype == np.int64
    summed, read = first + second, Tally.from_vector(vector, 3)
    for tally in (summed, read):
        assert np.array_equal(tally.confusion, first.confusion + second.confusion)
        assert np.array_equal(tally.to_vector(), vector)
        assert tally.images == 2
    assert np.array_equal((Tally.empty(3) + first).to_vector(), first.to_vector())
    with pytest.raises(ValueError, match="5 counts, 3 classes have 17"):
        Tally.from_vector(vector[:5], 3)


def test_label_accuracy_and_exact_match_are_counted_by_hand() -> None:
    nothing = np.zeros((3, 4), np.int64)
    probs = np.array([[0.9, 0.5, 0.1], [0.51, 0.2, 0.7]], np.float32)  # labels 100 and 101
    tally = Tally.of_image(nothing, [1, 0, 0], probs[0]) + Tally.of_image(
        nothing, [1, 1, 0], probs[1]
    )
    assert tally.label_hits.tolist() == [2, 1, 1]
    assert (tally.exact_matches, tally.images) == (1, 2)
    assert tally.label_accuracy == pytest.approx(4 / 6)
    assert tally.exact_match == 0.5
    assert (Tally.empty(3).label_accuracy, Tally.empty(3).exact_match) == (0.0, 0.0)


def test_the_standard_error_of_few_images_is_that_of_leaving_one_out() -> None:
    """For two images it is half of the difference that leaving out either makes."""
    one = np.array([[8, 2, 0], [1, 9, 0]])
    other = np.array([[5, 5, 0], [4, 6, 0]])
    a, b = (scores_from(confusion).mean_iou for confusion in (one, other))
    assert mean_iou_error([one, other]) == pytest.approx(abs(a - b) / 2)
    assert mean_iou_error([one, np.zeros_like(one), other]) == mean_iou_error([one, other])
    assert mean_iou_error([one] * 5) == 0
    assert mean_iou_error([one]) is None


def test_the_standard_error_is_near_the_spread_over_other_samples() -> None:
    rng = np.random.default_rng(5)
    right = rng.uniform(0.3, 0.9, (400, 30))  # of 400 samples of 30 images
    samples = [[_image(share) for share in sample] for sample in right]
    means = [scores_from(np.sum(sample, axis=0)).mean_iou for sample in samples]
    errors = [mean_iou_error(sample) or 0.0 for sample in samples]
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def _image(right: float) -> NDArray[np.int64]:
    """A share of the pixels of two classes found, the others taken for background."""
    first, second = round(100 * right), round(80 * right)
    return np.array([[first, 0, 100 - first], [0, second, 80 - second]])
