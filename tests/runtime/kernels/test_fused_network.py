"""The whole network with the kernels: the masks of the plain form, and on a GPU the golden ones."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.model import HFRM, SSHR, ModelConfig
from sshr_deploy.runtime.kernels.cam_to_mask import naive
from sshr_deploy.runtime.kernels.cam_to_mask.op import cam_to_mask
from tests.gpu_here import torch_has_a_gpu
from tests.tolerances import relative_rms_error

OUTPUTS = ("cam_28_1", "cam_28_2", "cam_deep", "prob")
FORMS = (HfrmForm.FUSED, HfrmForm.PLAIN)


Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
Golden = dict[str, NDArray[Any]]


def _naive_masks(outputs: Outputs) -> NDArray[np.uint8]:
    *cams, prob = (output.cpu().numpy() for output in outputs)
    return naive.cam_to_mask(
        cams, prob, weights=(0.6, 0.2, 0.2), threshold=0.2, height_px=224, width_px=224
    )


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> Golden:
    """The four golden patches that have the network's own size."""
    with np.load(golden_dir / "official_inference.npz") as file:
        names = ("input_rgb_224", "mask", *OUTPUTS)
        return {name: np.stack([file[f"{i}/{name}"] for i in range(4)]) for name in names}


def _small_model() -> SSHR:
    torch.manual_seed(7)
    model = SSHR(ModelConfig(4, width=2)).eval()
    for module in model.modules():
        if isinstance(module, HFRM):
            nn.init.constant_(module.gamma_veto, 0.7)
            nn.init.constant_(module.gamma_context, 0.9)
            nn.init.normal_(module.context_conv.weight, std=0.05)
    for head in (model.ic1, model.ic2, model.fc8):
        nn.init.normal_(head.weight, std=0.5)
    return model


@torch.inference_mode()
def test_masks_are_those_of_the_plain_form(golden: Golden, device: str) -> None:
    model = _small_model().to(device)
    patches = torch.from_numpy(golden["input_rgb_224"][:1]).to(device)
    fused, plain = (DeployGraph(model, form)(patches) for form in FORMS)
    for got, expected in zip(fused, plain, strict=True):
        assert relative_rms_error(got, expected) < 1e-5
    masks = _naive_masks(plain)
    assert len(np.unique(masks)) > 1
    assert (_naive_masks(fused) == masks).mean() >= 0.9995


@pytest.fixture(scope="module")
def seeded_model(golden_dir: Path) -> SSHR:
    seeded = runpy.run_path(str(golden_dir / "seeded_weights.py"))
    shapes = json.loads((golden_dir / "state_dict.json").read_text())
    statistics = dict(np.load(golden_dir / "bn_stats.npz"))
    with torch.device("meta"):
        model = SSHR(ModelConfig(4))
    model.load_state_dict(seeded["state_dict"](shapes, statistics, 0), assign=True)
    return model.eval()


needs_gpu = pytest.mark.skipif(not torch_has_a_gpu(), reason="full width needs a GPU")


@needs_gpu
@torch.inference_mode()
def test_golden_masks_at_full_width(golden: Golden, seeded_model: SSHR) -> None:
    model = copy.deepcopy(seeded_model).cuda()
    patches = torch.from_numpy(golden["input_rgb_224"]).cuda()
    outputs = DeployGraph(model, HfrmForm.FUSED)(patches)
    for name, got in zip(OUTPUTS, outputs, strict=True):
        assert relative_rms_error(got, torch.from_numpy(golden[name])) < 1e-4
    masks = cam_to_mask(
        *outputs, weights=(0.6, 0.2, 0.2), threshold=0.2, height_px=224, width_px=224
    )
    assert (masks.cpu().numpy() == golden["mask"]).mean() >= 0.9995


@needs_gpu
@torch.inference_mode()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_and_plain_agree_at_full_width_in_fp16(
    golden: Golden, seeded_model: SSHR, layout: torch.memory_format
) -> None:
    """Against the plain form: the seeded weights amplify the rounding of FP16 in the backbone."""
    model = copy.deepcopy(seeded_model).to("cuda", torch.float16)
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    patches = torch.from_numpy(golden["input_rgb_224"]).cuda()
    fused, plain = (DeployGraph(model, form)(patches) for form in FORMS)
    for got, expected in zip(fused, plain, strict=True):
        assert relative_rms_error(got, expected) < 5e-3
