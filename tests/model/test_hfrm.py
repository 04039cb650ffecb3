"""The exact identities of HFRM against its plain form, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sshr_deploy.model.hfrm import HFRM, KERNEL_PX

SIZES = [(1, 1), (7, 5), (14, 15), (28, 28), (33, 17)]


def assert_exact(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.fixture
def module() -> HFRM:
    torch.manual_seed(0)
    hfrm = HFRM(channels=6, context_channels=10, hidden=4).double()
    for parameter in hfrm.parameters():
        nn.init.normal_(parameter)
    return hfrm


@pytest.fixture
def head() -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(6, 3, 1).double()


def _inputs(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(2, 6, *size).double(), torch.randn(2, 10).double()


def test_fresh_module_is_the_identity() -> None:
    hfrm = HFRM(channels=6, context_channels=10, hidden=4)
    feature, context = torch.randn(2, 6, 9, 9), torch.randn(2, 10)
    torch.testing.assert_close(hfrm(feature, context), feature)
    torch.testing.assert_close(
        hfrm.context_conv.weight, torch.full((6, 1, KERNEL_PX, KERNEL_PX), 1 / 225)
    )


def test_plain_form_equals_the_formula_pixel_by_pixel(module: HFRM) -> None:
    feature, context = _inputs((9, 8))
    w1, w2 = module.veto_mlp.parameters()
    w = torch.sigmoid(torch.relu(context @ w1.T) @ w2.T)
    kernel = module.context_conv.weight[:, 0]
    out = module(feature, context)
    for y, x, c in [(0, 0, 0), (4, 3, 2), (8, 7, 5)]:
        total = torch.zeros(2).double()
        for dy in range(KERNEL_PX):
            for dx in range(KERNEL_PX):
                sy, sx = y + dy - 7, x + dx - 7
                if 0 <= sy < 9 and 0 <= sx < 8:
                    total += kernel[c, dy, dx] * feature[:, c, sy, sx]
        value = (
            feature[:, c, y, x] * (1 + module.gamma_veto * w[:, c]) + module.gamma_context * total
        )
        assert_exact(out[:, c, y, x], value)


@pytest.mark.parametrize("size", SIZES)
def test_tap_sums_equal_the_transposed_convolution(module: HFRM, size: tuple[int, int]) -> None:
    ones = torch.ones(1, 6, *size).double()
    slow = nn.functional.conv_transpose2d(ones, module.context_conv.weight, padding=7, groups=6)
    assert_exact(module.tap_sums(*size), slow[0])


@pytest.mark.parametrize("size", SIZES)
def test_rectified_mean_equals_plain_form_with_gradients(
    module: HFRM, size: tuple[int, int]
) -> None:
    results = []
    for pooled in (False, True):
        feature, context = (t.requires_grad_() for t in _inputs(size))
        mean = (
            module.rectified_mean(feature, context)
            if pooled
            else module(feature, context).mean((2, 3))
        )
        wanted = [feature, context, *module.parameters()]
        weights = torch.linspace(-1, 1, mean.numel()).double().view_as(mean)
        results.append((mean, *torch.autograd.grad((mean * weights).sum(), wanted)))
    for plain, fast in zip(*results, strict=True):
        assert_exact(fast, plain)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["cam_depthwise", "cam_separable"])
def test_cam_forms_equal_head_of_plain_form(
    module: HFRM, head: nn.Conv2d, size: tuple[int, int], form: str
) -> None:
    feature, context = _inputs(size)
    cam = getattr(module, form)(feature, context, head)
    assert_exact(cam, head(module(feature, context)))
