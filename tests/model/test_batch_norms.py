"""Moments of batch norms against hooks on one plain forward pass, and the adaptation formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.model import SSHR, ModelConfig, normalise
from sshr_deploy.model.batch_norms import (
    DEPTHS,
    Moments,
    batch_norms,
    measure,
    moments_as_tensors,
    moments_from_tensors,
    retuned,
    running_statistics,
    set_statistics,
    stage_of,
)

Patches = NDArray[np.uint8]


@pytest.fixture(scope="module")
def patches() -> Patches:
    return np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)


@pytest.fixture
def model() -> SSHR:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=2))
    with torch.no_grad():
        for norm in batch_norms(model).values():
            norm.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.3, 2)  # type: ignore[union-attr]
            norm.weight.uniform_(0.5, 1.5)
    return model.eval()


def entering(model: SSHR, patches: Patches) -> dict[str, Tensor]:
    """Inputs of all norms in one plain forward pass, float64 [B, C, h, w]."""
    caught: dict[str, Tensor] = {}
    for name, norm in batch_norms(model).items():
        norm.register_forward_pre_hook(
            lambda _, inputs, name=name: caught.__setitem__(name, inputs[0].double())
        )
    with torch.no_grad():
        model.features(normalise(patches))
    for norm in batch_norms(model).values():
        norm._forward_pre_hooks.clear()
    return caught


def test_norms_come_in_the_order_in_which_a_forward_pass_reaches_them(
    model: SSHR, patches: Patches
) -> None:
    assert list(batch_norms(model)) == list(entering(model, patches))
    assert len(batch_norms(model)) == 39
    assert [
        stage_of(n) for n in ("b2.bn_branch2a", "b4_5.bn_branch2b1", "bn45", "bn52", "bn7")
    ] == [*("b2", "b4", "b4", "b5", "b7")]
    assert list(dict.fromkeys(map(stage_of, batch_norms(model)))) == list(DEPTHS)
    assert {stage_of(n) for n in batch_norms(model, "b3")} == {"b2", "b3"}


def test_moments_are_those_of_a_plain_forward_pass(model: SSHR, patches: Patches) -> None:
    found, expected = measure(model, patches), entering(model, patches)
    assert list(found) == list(expected)
    for name, values in expected.items():
        x = values.transpose(0, 1).flatten(1)
        torch.testing.assert_close(found[name].mean, x.mean(1), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            found[name].spread, x.std(1, correction=0), rtol=1e-9, atol=1e-12
        )


def test_weights_of_cells_count_as_copies_of_them(model: SSHR, patches: Patches) -> None:
    weights = np.zeros((6, 8, 8), np.float32)
    weights[[0, 4]], weights[2] = 1, 2
    found = measure(model, patches, cell_weights=weights, last="b3")
    expected = measure(model, patches[[0, 2, 2, 4]], last="b3")
    assert list(found) == list(expected)
    for name, pair in expected.items():
        for ours, theirs in zip(found[name], pair, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="weight above 0"):
        measure(model, patches, cell_weights=np.zeros((6, 8, 8), np.float32))


def test_a_cell_s_weight_is_that_of_its_own_8_px(model: SSHR, patches: Patches) -> None:
    weights = np.zeros((6, 8, 8), np.float32)
    weights[3, 1, 5] = 1
    found = measure(model, patches, cell_weights=weights, last="b2")["b2.bn_branch2a"]
    with torch.no_grad():
        layer = model.conv1a(normalise(patches[3:4]))[0, :, 8:16, 40:48].double().flatten(1)
    torch.testing.assert_close(found.mean, layer.mean(1), rtol=1e-5, atol=1e-6)


def test_plain_re_estimation_is_what_training_mode_computes(model: SSHR, patches: Patches) -> None:
    def follow(_: str, norm: nn.BatchNorm2d, now: Moments) -> None:
        mu, variance = running_statistics(norm)
        set_statistics(norm, retuned(norm, now, Moments(mu, variance.sqrt())))

    measure(model, patches, on_norm=follow)
    expected = SSHR(model.config)
    expected.load_state_dict(model.state_dict())
    for module in expected.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        expected.eval()
        for norm in batch_norms(expected).values():
            norm.train()
        expected.features(normalise(patches))
    for name, norm in batch_norms(expected).items():
        ours = batch_norms(model)[name]
        torch.testing.assert_close(ours.running_mean, norm.running_mean, rtol=1e-4, atol=1e-4)
        # its running variance is the unbiased one, ours over epsilon; both small
        torch.testing.assert_close(ours.running_var, norm.running_var, rtol=0.02, atol=1e-3)


def test_outputs_have_the_mean_and_spread_of_training_whatever_the_norm_s_own(
    model: SSHR, patches: Patches
) -> None:
    other = (patches // 3 + 20).astype(np.uint8)
    norm, name = batch_norms(model)["b2.bn_branch2a"], "b2.bn_branch2a"
    training, now = (measure(model, p, last="b2")[name] for p in (patches, other))
    before = norm.eval()(entering(model, patches)[name].float())
    set_statistics(norm, retuned(norm, now, training))
    after = norm.eval()(entering(model, other)[name].float())
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(
            statistic(after, (0, 2, 3)), statistic(before, (0, 2, 3)), rtol=1e-4, atol=1e-5
        )


def test_the_training_set_itself_changes_nothing(model: SSHR, patches: Patches) -> None:
    stored = moments_from_tensors(model, moments_as_tensors(measure(model, patches)))
    assert stored is not None
    before = {name: running_statistics(norm) for name, norm in batch_norms(model).items()}
    measure(
        model,
        patches,
        on_norm=lambda name, norm, now: set_statistics(norm, retuned(norm, now, stored[name])),
    )
    for name, norm in batch_norms(model).items():
        for ours, theirs in zip(running_statistics(norm), before[name], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_strength_goes_from_nothing_to_all_of_it(model: SSHR) -> None:
    norm = batch_norms(model)["bn7"]
    c = norm.num_features
    generator = torch.Generator().manual_seed(1)
    now, training = (
        Moments(*torch.rand(2, c, generator=generator, dtype=torch.float64) + 0.5) for _ in range(2)
    )
    mu, variance = running_statistics(norm)
    none, half, full = (retuned(norm, now, training, strength=s) for s in (0.0, 0.5, 1.0))
    torch.testing.assert_close(none.mean, mu, rtol=0, atol=0)
    torch.testing.assert_close(none.spread.square(), variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(half.mean, (mu + full.mean) / 2)
    torch.testing.assert_close(
        half.spread.square() + norm.eps,
        ((variance + norm.eps) * (full.spread.square() + norm.eps)).sqrt(),
    )


def test_a_channel_that_never_varies_is_not_blown_up(model: SSHR) -> None:
    norm = batch_norms(model)["b2.bn_branch2a"]
    c = norm.num_features
    dead, live = (
        Moments(torch.zeros(c).double(), torch.full((c,), v).double()) for v in (0.0, 1e-3)
    )
    found = retuned(norm, live, dead, min_spread=0.1)
    assert found.spread.isfinite().all()
    torch.testing.assert_close(found.spread, running_statistics(norm)[1].sqrt())


def test_moments_of_another_network_are_refused(model: SSHR, patches: Patches) -> None:
    tensors = moments_as_tensors(measure(model, patches))
    assert moments_from_tensors(model, {}) is None
    tensors["moments/bn7.mean"] = torch.zeros(3)
    with pytest.raises(ValueError, match="moments of bn7 are not"):
        moments_from_tensors(model, tensors)
