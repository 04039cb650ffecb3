from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sshr_deploy.errors import CheckpointError, UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.batch_norms import (
    batch_norms,
    measure,
    moments_as_tensors,
    set_statistics,
    stage_of,
)
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.train.adaptation.tuning import (
    Balance,
    Tuning,
    adapt_network,
    balancing_weights,
    own_statistics,
    predicted_cells,
    shares_of,
    training_moments,
)

Patches = NDArray[np.uint8]


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("wsss4luad")


@pytest.fixture(scope="module")
def patches() -> Patches:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def model(patches: Patches) -> SSHR:
    """Random weights, with the statistics of `patches`."""
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=2)).eval()
    measure(model, patches, on_norm=lambda _, norm, now: set_statistics(norm, now))
    return model


def changed_stages(model: SSHR, adapted: SSHR) -> set[str]:
    norms, others = batch_norms(model), batch_norms(adapted)
    return {
        stage_of(name)
        for name, norm in norms.items()
        if not torch.equal(norm.running_var, others[name].running_var)  # type: ignore[arg-type]
    }


def test_only_norms_down_to_the_depth_change_and_nothing_else(
    model: SSHR, profile: Profile, patches: Patches
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = adapt_network(
        model,
        profile,
        patches // 2,
        own_statistics(model),
        None,
        Tuning(depth="b4", balance=Balance.SLIDES),
    )
    assert changed_stages(model, adapted) == {"b2", "b3", "b4"}
    for name, value in adapted.state_dict().items():
        if "running" not in name:
            assert torch.equal(value, before[name])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_training_set_itself_changes_nothing(
    model: SSHR, profile: Profile, patches: Patches
) -> None:
    training = measure(model, patches)
    shares = shares_of(predicted_cells(model, profile, patches).labels, 3)
    for balance in Balance:
        adapted = adapt_network(
            model, profile, patches, training, shares, Tuning("b7", balance, 1.0, min_spread=0.0)
        )
        for name, value in adapted.state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-6, atol=1e-6)


def test_strength_0_changes_no_bit(model: SSHR, profile: Profile, patches: Patches) -> None:
    adapted = adapt_network(
        model, profile, patches // 2, own_statistics(model), None, Tuning("b7", strength=0)
    )
    for name, value in adapted.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_a_change_of_the_pixels_is_undone(model: SSHR, profile: Profile, patches: Patches) -> None:
    """A linear change of the normalised pixels is one that batch norms can undo, but at borders."""
    changed = (patches // 2 + 64).astype(np.uint8)
    before = predicted_cells(model, profile, patches).prob
    adapted = adapt_network(
        model,
        profile,
        changed,
        own_statistics(model),
        None,
        Tuning("b7", Balance.SLIDES, strength=1, min_spread=0.0),
    )
    left = np.abs(predicted_cells(adapted, profile, changed).prob - before).max()
    unadapted = np.abs(predicted_cells(model, profile, changed).prob - before).max()
    assert left < 0.2 * unadapted


def test_cells_are_those_of_the_label_maps_that_evaluation_makes(
    model: SSHR, profile: Profile, patches: Patches
) -> None:
    from sshr_deploy.runtime.pipeline.images import predict_images
    from sshr_deploy.runtime.settings import LargeImages
    from sshr_deploy.train.model_session import ModelSession

    found = predicted_cells(model, profile, patches)
    predictions = predict_images(
        enumerate(patches), ModelSession(model), profile, LargeImages.TILES, 2
    )
    for index, prediction in predictions:
        np.testing.assert_array_equal(found.labels[index], prediction.mask[4::8, 4::8])
        np.testing.assert_allclose(found.prob[index], prediction.prob, rtol=1e-5)


def test_weights_bring_classes_to_their_shares() -> None:
    labels = np.array([[[0, 0, 0, 1]], [[0, 0, 0, 1]]], np.uint8)
    wanted = (0.5, 0.5, 0.0)
    weights = balancing_weights(labels, wanted)
    shares = [weights[labels == label].sum() / weights.sum() for label in range(3)]
    np.testing.assert_allclose(shares, wanted, atol=1e-7)
    assert shares_of(labels, 3) == (0.75, 0.25, 0.0)
    rare = np.zeros((1, 1, 100), np.uint8)
    rare[0, 0, 0] = 1
    assert balancing_weights(rare, (0.5, 0.5)).max() == 5


def test_moments_come_from_the_checkpoint_or_from_norms_that_learned(
    model: SSHR, patches: Patches, tmp_path: Path
) -> None:
    stored, learned, frozen = (tmp_path / f"{n}.safetensors" for n in ("stored", "learn", "frozen"))
    moments = measure(model, patches // 3)
    save_checkpoint(model, stored, aside=moments_as_tensors(moments))
    assert load_checkpoint(stored).config == model.config
    for name, pair in training_moments(stored, model).items():
        assert torch.equal(pair.mean, moments[name].mean)
    recipe = {"batch_norm": "learn"}
    save_checkpoint(model, learned, metadata={"recipe": json.dumps(recipe)})
    for name, pair in training_moments(learned, model).items():
        assert torch.equal(pair.mean, own_statistics(model)[name].mean)
    save_checkpoint(model, frozen, metadata={"recipe": json.dumps({"batch_norm": "frozen"})})
    with pytest.raises(CheckpointError, match=r"does not say .*; give the folder .* `training`"):
        training_moments(frozen, model)
    save_checkpoint(model, frozen, metadata={"recipe": "{"})
    with pytest.raises(CheckpointError, match="does not say"):
        training_moments(frozen, model)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": "b9"}, "`depth` 'b9' is no stage; choose b2, b3"),
        ({"strength": 1.5}, "`strength` is 1.5; give a number from 0 to 1"),
        ({"min_spread": -1}, "`min_spread` is -1"),
        ({"strength": float("nan")}, "`strength` is nan"),
    ],
)
def test_impossible_tunings_are_refused(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Tuning(**fields)  # type: ignore[arg-type]
