"""Parameter groups and the learning-rate schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.train.network import TrainingNetwork
from sshr_deploy.train.optimiser import build_optimiser, rate_factor, set_rate
from sshr_deploy.train.recipe import Optimiser, Recipe, load_recipe


def _model(recipe: Recipe) -> SSHR:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=1))
    TrainingNetwork(model, recipe)
    return model


def test_published_rates_and_decay_of_each_kind_of_parameter() -> None:
    recipe = load_recipe("paper")
    model = _model(recipe)
    found = {
        id(p): (group["lr"], group["weight_decay"], group["momentum"])
        for group in build_optimiser(model, recipe).param_groups
        for p in group["params"]
    }
    weights = {
        "b3.conv_branch2a.weight": (0.01, 5e-4, 5e-4),
        "hfrm_56.gamma_context": (0.1, 5e-4, 5e-4),
        "hfrm_28_2.context_conv.weight": (0.1, 5e-4, 5e-4),
        "fc8.weight": (0.1, 5e-4, 5e-4),
        "ic1.bias": (0.2, 0, 5e-4),
    }
    for name, expected in weights.items():
        assert found[id(model.get_parameter(name))] == pytest.approx(expected), name
    assert len(found) == sum(p.requires_grad for p in model.parameters()) == 57


def test_everything_that_learns_is_in_one_group_once() -> None:
    recipe = replace(load_recipe("scratch"), learning_rate=0.01, bias_factor=2.0)
    model = _model(recipe)
    groups = build_optimiser(model, recipe).param_groups
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    (biases,) = (g for g in groups if any(p is model.bn7.bias for p in g["params"]))
    assert (biases["lr"], biases["weight_decay"]) == (pytest.approx(0.02), 0)


def test_the_rate_falls_as_published() -> None:
    recipe = load_recipe("paper")
    factors = [rate_factor(step, 10, recipe) for step in range(10)]
    assert factors == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])


def test_the_warm_up_rises_to_the_peak_and_joins_the_fall() -> None:
    recipe = replace(load_recipe("paper"), warmup_share=0.1)
    factors = [rate_factor(step, 100, recipe) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == pytest.approx([(1 - step / 100) ** 0.9 for step in range(10, 100)])


@pytest.mark.parametrize("kind", list(Optimiser))
def test_setting_the_rate_twice_does_not_compound(kind: Optimiser) -> None:
    recipe = replace(load_recipe("paper"), optimiser=kind)
    optimiser = build_optimiser(_model(recipe), recipe)
    set_rate(optimiser, 0.5)
    set_rate(optimiser, 0.25)
    assert {round(g["lr"], 10) for g in optimiser.param_groups} == {0.0025, 0.025, 0.05}
