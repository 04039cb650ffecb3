"""The whole network on a GPU, with each form of HFRM, and under torch.compile.

FP16 and channels_last, from captured graphs, with the algorithms that cuDNN finds fastest; beside
it the way of the authors' code, one patch at a time in FP32. Random weights and inputs; CAMs and
probabilities are compared before and after the timing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sshr_deploy.benchmarks.measuring.gpu_timing import (
    Ceilings,
    OnRow,
    Replay,
    alternate,
    alternate_checked,
    autotuned,
    check_context,
    keep_to_the_end,
    measure_ceilings,
    relative_rms,
    statistics,
    without_tf32,
)
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.model import HFRM, SSHR, ModelConfig, normalise
from sshr_deploy.runtime.progress import OnStep

BATCHES = (32, 8, 1)
"""Patches; throughput first."""
FORMS = ("authors", "plain", "depthwise", "separable", "compiled", "fused")
"""Those of `HfrmForm`; "compiled" is the separable one under torch.compile."""
GFLOP_A_PATCH = 200.5
"""At width 64 in the plain form, a multiply-add counted as two."""
_PATCH_PX = 224
_FP32, _PLAIN = "FP32", "plain"
_BOUNDS = {_FP32: 6e-2, _PLAIN: 2e-2}
"""Largest relative RMS error of a CAM or of the probabilities against the plain form.

In FP32 on the same rounded weights: FP16 alone costs up to 2.1e-2 at the deep CAM (measured on a
CPU, widths 4 and 8; BF16 1.5e-1). In the same FP16 network, for forms that differ in HFRM alone:
the plain one rounds the rectified feature, the fused one its weights (separable: 5.5e-4).
"""

_Outputs = tuple[Tensor, ...]
_Graph = Callable[[Tensor], _Outputs]


def random_network(width: int, device: torch.device) -> SSHR:
    """An FP32 network in evaluation mode, its batch-norm statistics those of random patches.

    So features stay small, and every term of HFRM counts, as in trained networks.
    """
    torch.manual_seed(0)
    model = SSHR(ModelConfig(4, width)).to(device)
    for module in model.modules():
        if isinstance(module, HFRM):
            nn.init.constant_(module.gamma_veto, 0.7)
            nn.init.constant_(module.gamma_context, 0.9)
            nn.init.normal_(module.context_conv.weight, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():
        model.train().features(normalise(random_patches(4, device)))
    return model.eval()


def random_patches(batch: int, device: torch.device, geometry: Geometry = PATCH) -> Tensor:
    """uint8 [B, 224, 224, 3], or fields [B, side_px, side_px, 3]."""
    side_px = _PATCH_PX if geometry.is_patch else geometry.side_px
    return torch.randint(0, 256, (batch, side_px, side_px, 3), dtype=torch.uint8, device=device)


@torch.inference_mode()
@autotuned()
def measure_inference(
    *,
    device: torch.device,
    width: int = 64,
    batches: Sequence[int] = BATCHES,
    forms: Sequence[str] = FORMS,
    geometry: Geometry = PATCH,
    seconds: float = 1.0,
    on_step: OnStep = print,
    on_row: OnRow = keep_to_the_end,
) -> list[dict[str, Any]]:
    """Latency and patches/s by batch size and form.

    Args:
        device: a CUDA device; on a CPU (tests) FP32 is used, and Triton's interpreter has to run.
        width: of the network.
        batches: sizes in patches, or in fields.
        forms: names of `FORMS`; those of one batch size take turns, but for "authors". Of fields
            neither that nor "fused".
        geometry: of the input. A field counts as the patches that cover it, margins included.
        seconds: measuring time for each form at each size, in s.
        on_step: called with one line when the next part begins.
        on_row: called with each row.

    Returns:
        A row of a form that fails or misses its bound has the reason as "failed", and no time.

    Raises:
        SshrDeployError: a form broke the CUDA context of this process.
    """
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        on_row(row)

    model = random_network(width, device)
    if "authors" in forms:
        on_step("network as the authors run it: FP32, one patch, TF32 off")
        add(_authors_way(model, device, width, seconds))
    if device.type == "cuda":
        model = model.half()
    reference = copy.deepcopy(model).float()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graphs = {form: _graph(model, form, geometry) for form in forms if form != "authors"}
    ceilings = measure_ceilings(device, model.fc8.weight.dtype)
    for batch in batches:
        on_step(f"network, batch {batch}: {', '.join(graphs)}")
        torch.compiler.reset()
        patches = random_patches(batch, device, geometry)
        expected = _expected(model, reference, patches, geometry)
        _measure_batch(graphs, patches, expected, width, seconds, ceilings, add)
    return rows


def _graph(model: SSHR, form: str, geometry: Geometry) -> _Graph:
    """The network as `DeployGraph`; "fused" packs its weights when it is first called."""
    if form == "compiled":
        module = DeployGraph(model, HfrmForm.SEPARABLE, geometry)
        graph: _Graph = torch.compile(module, dynamic=False)
        return graph
    packed: list[DeployGraph] = []

    def call(patches: Tensor) -> _Outputs:
        if not packed:
            packed.append(DeployGraph(model, HfrmForm(form), geometry))
        outputs: _Outputs = packed[0](patches)
        return outputs

    return call


def _measure_batch(
    graphs: Mapping[str, _Graph],
    patches: Tensor,
    expected: Mapping[str, _Outputs],
    width: int,
    seconds: float,
    ceilings: Ceilings,
    add: OnRow,
) -> None:
    precision = "fp16" if patches.is_cuda else "fp32"
    batch, side_px = patches.shape[:2]
    covered = batch * (side_px / _PATCH_PX) ** 2
    rows: dict[str, dict[str, Any]] = {}
    replays: dict[str, Replay] = {}
    for name, graph in graphs.items():
        row = {"form": name, "precision": precision, "batch": batch, "width": width}
        row["side_px"] = side_px
        try:
            row["relative_rms_error"] = _checked(name, graph(patches), expected)
            replays[name] = Replay([partial(graph, patches)])
        except Exception as failure:  # compilers and drivers raise anything; the other forms go on
            add(row | {"failed": first_line(failure)})
            check_context(f"network, {name}, batch {batch}")
            continue
        rows[name] = row

    def check(name: str, results: Sequence[_Outputs]) -> None:
        _checked(name, results[0], expected)

    samples, wrong = alternate_checked(replays, seconds * len(replays), check)
    for name, row in rows.items():
        if name in wrong:
            add(row | {"failed": wrong[name]})
        else:
            add(row | _figures(samples[name], covered, width, ceilings))


def _expected(
    model: SSHR, reference: SSHR, patches: Tensor, geometry: Geometry
) -> dict[str, _Outputs]:
    """Outputs of the plain form for the first and last patch, by what they are computed in."""
    with autotuned(False):
        with without_tf32():
            in_fp32 = DeployGraph(reference, HfrmForm.PLAIN, geometry)(_ends(patches))
        plain = DeployGraph(model, HfrmForm.PLAIN, geometry)(patches)
    return {_FP32: in_fp32, _PLAIN: tuple(_ends(output) for output in plain)}


def _ends(batch: Tensor) -> Tensor:
    return batch[[0, len(batch) - 1]]


def _checked(name: str, outputs: _Outputs, expected: Mapping[str, _Outputs]) -> float:
    """The worst relative RMS error of the CAMs and probabilities of the first and last patch.

    Raises:
        SshrDeployError: it is above the bound, or an element of any patch is not finite.
    """
    against = _FP32 if name in ("plain", "compiled") else _PLAIN
    pairs = zip(outputs, expected[against], strict=True)
    error = max(relative_rms(_ends(got), wanted) for got, wanted in pairs)
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise SshrDeployError(f"network, {name}: CAMs are not finite; no speed is reported")
    if not error <= _BOUNDS[against]:
        raise SshrDeployError(
            f"network, {name}: CAMs differ from {against} by {error:.1e}, "
            f"allowed {_BOUNDS[against]:.0e}; no speed is reported"
        )
    return error


def _authors_way(model: SSHR, device: torch.device, width: int, seconds: float) -> dict[str, Any]:
    """All four CAMs by the plain form from a normalised FP32 patch, without a graph."""
    patch = normalise(random_patches(1, device))
    with without_tf32():
        samples = alternate({"authors": lambda: model(patch)}, seconds)["authors"]
    row = {"form": "authors", "precision": "fp32", "batch": 1, "width": width}
    return row | _figures(samples, 1, width, None)


def _figures(
    samples: Sequence[float], patches: float, width: int, ceilings: Ceilings | None
) -> dict[str, Any]:
    """Times and rates, with the share of what a large matrix product reached in this run."""
    figures: dict[str, Any] = statistics(samples)
    rate = patches / figures["median_ms"] * 1e3
    figures["patches_per_s"] = rate
    if width == 64:
        figures["tflop_per_s"] = rate * GFLOP_A_PATCH / 1e3
        if ceilings is not None:
            figures["product_tflop_per_s"] = ceilings.product_tflop_per_s
            figures["share_of_product"] = figures["tflop_per_s"] / ceilings.product_tflop_per_s
    return figures
