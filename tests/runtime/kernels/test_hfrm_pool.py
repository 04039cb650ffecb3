"""`hfrm_pool` and `hfrm_logits` against their specifications in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.hfrm_pool import naive, op, plan
from sshr_deploy.runtime.kernels.launch import Variant
from tests.tolerances import RELATIVE_RMS, relative_rms_error

Arguments = tuple[Tensor, ...]

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nchw": lambda f: f.contiguous(),
    "nhwc": lambda f: f.contiguous(memory_format=torch.channels_last),
    "slice": lambda f: torch.cat([f, f], 3)[..., : f.shape[3]],
    "nhwc batch slice": lambda f: torch.cat([f, f]).contiguous(memory_format=torch.channels_last)[
        f.shape[0] :
    ],
}
SIZES = [(1, 1, 1, 1), (2, 3, 7, 5), (2, 3, 28, 28), (1, 5, 33, 17), (1, 1, 56, 56)]
MEANS = ("mean", "weighted", "dF", "dK")


def _pool_arguments(
    size: tuple[int, ...], dtype: torch.dtype, device: str, layout: str = "nchw"
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    total = torch.float64 if dtype == torch.float64 else torch.float32
    feature = LAYOUTS[layout]((torch.randn(size) + 0.5).to(device, dtype))
    return feature, torch.randn(size[1], 15, 15, dtype=total, device=device)


def _logits_arguments(device: str) -> Arguments:
    feature, kernel = _pool_arguments((2, 3, 3, 4), torch.float64, device)
    gamma_s, gamma_c, w, weight, bias = (
        torch.randn(shape, dtype=torch.float64, device=device)
        for shape in ((1,), (1,), (2, 3), (2, 3), (2,))
    )
    arguments = (feature, kernel, gamma_s, gamma_c, w, weight, bias)
    return tuple(t.requires_grad_() for t in arguments)


def _logits(
    function: Callable[..., Tensor],
    feature: Tensor,
    kernel: Tensor,
    gamma_s: Tensor,
    gamma_c: Tensor,
    w: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    return function(feature, kernel, 1 + gamma_s * w, gamma_c, weight, bias)


def _values_and_gradients(
    function: Callable[..., tuple[Tensor, ...]], arguments: Arguments
) -> list[Tensor]:
    """Both means, then the gradients of F and K for a fixed gradient of each mean."""
    arguments = tuple(t.detach().requires_grad_() for t in arguments)
    means = function(*arguments)
    torch.manual_seed(1)
    gradients = [torch.randn(mean.shape).to(mean) for mean in means]
    return [*means, *torch.autograd.grad(means, arguments, gradients)]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_means_and_gradients_are_those_of_the_definition(
    size: tuple[int, ...], layout: str, device: str
) -> None:
    arguments = _pool_arguments(size, torch.float32, device, layout)
    got = _values_and_gradients(op.hfrm_pool, arguments)
    expected = _values_and_gradients(naive.hfrm_pool, tuple(t.double() for t in arguments))
    for name, value, exact in zip(MEANS, got, expected, strict=True):
        assert value.dtype == torch.float32
        assert relative_rms_error(value, exact) < RELATIVE_RMS[torch.float32], name
    assert got[2].stride() == arguments[0].stride()


@pytest.mark.any_triton
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", RELATIVE_RMS, ids=str)
def test_every_type_and_layout(dtype: torch.dtype, layout: str, device: str) -> None:
    """Half-precision features are read as they are: their means and dK are as good as FP32's."""
    arguments = _pool_arguments((2, 3, 4, 6), dtype, device, layout)
    got = _values_and_gradients(op.hfrm_pool, arguments)
    expected = _values_and_gradients(naive.hfrm_pool, tuple(t.double() for t in arguments))
    total = torch.float64 if dtype == torch.float64 else torch.float32
    assert [value.dtype for value in got] == [total, total, dtype, total]
    for name, value, exact in zip(MEANS, got, expected, strict=True):
        assert relative_rms_error(value, exact) < RELATIVE_RMS[value.dtype], name


def test_a_huge_tap_drowns_no_others(device: str) -> None:
    """Where it leaves the map; in differences of FP32 prefix sums it leaves a rest of 1."""
    feature, kernel = _pool_arguments((1, 1, 2, 20), torch.float32, device)
    kernel[0, 0, 0] = 1e7  # stays inside from no pixel of two rows
    got = op.hfrm_pool(feature, kernel)[1]
    expected = naive.hfrm_pool(feature.double(), kernel.double())[1]
    assert relative_rms_error(got, expected) < RELATIVE_RMS[torch.float32]


@pytest.mark.any_triton
def test_results_repeat_to_the_bit(device: str) -> None:
    arguments = _pool_arguments((2, 5, 9, 9), torch.float32, device)
    first, second = (_values_and_gradients(op.hfrm_pool, arguments) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)], ids=["F", "K"])
def test_a_gradient_that_nobody_wants_is_not_computed(
    wanted: tuple[bool, bool], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _pool_arguments((2, 3, 7, 5), torch.float32, device)
    both = _values_and_gradients(op.hfrm_pool, arguments)[2:]
    for argument, wants in zip(arguments, wanted, strict=True):
        argument.requires_grad_(wants)
    means = op.hfrm_pool(*arguments)
    launched: list[str] = []
    launch = op._launch

    def launch_and_note(variant: Variant, *rest: Any) -> None:
        launched.append(variant.function)
        launch(variant, *rest)

    monkeypatch.setattr(op, "_launch", launch_and_note)
    torch.manual_seed(1)
    torch.autograd.backward(means, [torch.randn(mean.shape).to(mean) for mean in means])
    for argument, wants, gradient in zip(arguments, wanted, both, strict=True):
        assert (argument.grad is not None) == wants
        assert argument.grad is None or torch.equal(argument.grad, gradient)
    for_feature, for_kernel = ["tap_sums", "feature_gradient"], ["sums_gradient", "tap_gradient"]
    expected = for_feature if wanted[0] else for_kernel
    assert launched == [f"{name}_kernel" for name in expected]


@pytest.mark.any_triton
def test_logits_and_all_gradients_are_those_of_the_plain_module(device: str) -> None:
    arguments = _logits_arguments(device)
    results = []
    for function in (op.hfrm_logits, naive.hfrm_logits):
        logits = _logits(function, *arguments)
        scale = torch.linspace(-1, 2, logits.numel()).to(logits).view_as(logits)
        results.append([logits, *torch.autograd.grad((logits * scale).sum(), arguments)])
    for got, expected in zip(*results, strict=True):
        assert relative_rms_error(got, expected) < RELATIVE_RMS[torch.float64]


def test_gradcheck_of_logits_by_every_argument(device: str) -> None:
    torch.manual_seed(0)
    arguments = _logits_arguments(device)
    assert torch.autograd.gradcheck(
        lambda *a: _logits(op.hfrm_logits, *a), arguments, fast_mode=True, nondet_tol=0
    )


def test_gradcheck_of_the_means_element_by_element(device: str) -> None:
    feature, kernel = _pool_arguments((1, 1, 2, 3), torch.float64, device)
    assert torch.autograd.gradcheck(op.hfrm_pool, (feature.requires_grad_(), kernel))
    assert torch.autograd.gradcheck(
        op.hfrm_pool, (feature.detach(), kernel.requires_grad_()), fast_mode=True
    )


@pytest.mark.parametrize("layout", ["nhwc", "slice"])
def test_opcheck(layout: str, device: str) -> None:
    """Schema, autograd registration, fake tensors (with their strides) and dynamic shapes."""
    feature, kernel = _pool_arguments((2, 3, 2, 4), torch.float32, device, layout)
    means = [torch.randn(2, 3, device=device) for _ in range(2)]
    torch.library.opcheck(
        torch.ops.sshr.hfrm_pool.default,
        (feature.detach().requires_grad_(), kernel.clone().requires_grad_()),
    )
    torch.library.opcheck(
        torch.ops.sshr.hfrm_pool_feature_gradient.default, (feature, kernel, *means)
    )
    torch.library.opcheck(
        torch.ops.sshr.hfrm_pool_kernel_gradient.default, (feature, kernel, means[1])
    )


def test_torch_compile_takes_it_whole(device: str) -> None:
    def logits_of(*arguments: Tensor) -> Tensor:
        return _logits(op.hfrm_logits, *arguments)

    compiled = torch.compile(logits_of, backend="aot_eager", fullgraph=True)
    arguments = _logits_arguments(device)
    results = []
    for function in (compiled, logits_of):
        logits = function(*arguments)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), arguments)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


class _Level(nn.Module):
    def forward(self, feature: Tensor, kernel: Tensor, gate: Tensor) -> Tensor:
        one, weight = torch.ones_like(gate[0, :1]), torch.ones_like(gate[:1])
        return op.hfrm_logits(feature, kernel, gate, one, weight, one)


def test_torch_export_takes_it_whole(device: str) -> None:
    feature, kernel = _pool_arguments((2, 3, 3, 4), torch.float32, device)
    gate = torch.randn(2, 3, device=device)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(
        _Level(), (feature, kernel, gate), dynamic_shapes=({0: batch}, None, {0: batch})
    )
    assert "sshr.hfrm_pool" in str(program.graph)
    arguments = (torch.cat([feature, 2 * feature]), kernel, torch.cat([gate, -gate]))
    torch.testing.assert_close(program.module()(*arguments), _Level()(*arguments))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"feature": torch.ones(2, 3, 4)}, r"feature is \[2, 3, 4\]; .*\[B, C, H, W\]"),
        ({"feature": torch.ones(2, 3, 0, 5)}, r"feature is \[2, 3, 0, 5\]"),
        ({"feature": torch.ones(2, 3, 4, 5, dtype=torch.int32)}, "feature is int32"),
        ({"kernel": torch.ones(3, 1, 15, 15)}, r"kernel is \[3, 1, 15, 15\]; .*\[3, 15, 15\]"),
        ({"kernel": torch.ones(4, 15, 15)}, r"kernel is \[4, 15, 15\]"),
        ({"kernel": torch.ones(3, 15, 15, dtype=torch.float16)}, "kernel is float16; .* float32"),
        ({"kernel": torch.ones(3, 15, 15).double()}, "kernel is float64; .* float32"),
        ({"kernel": torch.ones(3, 15, 15, device="meta")}, "kernel is on meta"),
        ({"gate": torch.ones(2, 4)}, r"gate is \[2, 4\]; it must be \[2, 3\]"),
        ({"gamma_context": torch.ones(())}, r"gamma_context is \[\]; it must be \[1\]"),
        ({"head_weight": torch.ones(2, 4)}, r"head_weight is \[2, 4\]; it must be \[N, 3\]"),
        ({"head_weight": torch.ones(2, 3).half()}, "head_weight is float16"),
        ({"head_bias": torch.ones(3)}, r"head_bias is \[3\]; it must be \[2\]"),
        ({"head_bias": torch.ones(2, device="meta")}, "head_bias is on meta"),
    ],
)
def test_a_wrong_argument_is_named(changed: dict[str, Tensor], message: str, device: str) -> None:
    arguments = {
        "feature": torch.ones(2, 3, 4, 5),
        "kernel": torch.ones(3, 15, 15),
        "gate": torch.ones(2, 3),
        "gamma_context": torch.ones(1),
        "head_weight": torch.ones(2, 3),
        "head_bias": torch.ones(2),
    } | changed
    placed = {k: t if t.is_meta else t.to(device) for k, t in arguments.items()}
    with pytest.raises(KernelArgumentError, match=message):
        op.hfrm_logits(**placed)


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ((65536, 1, 1, 1), "at most 65535 images"),
        ((1, 1, 2048, 1), "sides of at most 2047"),
        ((1, 513, 2047, 2047), "C H W must be at most 2147483647"),
    ],
)
def test_features_that_do_not_fit_a_launch_are_refused(
    shape: tuple[int, ...], limit: str, device: str
) -> None:
    feature = torch.ones(1, device=device).expand(shape)
    with pytest.raises(KernelArgumentError, match=f"feature is .*{limit}"):
        op.hfrm_pool(feature, torch.ones(shape[1], 15, 15, device=device))


def test_builds_ahead_of_time_are_distinct_and_have_no_bf16_before_sm_80() -> None:
    for sm in (75, 80, 120):
        names = [variant.name for variant in plan.variants(sm)]
        assert len(set(names)) == len(names) == (16 if sm < 80 else 22)
        assert any("bf16" in name for name in names) == (sm >= 80)
