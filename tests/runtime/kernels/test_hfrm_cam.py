"""The kernel `hfrm_cam` against its specification in float64, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.hfrm_cam import naive
from sshr_deploy.runtime.kernels.hfrm_cam.op import (
    HfrmCamWeights,
    hfrm_cam,
    pack_hfrm_cam,
    run,
)
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config, make_plan
from tests.tolerances import RELATIVE_RMS, relative_rms_error

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
GAMMA_CONTEXT = 0.7


class Case(NamedTuple):
    feature: Tensor  # in the type under test
    gate: Tensor
    head_weight: Tensor
    head_bias: Tensor
    kernel: Tensor

    def expected(self) -> Tensor:
        feature, gate, head_weight, head_bias, kernel = (tensor.double() for tensor in self)
        return naive.hfrm_cam(feature, gate, head_weight, head_bias, kernel, GAMMA_CONTEXT)

    def pack(self, rows: int | None = None) -> HfrmCamWeights:
        feature = self.feature
        return pack_hfrm_cam(
            self.head_weight,
            self.head_bias,
            self.kernel,
            GAMMA_CONTEXT,
            dtype=feature.dtype,
            device=feature.device,
            rows=rows,
        )

    def check(self, cam: Tensor) -> None:
        assert cam.dtype == torch.float32
        assert relative_rms_error(cam, self.expected()) < RELATIVE_RMS[self.feature.dtype]


MakeCase = Callable[..., Case]


@pytest.fixture
def case(device: str) -> MakeCase:
    def make(shape: tuple[int, int, int, int], classes: int = 4, dtype: torch.dtype = FP32) -> Case:
        rng = torch.Generator().manual_seed(sum(shape) + 100 * classes)
        batch, channels = shape[:2]

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=rng)

        tensors = (
            draw(*shape),
            1 + draw(batch, channels).sigmoid(),
            draw(classes, channels),
            draw(classes),
            draw(channels, 15, 15) / 15,
        )
        feature, *others = (tensor.to(device) for tensor in tensors)
        return Case(feature.to(dtype), *others)

    return make


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(
    ("shape", "classes"),
    [((2, 20, 1, 1), 3), ((3, 20, 7, 5), 4), ((1, 17, 28, 28), 5), ((2, 9, 33, 17), 2)],
)
def test_equals_the_specification(
    case: MakeCase, shape: tuple[int, int, int, int], classes: int, dtype: torch.dtype
) -> None:
    given = case(shape, classes, dtype)
    given.check(hfrm_cam(given.feature, given.gate, given.pack()))


@pytest.mark.parametrize("dtype", [FP32, FP16])
def test_equals_the_specification_at_56_px(case: MakeCase, dtype: torch.dtype) -> None:
    given = case((1, 8, 56, 56), 4, dtype)
    w = given.pack()
    larger = Config(
        rows=w.context.shape[0] - 14, block_p=256, block_c=16, num_warps=8, num_stages=1
    )
    given.check(run(given.feature, given.gate, w.head, w.context, w.bias, larger))


@pytest.mark.any_triton
@pytest.mark.parametrize("classes", range(1, 17))
def test_every_class_count(case: MakeCase, classes: int) -> None:
    given = case((1, 5, 7, 5), classes)
    cam = hfrm_cam(given.feature, given.gate, given.pack())
    assert cam.shape == (1, classes, 7, 5)
    given.check(cam)


@pytest.mark.any_triton
@pytest.mark.parametrize("dtype", [FP16, BF16])
@pytest.mark.parametrize("classes", [8, 9, 16])
def test_many_classes_on_matrix_units(case: MakeCase, classes: int, dtype: torch.dtype) -> None:
    given = case((2, 20, 7, 5), classes, dtype)
    given.check(hfrm_cam(given.feature, given.gate, given.pack()))


def test_the_full_channel_count_in_fp16(case: MakeCase) -> None:
    given = case((1, 512, 9, 11), 4, FP16)
    given.check(hfrm_cam(given.feature, given.gate, given.pack()))


def _sliced(feature: Tensor) -> Tensor:
    batch, channels, height, width = feature.shape
    large = torch.zeros(batch, 2 * channels, height, width + 3, dtype=feature.dtype)
    large = large.to(feature.device)
    large[:, ::2, :, 2 : 2 + width] = feature
    return large[:, ::2, :, 2 : 2 + width]


def _every_second_column(feature: Tensor) -> Tensor:
    large = torch.zeros(*feature.shape[:3], 2 * feature.shape[3], dtype=feature.dtype)
    large = large.to(feature.device)
    large[..., ::2] = feature
    return large[..., ::2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "sliced": _sliced,
    "every second column": _every_second_column,
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "one image for all": lambda t: t[:1].expand_as(t),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [FP32, FP16])
def test_any_strides(case: MakeCase, layout: str, dtype: torch.dtype) -> None:
    given = case((2, 24, 12, 8), 4, dtype)
    feature = LAYOUTS[layout](given.feature)
    assert not feature.is_contiguous()
    given = given._replace(feature=feature)
    given.check(hfrm_cam(given.feature, given.gate, given.pack()))


@pytest.mark.parametrize("width", [127, 128, 129, 250])
def test_rows_wider_than_a_tile(case: MakeCase, width: int) -> None:
    given = case((1, 6, 3, width), 3, FP16)
    given.check(hfrm_cam(given.feature, given.gate, given.pack()))


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("splits", [1, 2, 3])
def test_rows_a_lane_and_split_channels(case: MakeCase, rows: int, splits: int) -> None:
    given = case((2, 40, 9, 11), 4)
    config = Config(rows=rows, block_p=64, block_c=16, num_warps=4, num_stages=2)
    weights = given.pack(rows)
    arguments = (given.feature, given.gate, weights.head, weights.context, weights.bias)
    given.check(run(*arguments, config, splits=splits))
    plan = make_plan(config, (2, 40, 9, 11), given.feature.stride(), 4, 8, splits=splits)
    assert plan.splits == splits


@pytest.mark.any_triton
@pytest.mark.parametrize("block_g", [32, 64])
def test_every_step_of_the_gated_head(case: MakeCase, block_g: int) -> None:
    """Parts of 48 and 24 channels: the last step of each is cut short."""
    given = case((1, 72, 3, 6), 4, FP16)
    config = Config(2, 32, 16, 4, 2, block_g)
    weights = given.pack(config.rows)
    arguments = (given.feature, given.gate, weights.head, weights.context, weights.bias)
    given.check(run(*arguments, config, splits=2))


def test_equal_calls_give_equal_bits(case: MakeCase) -> None:
    given = case((2, 40, 9, 11), 4, FP16)
    weights = given.pack()
    first, second = (hfrm_cam(given.feature, given.gate, weights) for _ in range(2))
    assert torch.equal(first, second)


def test_pytorch_can_trace_it(case: MakeCase) -> None:
    given = case((2, 16, 5, 6), 3)
    w = given.pack()
    arguments = (given.feature, given.gate, w.head, w.context, w.bias)
    torch.library.opcheck(torch.ops.sshr.hfrm_cam.default, arguments)


def test_export_and_compile_pass_through(case: MakeCase) -> None:
    given = case((2, 16, 5, 6), 3)
    weights = given.pack()

    class Level(torch.nn.Module):
        def forward(self, feature: Tensor, gate: Tensor) -> Tensor:
            return torch.relu(hfrm_cam(feature, gate, weights))

    module = Level()
    expected = module(given.feature, given.gate)
    program = torch.export.export(module, (given.feature, given.gate))
    assert torch.equal(program.module()(given.feature, given.gate), expected)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(given.feature, given.gate), expected)


def _replaced(weights: HfrmCamWeights, **changes: Tensor) -> HfrmCamWeights:
    return replace(weights, **changes)


def test_wrong_arguments_are_named(case: MakeCase) -> None:
    given = case((2, 16, 5, 6), 3)
    f, gate, weights = given.feature, given.gate, given.pack()
    calls: dict[str, tuple[Tensor, Tensor, HfrmCamWeights]] = {
        r"feature is float64; it must be float32 or float16 or bfloat16": (
            f.double(),
            gate,
            weights,
        ),
        r"feature is \[16, 5, 6\]; it must be \[B, C, H, W\]": (f[0], gate, weights),
        r"feature is \[0, 16, 5, 6\]; it must be": (f[:0], gate[:0], weights),
        r"weights.bias is \[17\]; it must hold 1 to 16 classes": (
            f,
            gate,
            _replaced(weights, bias=weights.bias.new_zeros(17)),
        ),
        r"gate is \[1, 16\]; it must be \[2, 16\]": (f, gate[:1], weights),
        r"gate is float16; it must be float32": (f, gate.half(), weights),
        r"gate is on meta; it must be on .* like the others": (f, gate.to("meta"), weights),
        r"weights.head is float32; it must be float16": (f.half(), gate, weights),
        r"weights.head is \[16, 4\]; it must be \[8, 4\]": (f[:, :8], gate[:, :8], weights),
        r"weights.bias is \[3, 1\]; it must be \[N\]": (
            f,
            gate,
            _replaced(weights, bias=weights.bias[:, None]),
        ),
        r"weights.context is \[3, 16, 64\]; it must be \[15, 16, 64\]": (
            f,
            gate,
            _replaced(weights, context=weights.context[:3]),
        ),
    }
    for message, (feature, gate_, weights_) in calls.items():
        with pytest.raises(KernelArgumentError, match=message):
            hfrm_cam(feature, gate_, weights_)


def test_weights_need_not_be_contiguous(case: MakeCase) -> None:
    given = case((1, 16, 5, 6), 3)
    packed = given.pack()
    strided = HfrmCamWeights(
        packed.head.t().contiguous().t(),
        packed.context.transpose(1, 2).contiguous().transpose(1, 2),
        torch.stack([packed.bias, packed.bias], 1)[:, 0],
    )
    given.check(hfrm_cam(given.feature, given.gate, strided))


def test_weights_that_float16_cannot_hold_are_refused(case: MakeCase) -> None:
    given = case((1, 16, 5, 6), 3, FP16)
    small = given._replace(head_weight=given.head_weight * 1e-7)
    with pytest.raises(KernelArgumentError, match=r"too small or too large for float16.*bfloat16"):
        small.pack()
    with pytest.raises(KernelArgumentError, match="too small or too large for float16"):
        given._replace(head_weight=given.head_weight * 1e6).pack()
    small._replace(feature=given.feature.bfloat16()).pack()
    little_context = given._replace(kernel=given.kernel * 1e-6)
    little_context.check(hfrm_cam(given.feature, given.gate, little_context.pack()))
    untrained = given._replace(kernel=torch.zeros_like(given.kernel))
    untrained.check(hfrm_cam(given.feature, given.gate, untrained.pack()))


def test_weights_packed_for_another_gpu_are_refused(case: MakeCase) -> None:
    given = case((1, 16, 5, 6), 3)
    with pytest.raises(KernelArgumentError, match="packed for another GPU"):
        hfrm_cam(given.feature, given.gate, given.pack(4))


def test_wrong_weights_are_named(case: MakeCase) -> None:
    given = case((1, 16, 5, 6), 3)
    wrong = {
        r"head_weight is \[3\]; it must be \[N, C\] with N from 1 to 16": given._replace(
            head_weight=given.head_bias
        ),
        r"head_weight is \[17, 16\]; it must be": given._replace(head_weight=torch.zeros(17, 16)),
        r"head_bias is \[2\]; it must be \[3\]": given._replace(head_bias=given.head_bias[:2]),
        r"kernel is \[16, 3, 3\]; it must be \[16, 15, 15\]": given._replace(
            kernel=given.kernel[:, :3, :3]
        ),
        r"dtype is torch.float64; it must be": given._replace(feature=given.feature.double()),
    }
    for message, changed in wrong.items():
        with pytest.raises(KernelArgumentError, match=message):
            changed.pack()


def test_a_cpu_tensor_without_the_interpreter_is_refused(
    case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = case((1, 16, 5, 6), 3)
    weights = given.pack()
    monkeypatch.setattr(
        "sshr_deploy.runtime.kernels.building.arguments.interpreting", lambda: False
    )
    with pytest.raises(KernelArgumentError, match=r"feature is on cpu; .* TRITON_INTERPRET=1"):
        hfrm_cam(given.feature.cpu(), given.gate, weights)
