"""Fused kernels against PyTorch's operations (`sshr-deploy benchmark kernels`).

Each row is one way to compute the CAM of one feature level from the feature and the semantic gate:

    plain       F * gate + gamma_c DWConv15x15(F), then the 1x1 head, as published
    separable   two dense convolutions and a matrix product (the ONNX graph's other form)
    fused_nchw, fused_nhwc   the kernel `hfrm_cam`, on features in either memory layout
    compiled    the plain form under torch.compile(max-autotune), which takes minutes: it comes
                after all sizes of the others

No time is reported of a form that fails its check against FP64 operations on the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.kernel_cost import Cost
from sshr_deploy.benchmarks.measuring.gpu_timing import (
    Ceilings,
    OnRow,
    Replay,
    alternate_checked,
    autotuned,
    check_context,
    keep_to_the_end,
    measure_ceilings,
    relative_rms,
    sets_beyond_cache,
    statistics,
)
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.runtime.kernels.hfrm_cam.naive import hfrm_cam as plain_cam
from sshr_deploy.runtime.kernels.hfrm_cam.op import HfrmCamWeights, hfrm_cam, pack_hfrm_cam
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.progress import OnStep

SHAPES = ((512, 28, 28), (1024, 28, 28), (256, 56, 56))
"""(C, H, W) of the levels at width 64; inference needs the first two."""
BATCHES = (32, 1, 8, 128)
"""Patches; the first is what the aims are stated for, so it is measured first."""
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
CLASSES = 4
BOUND = {"fp16": 5e-3, "bf16": 2e-2}
"""Largest relative RMS error against FP64 operations on the same rounded numbers."""
_GAMMA_CONTEXT = 0.7

Form = Callable[["Level", Tensor], Tensor]


@dataclass(frozen=True)
class Level:
    """Weights of one level in the type under test."""

    gate: Tensor  # [B, C] float32
    gate_typed: Tensor  # [B, C]
    head_weight: Tensor  # [N, C]
    head_bias: Tensor  # [N]
    kernel: Tensor  # [C, 15, 15]
    vertical: Tensor  # [15 N, C, 15, 1]
    shift: Tensor  # [N, 15 N, 1, 15]
    packed: HfrmCamWeights


@autotuned()
def measure_kernels(
    *,
    device: torch.device,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[str] = ("fp16", "bf16"),
    forms: Sequence[str] = (),
    seconds: float = 0.25,
    deadline_s: float = float("inf"),
    on_step: OnStep = print,
    on_row: OnRow = keep_to_the_end,
    on_conditions: OnRow = keep_to_the_end,
) -> dict[str, Any]:
    """Check and time the forms of HFRM plus its head.

    Args:
        device: a CUDA device; on a CPU (tests) Triton's interpreter has to run.
        shapes: (C, H, W) of the feature.
        batches: sizes in patches.
        dtypes: "fp16", "bf16".
        forms: names of `FORMS`; none means all.
        seconds: measuring time for each form at each size, in s.
        deadline_s: what has not begun after this many seconds is left out and listed.
        on_step: called with one line when the next size begins.
        on_row: called with each row once its size is measured.
        on_conditions: called with the report's head, the ceilings among it, before the first row.

    Returns:
        The report. A row of a form that fails or misses its bound has the reason as "failed", and
        no time.

    Raises:
        SshrDeployError: a form broke the CUDA context of this process.
    """
    end = time.perf_counter() + deadline_s
    ceilings = {name: measure_ceilings(device, DTYPES[name]) for name in dtypes}
    conditions = _conditions(device, seconds, ceilings)
    on_conditions(conditions)
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    quick = [name for name in forms or FORMS if name != "compiled"]
    slow = [name for name in forms or FORMS if name == "compiled"]
    turns = [names for names in (quick, slow) if names]
    for names, batch, shape, dtype in product(turns, batches, shapes, dtypes):
        what = f"{dtype} {batch} x {' x '.join(map(str, shape))}"
        if what in left_out:
            continue
        what = what if names is quick else f"compiled, {what}"
        if time.perf_counter() > end:
            left_out.append(what)
            continue
        on_step(what)
        for row in _measure_size(device, shape, batch, dtype, names, seconds, ceilings[dtype]):
            rows.append(row)
            on_row(row)
    return {
        **conditions,
        "rows": rows,
        "not_measured": left_out,
    }


def _conditions(
    device: torch.device, seconds: float, ceilings: Mapping[str, Ceilings]
) -> dict[str, Any]:
    return {
        "benchmark": "kernels",
        "measured_utc": now_utc(),
        "environment": describe_environment(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "ceilings": {name: asdict(ceiling) for name, ceiling in ceilings.items()},
        "settings": {"classes": CLASSES, "seconds": seconds, "bounds": BOUND},
        "rates": "operations and bytes of the fused form over the time of each",
    }


def _measure_size(
    device: torch.device,
    shape: tuple[int, int, int],
    batch: int,
    dtype: str,
    forms: Sequence[str],
    seconds: float,
    ceilings: Ceilings,
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    torch.compiler.reset()  # each size is compiled for itself
    level = random_level(shape[0], batch, DTYPES[dtype], device)
    size = (batch, *shape)
    sets = sets_beyond_cache(2 * batch * shape[0] * shape[1] * shape[2], device)
    features = [torch.randn(size, device=device).to(DTYPES[dtype]) for _ in range(sets)]
    references = [ends_of_reference(level, features[i]) for i in (0, -1)]
    rows: dict[str, dict[str, Any]] = {}
    replays: dict[str, Replay] = {}
    for name in forms:
        rows[name] = {"dtype": dtype, "batch": batch, "shape": list(shape), "form": name}
        form, layout = FORMS[name]
        inputs = [feature.contiguous(memory_format=layout) for feature in features]
        try:
            error = checked(name, form(level, inputs[0]), references[0], BOUND[dtype])
            replays[name] = Replay([partial(form, level, feature) for feature in inputs])
        except Exception as failure:  # compilers and drivers raise anything; the other forms go on
            rows[name]["failed"] = first_line(failure)
            check_context(name)
            continue
        rows[name] |= {"relative_rms_error": error, "calls_a_sample": sets}
    cost = Cost.of(batch, shape, level.head_weight)
    check = partial(check_results, references=references, bound=BOUND[dtype])
    samples, wrong = alternate_checked(replays, seconds * len(replays), check, divisor=sets)
    for name, reason in wrong.items():
        rows[name]["failed"] = reason
    for name, values in samples.items():
        figures = statistics(values)
        rows[name] |= figures | cost.against(figures["median_ms"], ceilings)
    return list(rows.values())


def random_level(
    channels: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    rows: int | None = None,
) -> Level:
    """Weights in which every term counts, packed for a build with `rows`."""
    head_weight = (torch.randn(CLASSES, channels, device=device) / 16).to(dtype)
    head_bias = torch.randn(CLASSES, device=device).to(dtype)
    kernel = (torch.randn(channels, 15, 15, device=device) / 15).to(dtype)
    gate = 1 + torch.rand(batch, channels, device=device)
    vertical = torch.einsum("nc,cyx->xncy", head_weight.float(), _GAMMA_CONTEXT * kernel.float())
    shift = torch.einsum("xk,nm->nxmk", torch.eye(15), torch.eye(CLASSES))
    return Level(
        gate=gate,
        gate_typed=gate.to(dtype),
        head_weight=head_weight,
        head_bias=head_bias,
        kernel=kernel,
        vertical=vertical.reshape(15 * CLASSES, channels, 15, 1).to(dtype),
        shift=shift.reshape(CLASSES, 15 * CLASSES, 1, 15).to(device, dtype),
        packed=pack_hfrm_cam(
            head_weight, head_bias, kernel, _GAMMA_CONTEXT, dtype=dtype, device=device, rows=rows
        ),
    )


def _plain(level: Level, feature: Tensor) -> Tensor:
    w = level
    return plain_cam(feature, w.gate_typed, w.head_weight, w.head_bias, w.kernel, _GAMMA_CONTEXT)


@lru_cache
def _compiled_cam() -> Callable[..., Tensor]:
    # Not with graphs of its own: all forms run in one of ours.
    return torch.compile(plain_cam, mode="max-autotune-no-cudagraphs", dynamic=False)


def _compiled(level: Level, feature: Tensor) -> Tensor:
    w = level
    cam = _compiled_cam()
    return cam(feature, w.gate_typed, w.head_weight, w.head_bias, w.kernel, _GAMMA_CONTEXT)


def _separable(level: Level, feature: Tensor) -> Tensor:
    columns = F.conv2d(feature, level.vertical, padding=(7, 0))
    context = F.conv2d(columns, level.shift, level.head_bias, padding=(0, 7))
    gated = level.head_weight * level.gate_typed[:, None, :]
    return context + torch.matmul(gated, feature.flatten(2)).view_as(context)


def _fused(level: Level, feature: Tensor) -> Tensor:
    return hfrm_cam(feature, level.gate, level.packed)


_NCHW, _NHWC = torch.contiguous_format, torch.channels_last
FORMS: Mapping[str, tuple[Form, torch.memory_format]] = {
    "plain": (_plain, _NCHW),
    "separable": (_separable, _NHWC),
    "fused_nchw": (_fused, _NCHW),
    "fused_nhwc": (_fused, _NHWC),
    "compiled": (_compiled, _NCHW),
}


def ends_of_reference(level: Level, feature: Tensor) -> Tensor:
    """The CAM of the first and the last image by FP64 operations, on the feature's device."""
    w = level
    ends = [0, len(feature) - 1]
    tensors = (feature[ends], w.gate[ends], w.head_weight, w.head_bias, w.kernel)
    first, gate, head_weight, head_bias, kernel = (tensor.double() for tensor in tensors)
    return plain_cam(first, gate, head_weight, head_bias, kernel, _GAMMA_CONTEXT)


def checked(name: str, cam: Tensor, reference: Tensor, bound: float) -> float:
    """Relative RMS error of a CAM against `ends_of_reference`.

    Raises:
        SshrDeployError: it is above the bound.
    """
    error = relative_rms(cam[[0, len(cam) - 1]], reference)
    if not error <= bound:
        raise SshrDeployError(
            f"{name} on a map of {list(cam.shape[2:])} is off by {error:.1e}, "
            f"allowed {bound:.0e}; no speed is reported"
        )
    return error


def check_results(
    name: str, cams: Sequence[Tensor], *, references: Sequence[Tensor], bound: float
) -> None:
    """Check what a `Replay` gave: the first and the last CAM as `checked` does, all for NaN.

    Raises:
        SshrDeployError: a CAM is wrong.
    """
    for cam, reference in zip((cams[0], cams[-1]), references, strict=True):
        checked(name, cam, reference, bound)
    if not all(bool(cam.isfinite().all()) for cam in cams):
        raise SshrDeployError(f"{name} left NaN in a CAM; no speed is reported")
