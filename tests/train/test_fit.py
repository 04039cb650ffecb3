"""The small trainer: its loss, its repeatability, and the scores it reports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sshr_deploy.model import SSHR, Cams, ModelConfig
from sshr_deploy.train.fit import (
    FitSettings,
    evaluate,
    fit,
    head_loss,
    predict_mask,
)
from sshr_deploy.train.textures import GLASS, TexturePatch

TINY = FitSettings(steps=2, width=1, batch=4, patch_px=64, early_patch_px=32, early_share=0.5)


def test_loss_is_the_weighted_soft_margin_of_the_four_heads() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4, 5, 3))
    labels = rng.integers(0, 2, (5, 3))
    p = 1 / (1 + np.exp(-logits))
    entropy = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean((1, 2))
    expected = 0.1 * entropy[0] + 0.15 * entropy[1] + 0.25 * entropy[2] + 0.5 * entropy[3]
    found = head_loss(torch.from_numpy(logits), torch.from_numpy(labels).float())
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_one_seed_trains_the_same_weights_bit_for_bit(bf16: bool) -> None:
    settings = replace(TINY, bf16=bf16)
    first, losses = fit(settings)
    torch.rand(7)
    second, losses_again = fit(settings)
    assert losses == losses_again
    assert np.isfinite(losses).all()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_another_seed_trains_other_weights() -> None:
    first, _ = fit(TINY)
    second, _ = fit(replace(TINY, seed=1))
    assert not torch.equal(first.fc8.weight, second.fc8.weight)


def test_fit_leaves_the_callers_torch_as_it_was() -> None:
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_first_loss_is_that_of_the_untrained_network_and_batch_norms_learn() -> None:
    seen: list[tuple[int, float]] = []
    model, losses = fit(TINY, lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(losses))
    assert not model.training
    tracked = model.bn7.num_batches_tracked
    assert tracked is not None
    assert tracked.item() == TINY.steps
    assert not torch.equal(model.bn7.weight, torch.ones_like(model.bn7.weight))


class _Oracle(SSHR):
    """Answers with CAMs made from a label map and labels, so that the scores are known."""

    def __init__(self, label_map: NDArray[np.uint8], labels: list[int]) -> None:
        super().__init__(ModelConfig(num_classes=GLASS, width=1))
        planes = np.stack([label_map == k for k in range(GLASS)]).astype(np.float32)
        self.planes = torch.from_numpy(planes)[None]
        self.bias = torch.tensor(labels).float()[None, :, None, None] * 20 - 10

    def forward(self, x: Tensor) -> Cams:
        del x
        return Cams(self.planes, self.planes, self.planes, self.planes + self.bias)


def _halves(first_columns: int) -> NDArray[np.uint8]:
    """Glass above, texture 0 on the left, texture 1 on the right, [16, 16]."""
    label_map = np.zeros((16, 16), np.uint8)
    label_map[:, first_columns:] = 1
    label_map[:4] = GLASS
    return label_map


def test_scores_of_a_perfect_and_of_a_half_right_network() -> None:
    label_map = _halves(8)
    rgb = np.zeros((16, 16, 3), np.uint8)
    patch = TexturePatch(rgb, np.array([1, 1, 0, 0], np.uint8), label_map)
    perfect = evaluate(_Oracle(label_map, [1, 1, 0, 0]).eval(), [patch])
    assert (perfect.label_accuracy, perfect.pixel_accuracy, perfect.mean_iou) == (1, 1, 1)
    half = evaluate(_Oracle(_halves(16), [1, 0, 0, 0]).eval(), [patch])
    assert (half.label_accuracy, half.pixel_accuracy, half.mean_iou) == (0.75, 0.5, 0.25)


def test_gated_textures_stay_out_of_the_mask_but_for_the_best() -> None:
    label_map, rgb = _halves(4), np.zeros((16, 16, 3), np.uint8)
    both, _ = predict_mask(_Oracle(label_map, [1, 1, 0, 0]).eval(), rgb)
    assert np.array_equal(both[4:], label_map[4:])
    one, probability = predict_mask(_Oracle(label_map, [1, 0, 0, 0]).eval(), rgb)
    assert probability[1] < 0.2
    assert not one.any()
    best, probability = predict_mask(_Oracle(label_map, [0, 0, 0, 0]).eval(), rgb)
    assert probability.max() < 0.2
    assert np.array_equal(best[4:] == 1, label_map[4:] == 1)
    assert best.dtype == np.uint8
