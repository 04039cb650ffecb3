"""HFRM and its heads alone, forward and backward, by each level and form; for `training`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sshr_deploy.model import HFRM, SSHR
from sshr_deploy.model.resnet38d import Features

Calls = Mapping[str, Callable[[], object]]
_SHAPES = ((4, 56), (8, 28), (16, 28), (64, 28))  # of features: channels / width, pixels a side


def hfrm_calls(model: SSHR, rgb: Tensor) -> Calls:
    """Forward and backward by "level form"; "all" are the three and the deep head in one go."""
    make = partial(torch.rand, device=rgb.device, requires_grad=True)
    width, batch = model.config.width, len(rgb)
    f = Features(*(make(batch, c * width, px, px) for c, px in _SHAPES))
    context = make(batch, 64 * width)
    learning = [*f, model.fc8.weight]
    calls: dict[str, Callable[[], object]] = {}
    for name, (feature, hfrm, head) in zip(f._fields, model.levels(f), strict=False):
        own = [*hfrm.parameters(), *head.parameters()]
        learning += own
        for form, logits in (("plain", _plain), ("pooled", _pooled)):
            call = partial(logits, feature, context, hfrm, head)
            calls[f"{name} {form}"] = partial(_backward, call, [feature, context, *own])
    calls["all plain"] = partial(_backward, lambda: model.logits(model.cams(f)), learning)
    calls["all pooled"] = partial(_backward, lambda: model.pooled_logits(f), learning)
    return calls


def _backward(logits: Callable[[], Tensor], inputs: list[Tensor]) -> None:
    torch.autograd.grad(logits().sum(), inputs)


def _plain(feature: Tensor, context: Tensor, hfrm: HFRM, head: nn.Conv2d) -> Tensor:
    return torch.mean(head(hfrm(feature, context)), (2, 3))


def _pooled(feature: Tensor, context: Tensor, hfrm: HFRM, head: nn.Conv2d) -> Tensor:
    return F.linear(hfrm.rectified_mean(feature, context), head.weight[:, :, 0, 0], head.bias)
