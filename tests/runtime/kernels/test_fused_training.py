"""A training network with `hfrm_pool` against one with PyTorch's operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pydantic")  # recipes; some GPU machines have PyTorch and Triton alone

from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.network import TrainingNetwork, place
from sshr_deploy.train.recipe import HfrmTraining, Recipe, TrainingPrecision, load_recipe
from tests.tolerances import RELATIVE_RMS, relative_rms_error

RECIPE = replace(load_recipe("scratch"), channels_last_on_cuda=True)


def _step(recipe: Recipe, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=1))
    for name, parameter in model.named_parameters():
        if "gamma_" in name or "context_conv" in name:
            nn.init.normal_(parameter, std=0.3)
    network = TrainingNetwork(place(model, recipe, torch.device(device)), recipe).train()
    rgb = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8).to(device)
    torch.manual_seed(1)  # dropout
    logits = network(rgb)
    torch.autograd.backward(total_loss(head_losses(logits, torch.eye(3, device=device))))
    named = network.model.named_parameters()
    return logits.detach(), {k: p.grad for k, p in named if p.grad is not None}


def _compare(precision: TrainingPrecision, device: str) -> tuple[float, dict[str, float]]:
    """Relative RMS errors of the logits and of every gradient."""
    recipe = replace(RECIPE, precision=precision)
    logits, gradients = _step(replace(recipe, hfrm=HfrmTraining.FUSED), device)
    expected, pooled = _step(replace(recipe, hfrm=HfrmTraining.POOLED), device)
    assert gradients.keys() == pooled.keys()
    errors = {name: relative_rms_error(g, pooled[name]) for name, g in gradients.items()}
    return relative_rms_error(logits, expected), errors


@pytest.mark.any_triton
def test_fused_and_pooled_give_the_same_logits_and_gradients(device: str) -> None:
    of_logits, of_gradients = _compare(TrainingPrecision.FP32, device)
    assert of_logits < RELATIVE_RMS[torch.float32]
    assert max(of_gradients.values()) < 1e-4
    assert {
        "hfrm_56.gamma_veto",
        "hfrm_28_2.context_conv.weight",
        "ic1.bias",
    } <= of_gradients.keys()


def test_bf16_features_are_read_as_they_are(device: str) -> None:
    """The pooled form casts them to FP32; both round the gradients of the features to BF16."""
    of_logits, of_gradients = _compare(TrainingPrecision.BF16, device)
    assert of_logits < RELATIVE_RMS[torch.float32]
    for name, error in of_gradients.items():
        if name.startswith(("hfrm", "ic", "fc8")):
            assert error < RELATIVE_RMS[torch.float32], name
    assert of_gradients["bn52.weight"] < 2 * RELATIVE_RMS[torch.bfloat16]
