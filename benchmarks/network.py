"""The whole network on a GPU, with each form of HFRM.

FP16 and channels_last, from captured graphs; beside it the way of the authors' code, one patch at a
time in FP32. Random weights and patches; CAMs are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sshr_deploy.benchmarks.gpu_timing import (
    alternate,
    relative_rms,
    replay,
    statistics,
    without_tf32,
)
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.export.deploy_graph import DeployGraph, HfrmForm
from sshr_deploy.model import HFRM, SSHR, ModelConfig, normalise
from sshr_deploy.model.resnet38d import Features

BATCHES = (1, 8, 32, 128)
GFLOP_A_PATCH = 200.5
"""At width 64, a multiply-add counted as two."""
_PATCH_PX = 224
_BOUND = (
    2e-2  # FP16 rounds the rectified feature in the plain form, and the weights in the fused one
)

OnStep = Callable[[str], None]
_Graph = Callable[[Tensor], tuple[Tensor, ...]]


def random_network(width: int, device: torch.device) -> SSHR:
    """FP32, in evaluation mode, with batch-norm statistics of random patches: features stay small.

    Every term of HFRM counts, as in trained networks.
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


def random_patches(batch: int, device: torch.device) -> Tensor:
    """uint8 [B, 224, 224, 3]."""
    return torch.randint(0, 256, (batch, _PATCH_PX, _PATCH_PX, 3), dtype=torch.uint8, device=device)


@torch.inference_mode()
def measure_inference(
    *,
    device: torch.device,
    width: int = 64,
    batches: Sequence[int] = BATCHES,
    compiled: bool = True,
    seconds: float = 1.0,
    on_step: OnStep = print,
) -> list[dict[str, Any]]:
    """Latency and patches/s by batch size and form.

    Args:
        device: a CUDA device; on a CPU (tests) FP32 is used, and Triton's interpreter has to run.
        width: of the network.
        batches: sizes in patches.
        compiled: whether to measure HFRM in its plain form under torch.compile too.
        seconds: measuring time for each form at each size, in s.
        on_step: called with one line when the next part begins.

    Raises:
        SshrDeployError: the fused form's CAMs differ from the plain one's.
    """
    model = random_network(width, device)
    on_step("network as the authors run it: FP32, one patch, TF32 off")
    rows = [_authors_way(model, device, width, seconds)]
    precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16":
        model = model.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graphs: dict[str, _Graph] = {
        form.value: DeployGraph(model, form) for form in (HfrmForm.PLAIN, HfrmForm.FUSED)
    }
    if compiled:
        graphs["compiled"] = _CompiledHfrm(model)
    for batch in batches:
        on_step(f"network, batch {batch}")
        torch.compiler.reset()
        patches = random_patches(batch, device)
        error = _compare(graphs, patches)
        calls = {name: replay([partial(graph, patches)]) for name, graph in graphs.items()}
        for name, samples in alternate(calls, seconds * len(calls)).items():
            rows.append(
                _row(name, precision, batch, width, samples) | {"relative_rms_error": error[name]}
            )
    return rows


class _CompiledHfrm(DeployGraph):
    """HFRM and heads under torch.compile; the backbone as it is in the other forms."""

    def __init__(self, model: SSHR) -> None:
        super().__init__(model, HfrmForm.PLAIN)
        options: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs", "dynamic": False}
        self._cam = torch.compile(_plain_cam, **options)

    def _rectified_cams(self, f: Features, context: Tensor) -> Iterator[Tensor]:
        for feature, hfrm, head in self.model.levels(f)[1:]:
            yield self._cam(hfrm, head, feature, context)


def _plain_cam(hfrm: HFRM, head: nn.Conv2d, feature: Tensor, context: Tensor) -> Tensor:
    cam: Tensor = head(hfrm(feature, context))
    return cam


def _authors_way(model: SSHR, device: torch.device, width: int, seconds: float) -> dict[str, Any]:
    """All four CAMs by the plain form from a normalised FP32 patch, without a graph."""
    patch = normalise(random_patches(1, device))
    with without_tf32():
        samples = alternate({"authors": lambda: model(patch)}, seconds)["authors"]
    return _row("authors", "fp32", 1, width, samples)


def _row(
    form: str, precision: str, batch: int, width: int, samples: Sequence[float]
) -> dict[str, Any]:
    figures = statistics(samples)
    rate = batch / figures["median_ms"] * 1e3
    row = {"form": form, "precision": precision, "batch": batch, "width": width, **figures}
    if width == 64:
        row["tflop_per_s"] = rate * GFLOP_A_PATCH / 1e3
    return row | {"patches_per_s": rate}


def _compare(graphs: Mapping[str, _Graph], patches: Tensor) -> dict[str, float]:
    """The worst relative RMS error of the two rectified CAMs against the plain form."""
    expected = graphs["plain"](patches)[:2]
    errors = {}
    for name, graph in graphs.items():
        found = graph(patches)[:2]
        errors[name] = max(relative_rms(got, cam) for got, cam in zip(found, expected, strict=True))
        if not errors[name] <= _BOUND:
            raise SshrDeployError(
                f"network, {name}: CAMs differ from plain by {errors[name]:.1e}, "
                f"allowed {_BOUND:.0e}; no speed is reported"
            )
    return errors
