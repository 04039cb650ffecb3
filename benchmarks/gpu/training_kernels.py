"""The kernel `hfrm_pool` in training on a GPU: HFRM and heads alone, and whole steps.

Three forms of the losses' logits: "plain" with the 15x15 convolutions, as published; "pooled" by
PyTorch's operations; "fused" by the kernel. As in training, nothing is captured in a graph and
cuDNN tries no algorithms: what is short is bound by the host's launches. `sshr-deploy benchmark
training` compares recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.benchmarks.gpu.network import random_network, random_patches
from sshr_deploy.benchmarks.measuring.gpu_timing import (
    Call,
    OnRow,
    alternate,
    keep_to_the_end,
    relative_rms,
    statistics,
    without_tf32,
)
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.model import HEAD_LOSS_WEIGHTS, SSHR, normalise
from sshr_deploy.model.resnet38d import Features
from sshr_deploy.runtime.kernels.hfrm_pool.op import hfrm_pool
from sshr_deploy.runtime.progress import OnStep

_BOUND = 1e-3
_FROZEN = ("conv1a", "b2", "b2_1", "b2_2")
_Logits = Callable[[SSHR, Features], Tensor]


def _plain(model: SSHR, f: Features) -> Tensor:
    return model.logits(model.cams(Features(*(feature.float() for feature in f))))


def _pooled(model: SSHR, f: Features) -> Tensor:
    return model.pooled_logits(Features(*(feature.float() for feature in f)))


def _fused(model: SSHR, f: Features) -> Tensor:
    return model.pooled_logits(f._replace(deep=f.deep.float()), hfrm_pool)


FORMS: Mapping[str, _Logits] = {"plain": _plain, "pooled": _pooled, "fused": _fused}


def measure_training_kernels(
    *,
    device: torch.device,
    width: int = 64,
    batch: int = 20,
    seconds: float = 2.0,
    on_step: OnStep = print,
    on_row: OnRow = keep_to_the_end,
) -> list[dict[str, Any]]:
    """Times by form. The backbone runs in BF16 and channels_last, frozen as in the recipe `paper`.

    Args:
        device: a CUDA device; on a CPU (tests) Triton's interpreter has to run.
        width: of the network.
        batch: patches a step.
        seconds: measuring time for each form, in s.
        on_step: called with one line when the next part begins.
        on_row: called with each row.

    Raises:
        SshrDeployError: logits of a form differ from the plain one's.
    """
    model = random_network(width, device)
    for name in _FROZEN:
        model.get_submodule(name).requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = normalise(random_patches(batch, device)).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (batch, model.config.num_classes), device=device).float()
    features = Features(*(feature.detach() for feature in _features(model, x)))
    on_step("training: comparing logits")
    _compare(model, features)
    heads = {
        name: partial(_heads_step, model, features, labels, form) for name, form in FORMS.items()
    }
    rows = []
    for part, calls in (("HFRM and heads", heads), ("step", _steps(model, x, labels))):
        on_step(f"training: {part}")
        for name, samples in alternate(calls, seconds * len(calls)).items():
            row = {"part": part, "form": name, "batch": batch, "width": width}
            rows.append(row | statistics(samples))
            on_row(rows[-1])
    return rows


def _steps(model: SSHR, x: Tensor, labels: Tensor) -> dict[str, Call]:
    """A whole training step by form."""
    rate = 1e-9  # the weights hardly move
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], rate)
    return {name: partial(_step, model, x, labels, form, optimiser) for name, form in FORMS.items()}


def _features(model: SSHR, x: Tensor) -> Features:
    with torch.autocast(x.device.type, torch.bfloat16):
        return model.features(x)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    losses = [
        weight * F.multilabel_soft_margin_loss(head, labels)
        for weight, head in zip(HEAD_LOSS_WEIGHTS, logits, strict=True)
    ]
    return torch.stack(losses).sum()


def _heads_step(model: SSHR, features: Features, labels: Tensor, form: _Logits) -> None:
    """Forward and backward of HFRM and heads alone, gradients of the features included."""
    leaves = Features(*(feature.requires_grad_() for feature in features))
    _loss(form(model, leaves), labels).backward()  # type: ignore[no-untyped-call]
    for leaf in leaves:
        leaf.grad = None
    model.zero_grad()


def _step(
    model: SSHR, x: Tensor, labels: Tensor, form: _Logits, optimiser: torch.optim.Optimizer
) -> None:
    optimiser.zero_grad()
    _loss(form(model, _features(model, x)), labels).backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@torch.no_grad()
@without_tf32()
def _compare(model: SSHR, features: Features) -> None:
    expected = _plain(model, features)
    for name, form in FORMS.items():
        error = relative_rms(form(model, features), expected)
        if not error <= _BOUND:
            raise SshrDeployError(
                f"training, {name}: logits differ from plain by {error:.1e}, "
                f"allowed {_BOUND:.0e}; no speed is reported"
            )
