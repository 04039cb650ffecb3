"""Optimiser and learning-rate schedule of a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from sshr_deploy.model import SSHR
from sshr_deploy.train.recipe import Optimiser, Recipe

_NEW_LAYERS = ("hfrm_56", "hfrm_28_1", "hfrm_28_2", "ic_56", "ic1", "ic2", "fc8")


def build_optimiser(model: SSHR, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over every parameter of `model` that learns.

    Four groups, as published: weights and biases (rate times `bias_factor`, no decay) of the
    backbone and of the new layers, which are HFRM and the heads (rate times `new_layer_factor`).
    Each group has its full rate under "peak_lr".
    """
    groups = [_group(model, recipe, new=new, bias=bias) for new in (False, True) for bias in (0, 1)]
    groups = [group for group in groups if group["params"]]
    rate = recipe.learning_rate
    if recipe.optimiser is Optimiser.ADAMW:
        return AdamW(groups, lr=rate, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum)


def _group(model: SSHR, recipe: Recipe, *, new: bool, bias: int) -> dict[str, Any]:
    rate = recipe.learning_rate
    rate *= recipe.new_layer_factor if new else 1
    rate *= recipe.bias_factor if bias else 1
    named = [
        (name, p)
        for name, p in model.named_parameters()
        if p.requires_grad
        and (name.partition(".")[0] in _NEW_LAYERS) == new
        and name.endswith(".bias") == bool(bias)
    ]
    decay = 0.0 if bias else recipe.weight_decay
    return {"params": named, "lr": rate, "peak_lr": rate, "weight_decay": decay}


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of step `step` (from 0) of `steps` over its peak.

    The published schedule is (1 - step / steps) ** 0.9; a warm-up rises linearly before it.
    """
    warmup = round(recipe.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return float((1 - step / steps) ** recipe.poly_power)


def set_rate(optimiser: Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group["peak_lr"]
