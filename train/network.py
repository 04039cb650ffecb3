"""The network as a recipe trains it: what is frozen, in which precision, in which form of HFRM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton, has_triton_package

from sshr_deploy.errors import UsageError
from sshr_deploy.model import SSHR, normalise
from sshr_deploy.model.dropout import ChannelDropout
from sshr_deploy.model.hfrm import WeightedMeans
from sshr_deploy.model.resnet38d import Features
from sshr_deploy.train.processes import Processes
from sshr_deploy.train.recipe import BatchNormMode, HfrmTraining, Recipe, TrainingPrecision

Forward = Callable[[Tensor], Tensor]
"""uint8 patches [B, H, W, 3] -> logits [4, B, N]."""

_STEM = ("conv1a", "b2", "b2_1", "b2_2")


class TrainingNetwork(nn.Module):
    """uint8 patches in, the four heads' logits out.

    Sets `requires_grad` of the parameters of `model`, which is on its device, as the recipe says.

    Raises:
        UsageError: the recipe wants the fused kernel, which does not work there.
    """

    def __init__(self, model: SSHR, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.bf16 = recipe.precision is TrainingPrecision.BF16
        self.plain = recipe.hfrm is HfrmTraining.PLAIN
        self.fused_means: WeightedMeans | None = None
        if recipe.hfrm is HfrmTraining.FUSED:
            self.fused_means = _fused_means(recipe, model.conv1a.weight.device)
        self.frozen_batch_norms = recipe.batch_norm is BatchNormMode.FROZEN
        if recipe.freeze_stem:
            for name in _STEM:
                model.get_submodule(name).requires_grad_(False)
        if self.frozen_batch_norms:
            for batch_norm in _batch_norms(model):
                batch_norm.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; frozen batch norms keep using their running statistics."""
        super().train(mode)
        if self.frozen_batch_norms:
            for batch_norm in _batch_norms(self.model):
                batch_norm.eval()
        return self

    def forward(self, rgb: Tensor) -> Tensor:
        """uint8 RGB [B, H, W, 3] -> logits float32 [4, B, N] in head order 56, 28_1, 28_2, deep.

        With BF16 the backbone's convolutions run in bfloat16; means and heads stay FP32, because
        rounding a logit to eight bits costs more than computing it.
        """
        x = normalise(rgb)
        if self.model.conv1a.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(rgb.device.type, torch.bfloat16, enabled=self.bf16):
            f = self.model.features(x)
        if self.fused_means is not None:  # the kernel reads BF16 and adds up in FP32
            return self.model.pooled_logits(f._replace(deep=f.deep.float()), self.fused_means)
        f = Features(*(feature.float() for feature in f))
        return self.model.logits(self.model.cams(f)) if self.plain else self.model.pooled_logits(f)


def place(model: SSHR, recipe: Recipe, device: torch.device) -> SSHR:
    """`model` on `device`, in the memory layout of the recipe there."""
    model = model.to(device)
    if device.type == "cuda" and recipe.channels_last_on_cuda:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def build_forward(network: TrainingNetwork, recipe: Recipe, processes: Processes) -> Forward:
    """`network` on its device as the recipe runs it there, with gradients shared by all processes.

    On several GPUs batch norms that learn use the statistics of the whole batch; on several CPUs,
    where PyTorch cannot do that, each process those of its part.

    Raises:
        UsageError: the recipe compiles, and Triton is missing.
    """
    cuda = processes.device.type == "cuda"
    if (
        cuda and recipe.precision is TrainingPrecision.FP32
    ):  # PyTorch's default rounds convolutions to TF32
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    forward: nn.Module = network
    if cuda and processes.world > 1 and not network.frozen_batch_norms:
        forward = nn.SyncBatchNorm.convert_sync_batchnorm(forward)  # type: ignore[no-untyped-call]
    if processes.world > 1:
        share_dropout(network.model, processes.rank, processes.world)
        forward = DistributedDataParallel(
            forward,
            [processes.device] if cuda else None,
            forward_sync_buffers=not network.frozen_batch_norms,
        )
    if cuda and recipe.compile_on_cuda:
        if not has_triton():
            raise UsageError(
                f"recipe {recipe.name} compiles the network, and Triton does not work here; "
                "set compile_on_cuda = false in a copy of the recipe"
            )
        forward.compile()
    return forward


def share_dropout(model: SSHR, rank: int, world: int) -> None:
    """Let process `rank` of `world` take its part of every dropout draw (`ChannelDropout`)."""
    for module in model.modules():
        if isinstance(module, ChannelDropout):
            module.rank, module.world = rank, world


def _fused_means(recipe: Recipe, device: torch.device) -> WeightedMeans:
    """The kernel, on a GPU or in Triton's interpreter.

    Raises:
        UsageError: neither is there.
    """
    works = device.type == "cuda" and has_triton()
    if not works and has_triton_package():
        from sshr_deploy.runtime.kernels.building.interpreter import interpreting

        works = interpreting()
    if not works:
        raise UsageError(
            f"recipe {recipe.name} trains HFRM with a fused kernel, which needs an NVIDIA GPU and "
            'Triton; set hfrm = "pooled" in a copy of the recipe'
        )
    from sshr_deploy.runtime.kernels.hfrm_pool.op import hfrm_pool

    return hfrm_pool


def _batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
