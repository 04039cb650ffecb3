"""What a recipe freezes, and that its forms and precisions train the same network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sshr_deploy.errors import UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.network import TrainingNetwork
from sshr_deploy.train.recipe import HfrmTraining, Recipe, TrainingPrecision, load_recipe

PAPER, SCRATCH = (
    load_recipe("paper"),
    replace(load_recipe("scratch"), precision=TrainingPrecision.FP32),
)


def _network(recipe: Recipe) -> TrainingNetwork:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=2))
    for name, parameter in model.named_parameters():
        if "gamma_" in name or "context_conv" in name:
            nn.init.normal_(parameter, std=0.3)
    return TrainingNetwork(model, recipe).train()


def _data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8), torch.eye(4, 3)


def _step(network: TrainingNetwork) -> tuple[Tensor, dict[str, Tensor]]:
    rgb, labels = _data()
    torch.manual_seed(2)  # dropout
    logits = network(rgb)
    torch.autograd.backward(total_loss(head_losses(logits, labels)))
    named = network.model.named_parameters()
    return logits.detach(), {k: p.grad for k, p in named if p.grad is not None}


@pytest.mark.parametrize("recipe", [PAPER, SCRATCH], ids=lambda r: r.name)
def test_pooled_and_plain_form_give_the_same_logits_and_gradients(recipe: Recipe) -> None:
    logits, gradients = _step(_network(replace(recipe, hfrm=HfrmTraining.POOLED)))
    expected, plain = _step(_network(replace(recipe, hfrm=HfrmTraining.PLAIN)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == plain.keys()
    for name, gradient in gradients.items():
        error = (gradient - plain[name]).norm() / plain[name].norm()
        assert error < 1e-3, name


def test_the_fused_kernel_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    # Tests of kernels in the same process switch the interpreter on.
    monkeypatch.setattr(
        "sshr_deploy.runtime.kernels.building.interpreter.interpreting", lambda: False
    )
    with pytest.raises(UsageError, match=r'recipe paper .* NVIDIA GPU and Triton; .*"pooled"'):
        _network(replace(PAPER, hfrm=HfrmTraining.FUSED))


def test_bf16_is_near_fp32() -> None:
    logits, gradients = _step(_network(replace(PAPER, precision=TrainingPrecision.BF16)))
    expected, exact = _step(_network(PAPER))
    assert logits.dtype == torch.float32
    error = (logits - expected).norm() / expected.norm()
    assert 1e-7 < error < 0.05
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    name = "b7.conv_branch2b2.weight"
    assert (gradients[name] - exact[name]).norm() / exact[name].norm() < 0.1


def test_the_published_recipe_freezes_stem_and_batch_norms() -> None:
    network = _network(PAPER)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    _, gradients = _step(network)
    assert not any(name.startswith(("conv1a", "b2")) for name in gradients)
    assert not any("bn" in name for name in gradients)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.training
    assert not network.model.bn7.training


def test_scratch_learns_batch_norms_and_stem() -> None:
    network = _network(SCRATCH)
    mean = network.model.bn7.running_mean
    assert mean is not None
    before = mean.clone()
    _, gradients = _step(network)
    assert {"conv1a.weight", "b2.bn_branch2a.weight", "bn7.bias"} <= gradients.keys()
    assert not torch.equal(mean, before)


def test_losses_are_the_soft_margin_of_each_head_and_their_published_sum() -> None:
    torch.manual_seed(0)
    logits, labels = 2 * torch.randn(4, 5, 3).double(), torch.randint(0, 2, (5, 3)).double()
    p = 1 / (1 + (-logits).exp())
    entropy = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean((1, 2))
    losses = head_losses(logits, labels.float())
    torch.testing.assert_close(losses.double(), entropy, rtol=1e-5, atol=0)
    expected = 0.1 * entropy[0] + 0.15 * entropy[1] + 0.25 * entropy[2] + 0.5 * entropy[3]
    assert total_loss(losses).item() == pytest.approx(expected.item(), rel=1e-5)
