"""What `training` compares: the network and its step as each recipe has them, on random patches."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from sshr_deploy.errors import SshrDeployError
from sshr_deploy.model import HFRM, SSHR, ModelConfig, normalise
from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.train.initial_weights import new_model
from sshr_deploy.train.loading import Batch
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.meter import EpochMeter
from sshr_deploy.train.network import TrainingNetwork, build_forward
from sshr_deploy.train.optimiser import build_optimiser, set_rate
from sshr_deploy.train.processes import Processes
from sshr_deploy.train.recipe import HfrmTraining, Recipe, TrainingPrecision, load_recipe
from sshr_deploy.train.trainer import Trainer

BOUNDS = {
    "pooled": {"logits": 1e-4, "gradients": 1e-4, "worst_gradient": 1e-3},
    "fast": {"logits": 5e-2},
}
"""Largest relative errors against "published".

Measured on a CPU, widths 1 to 64: pooled 3e-7, 6e-7, 3e-5; fast 9e-3. The worst gradient is that
of a head's bias, which PyTorch sums inexactly in the plain form (2e-4 for 20 patches). Gradients of
fast have no bound: those of a random network are small differences; BF16 moves them by 0.2 to 0.4.
"""

_RATE_FACTOR = 1e-6  # of the learning rate: the weights hardly move

_Answer = tuple[Tensor, dict[str, Tensor]]  # logits [4, B, N], gradients by parameter


def recipes() -> dict[str, Recipe]:
    """By variant, the base of all comparisons first."""
    paper = load_recipe("paper")
    published = replace(paper, hfrm=HfrmTraining.PLAIN)
    return {"published": published, "pooled": paper, "fast": load_recipe("fast")}


class Variant:
    """A network of its own and its optimiser, as training builds them; dropout is on."""

    def __init__(self, recipe: Recipe, model: SSHR, batch: Batch) -> None:
        self.recipe, self.batch = recipe, batch
        device = batch.rgb.device
        self.network = TrainingNetwork(copy.deepcopy(model).to(device), recipe)
        optimiser = build_optimiser(self.network.model, recipe)
        forward = build_forward(self.network, recipe, Processes(0, 1, device))
        set_rate(optimiser, _RATE_FACTOR)
        self.trainer = Trainer(forward, optimiser, device, [Path("random patch")] * len(batch.rgb))
        self.network.train()

    def set_precision(self) -> None:
        """`build_forward` switches TF32 off for the whole process: say again what this one has."""
        torch.backends.cudnn.allow_tf32 = self.recipe.precision is not TrainingPrecision.FP32

    def step(self) -> None:
        """Forward, backward and the optimiser."""
        self.set_precision()
        next(self.trainer.steps(iter([self.batch]), EpochMeter()))

    def answer(self, counter: AbstractContextManager[object]) -> _Answer:
        """Logits without dropout and the gradients of all that learns, on the CPU."""
        self.set_precision()
        self.network.eval()  # frozen batch norms: nothing but dropout changes
        with counter:
            logits = self.trainer.forward(self.batch.rgb)
            labels = self.batch.labels.to(logits.device)
            torch.autograd.backward(total_loss(head_losses(logits, labels)))
        gradients = {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).cpu()
            for name, p in self.network.model.named_parameters()
            if p.requires_grad
        }
        self.trainer.optimiser.zero_grad()
        self.network.train()
        return logits.detach().cpu(), gradients


def random_batch(batch: int, classes: int, device: torch.device) -> Batch:
    """Patches of random pixels on `device`, with random labels; always the same."""
    rng = torch.Generator().manual_seed(1)
    rgb = torch.randint(0, 256, (batch, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 2, (batch, classes), generator=rng)
    return Batch(rgb.to(device), labels.float(), torch.arange(batch))


def random_model(config: ModelConfig, rgb: Tensor) -> SSHR:
    """On the CPU; every term of HFRM counts, as in trained networks.

    The batch norms get the statistics of `rgb`: frozen ones of a new network would let the features
    grow from block to block.
    """
    model = new_model(config, seed=0).eval()
    rng = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, HFRM):
            nn.init.constant_(module.gamma_veto, 0.7)
            nn.init.constant_(module.gamma_context, 0.9)
            nn.init.normal_(module.context_conv.weight, std=0.01, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        model.to(rgb.device).features(normalise(rgb))
    return model.cpu()


def compare(variants: Mapping[str, Variant]) -> tuple[dict[str, Any], dict[str, float]]:
    """Errors of each variant against "published", and the GFLOP of each one's step."""
    own = {torch.ops.aten.convolution_backward: _convolution_backward_flop}
    new_counter = partial(FlopCounterMode, display=False, custom_mapping=own)
    counters = {"published": new_counter(), "pooled": new_counter()}
    expected = variants["published"].answer(counters["published"])
    agreement = {}
    for name, bounds in BOUNDS.items():
        found = variants[name].answer(counters.get(name, nullcontext()))
        agreement[name] = errors = _errors(found, expected)
        for figure, bound in bounds.items():
            if not errors[figure] <= bound:
                raise SshrDeployError(
                    f"{name}: relative error of {figure} against published {errors[figure]:.1e}, "
                    f"allowed {bound:.0e} ({errors['worst_tensor']}); no speed is reported"
                )
    gflop = {name: counter.get_total_flops() / 1e9 for name, counter in counters.items()}
    return agreement, gflop | {"fast": gflop["pooled"]}


def _convolution_backward_flop(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Shapes in; each gradient takes what the forward took. PyTorch's own count ignores groups."""
    wanted: Sequence[bool] = rest[-1]
    return sum(wanted[:2]) * conv_flop_count(list(x), list(weight), list(gradient))


def _errors(found: _Answer, expected: _Answer) -> dict[str, Any]:
    """RMS of the error over RMS of the expected: logits, all gradients together, the worst one."""
    norm = partial(torch.linalg.vector_norm, dtype=torch.float64)
    names = list(expected[1])
    errors = torch.stack([norm(found[1][name] - expected[1][name]) for name in names])
    sizes = torch.stack([norm(expected[1][name]) for name in names])
    ratios = torch.where(errors == 0, 0, errors / sizes)  # dead channels: 0 / 0
    return {
        "logits": float(norm(found[0] - expected[0]) / norm(expected[0])),
        "gradients": float(norm(errors) / norm(sizes)),
        "worst_gradient": float(ratios.max()),
        "worst_tensor": names[int(ratios.argmax())],
    }


def peak_memory_mb(recipe: Recipe, model: SSHR, batch: Batch) -> float:
    """Of CUDA memory in 1e6 bytes, with this variant alone."""
    torch.cuda.reset_peak_memory_stats()
    variant = Variant(recipe, model, batch)
    for _ in range(3):
        variant.step()
    peak = torch.cuda.max_memory_allocated() / 1e6
    del variant
    torch.compiler.reset()
    gc.collect()  # a compiled network is a reference cycle
    return peak
