"""`cam_to_mask` gives the labels of its specification, to the last bit of the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sshr_deploy.runtime.kernels.cam_to_mask import naive, plan
from sshr_deploy.runtime.kernels.cam_to_mask.op import cam_to_mask
from tests.runtime.kernels.cam_cases import (
    WEIGHTS,
    Case,
    Floats,
    margin,
    naive_scores,
    random_inputs,
)

GOLDEN_FILES = {
    0.2: "official_inference",
    0.5: "official_inference_gate_0.5",
    0.8: "official_inference_gate_0.8",
}
MASK_AGREEMENT = 0.9995
POISON = 255

LARGE = [
    Case(1, 4, (28, 28), (224, 224), 0.5),
    Case(2, 4, (28, 28), (129, 97), 0.0),
    Case(1, 1, (28, 28), (129, 97), 0.99),
    Case(3, 3, (28, 28), (129, 97), 0.3),
    Case(1, 16, (28, 28), (129, 97), 0.7),
    Case(2, 5, (7, 5), (129, 97), 0.99),
]
SMALL = [
    Case(2, 16, (7, 5), (20, 15), 0.5),
    Case(3, 5, (28, 28), (20, 15), 0.5),
    Case(2, 3, (28, 28), (28, 28), 0.99),
    Case(1, 2, (28, 28), (33, 65), 0.0),
    Case(1, 3, (7, 5), (65, 33), 0.5),
    Case(1, 16, (28, 28), (1, 1), 0.0),
    Case(3, 1, (7, 5), (1, 1), 0.5),
    Case(1, 4, (1, 1), (20, 15), 0.0),
    Case(2, 3, (1, 1), (1, 1), 0.5),
    Case(1, 4, (28, 1), (20, 15), 0.0),
    Case(1, 2, (28, 28), (65, 130), 0.99),
]


def _kernel(
    cams: Sequence[Floats | torch.Tensor],
    prob: Floats | torch.Tensor,
    device: str,
    *,
    threshold: float,
    size: tuple[int, int],
    weights: tuple[float, float, float] = WEIGHTS,
) -> NDArray[np.uint8]:
    c28_1, c28_2, deep, p = (torch.as_tensor(array).to(device) for array in (*cams, prob))
    labels = cam_to_mask(
        c28_1,
        c28_2,
        deep,
        p,
        weights=weights,
        threshold=threshold,
        height_px=size[0],
        width_px=size[1],
    )
    assert labels.dtype == torch.uint8
    result: NDArray[np.uint8] = labels.cpu().numpy()
    return result


@pytest.fixture
def wide_tiles(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """On a CPU, few large tiles: the interpreter needs as long for a large one as for a small."""
    if device == "cpu":
        for name in ("RANGES", "MASK"):
            variant = getattr(plan, name)
            wide = dataclasses.replace(
                variant, constants={**variant.constants, "BH": 128, "BW": 512}
            )
            monkeypatch.setattr(plan, name, wide)


@pytest.mark.parametrize("case", LARGE, ids=str)
@pytest.mark.usefixtures("wide_tiles")
def test_labels_are_those_of_the_specification(case: Case, device: str) -> None:
    for seed in range(2):
        _compare(case, seed, device)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_labels_are_those_of_the_specification_with_tiles_as_shipped(
    case: Case, device: str
) -> None:
    _compare(case, 3, device)


def _compare(case: Case, seed: int, device: str) -> None:
    cams, prob = random_inputs(case, seed)
    expected = naive.cam_to_mask(
        cams,
        prob,
        weights=WEIGHTS,
        threshold=case.threshold,
        height_px=case.size[0],
        width_px=case.size[1],
    )
    labels = _kernel(cams, prob, device, threshold=case.threshold, size=case.size)
    assert labels.shape == (case.batch, *case.size)
    assert (labels != expected).sum() == 0


@pytest.mark.usefixtures("wide_tiles")
@pytest.mark.parametrize("size", [(224, 224), (129, 97)])
def test_exact_ties_go_to_the_lowest_class(size: tuple[int, int], device: str) -> None:
    cams, prob = random_inputs(Case(2, 5, (28, 28), size, 0.0), 4)
    for cam in cams:
        cam[:, 3] = cam[:, 1]
    scores = naive_scores(cams, prob, threshold=0.0, size=size)
    labels = _kernel(cams, prob, device, threshold=0.0, size=size)
    tied = margin(scores) == 0
    assert tied.mean() > 0.1
    assert not (scores.argmax(1) == 3).any()
    assert not (labels == 3).any()
    assert (labels[~tied] != scores.argmax(1)[~tied]).sum() == 0
    assert np.array_equal(labels, scores.argmax(1))


@pytest.mark.usefixtures("wide_tiles")
@pytest.mark.parametrize("size", [(224, 224), (223, 309)])
def test_scores_agree_to_the_last_bit(size: tuple[int, int], device: str) -> None:
    """Three classes that are equal but for rounding: any other order of operations shows."""
    levels, _ = random_inputs(Case(1, 1, (28, 28), size, 0.0), 12)
    first, second, third = (level + np.float32(0.3) for level in levels)
    cams = [
        np.concatenate(level, 1)
        for level in (
            (first, first, first * np.float32(3)),
            (second, third, second * np.float32(3)),
            (third, second, third * np.float32(3)),
        )
    ]
    prob = np.full((1, 3), 0.5, np.float32)
    scores = naive_scores(cams, prob, threshold=0.0, size=size)
    assert np.ptp(scores, 1).max() < 1e-6
    expected = scores.argmax(1)
    assert (np.bincount(expected.ravel(), minlength=3) > expected.size // 100).all()
    labels = _kernel(cams, prob, device, threshold=0.0, size=size)
    assert (labels != expected).sum() == 0


@pytest.mark.any_triton
def test_equal_probabilities_keep_the_first_class(device: str) -> None:
    cams, _ = random_inputs(Case(1, 4, (28, 28), (20, 15), 0.0), 5)
    prob = np.array([[0.1, 0.4, 0.2, 0.4]], np.float32)
    labels = _kernel(cams, prob, device, threshold=0.9, size=(20, 15))
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.any_triton
def test_gate_is_above_not_at_the_threshold(device: str) -> None:
    cams, _ = random_inputs(Case(1, 3, (28, 28), (20, 15), 0.0), 6)
    at = float(np.float32(0.3))
    prob = np.array([[0.9, 0.3, np.nextafter(np.float32(0.3), np.float32(1))]], np.float32)
    labels = _kernel(cams, prob, device, threshold=at, size=(20, 15))
    assert set(np.unique(labels)) == {0, 2}


@pytest.mark.usefixtures("wide_tiles")
def test_golden_cams_give_the_authors_masks(golden_dir: Path, device: str) -> None:
    golden = {gate: np.load(golden_dir / f"{name}.npz") for gate, name in GOLDEN_FILES.items()}
    compared = 0
    for i in range(6):
        cams = [golden[0.2][f"{i}/{name}"][None] for name in ("cam_28_1", "cam_28_2", "cam_deep")]
        prob = golden[0.2][f"{i}/prob"][None]
        for threshold, file in golden.items():
            if f"{i}/mask" in file:
                mask = file[f"{i}/mask"]
                labels = _kernel(cams, prob, device, threshold=threshold, size=mask.shape)
                assert (labels[0] == mask).mean() >= MASK_AGREEMENT
                compared += 1
    assert compared == 6 + 6 + 2


@pytest.mark.usefixtures("wide_tiles")
@pytest.mark.parametrize("cam", [(28, 28), (1, 1)])
def test_constant_cams_give_class_0(cam: tuple[int, int], device: str) -> None:
    rng = np.random.default_rng(13)
    levels = [rng.random((1, 5, 1, 1), np.float32) for _ in range(3)]
    cams = [np.broadcast_to(level, (1, 5, *cam)).copy() for level in levels]
    cams[0][:, 3] = 0
    prob = np.arange(5, dtype=np.float32)[None] / np.float32(5)
    assert (naive_scores(cams, prob, threshold=0.0, size=(257, 301)) == 0).all()
    assert not _kernel(cams, prob, device, threshold=0.0, size=(257, 301)).any()


def test_faint_cams_feel_the_epsilon(device: str) -> None:
    cams, prob = random_inputs(Case(1, 3, (28, 28), (33, 65), 0.0), 14)
    for cam in cams:
        cam[:, 1:] *= np.float32(1e-8)
    expected = naive_scores(cams, prob, threshold=0.0, size=(33, 65)).argmax(1)
    assert 0 < (expected == 1).mean() < (expected == 0).mean()
    assert np.array_equal(_kernel(cams, prob, device, threshold=0.0, size=(33, 65)), expected)


@pytest.mark.any_triton
def test_where_all_kept_classes_are_zero_class_0_stands(device: str) -> None:
    cam = np.zeros((1, 3, 28, 28), np.float32)
    cam[0, 2, :14] = 1
    prob = np.array([[0.1, 0.1, 0.9]], np.float32)
    labels = _kernel([cam] * 3, prob, device, threshold=0.5, size=(28, 28))
    assert labels[0].tolist() == [[2] * 28] * 14 + [[0] * 28] * 14


def test_every_label_is_written(device: str) -> None:
    assert (torch.empty((2, 2), dtype=torch.uint8, device=device) == POISON).all()
    cams, prob = random_inputs(Case(3, 4, (28, 28), (9, 67), 0.0), 8)
    labels = _kernel(cams, prob, device, threshold=0.0, size=(9, 67))
    assert labels.max() < 4


@pytest.mark.any_triton
def test_non_contiguous_inputs_are_read_right(device: str) -> None:
    cams, prob = random_inputs(Case(2, 4, (28, 28), (20, 15), 0.0), 9)
    expected = naive_scores(cams, prob, threshold=0.5, size=(20, 15)).argmax(1)
    turned = [torch.from_numpy(cam).to(device).mT.contiguous().mT for cam in cams]
    every_other = torch.from_numpy(np.repeat(prob, 2, 1)).to(device)[:, ::2]
    assert not turned[0].is_contiguous() and not every_other.is_contiguous()
    labels = _kernel(turned, every_other, device, threshold=0.5, size=(20, 15))
    assert np.array_equal(labels, expected)


def test_whole_numbers_are_weights_and_thresholds_too(device: str) -> None:
    cams, prob = random_inputs(Case(1, 3, (28, 28), (20, 15), 0.0), 10)
    labels = _kernel(cams, prob, device, threshold=0, size=(20, 15), weights=(1, 0, 2))
    expected = naive.cam_to_mask(
        cams, prob, weights=(1, 0, 2), threshold=0, height_px=20, width_px=15
    )
    assert np.array_equal(labels, expected)


def test_inputs_are_not_changed(device: str) -> None:
    cams, prob = random_inputs(Case(1, 3, (28, 28), (20, 15), 0.0), 11)
    tensors = [torch.from_numpy(array.copy()).to(device) for array in (*cams, prob)]
    _kernel(tensors[:3], tensors[3], device, threshold=0.5, size=(20, 15))
    for tensor, before in zip(tensors, (*cams, prob), strict=True):
        assert np.array_equal(tensor.cpu().numpy(), before)
