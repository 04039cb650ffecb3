"""Kernels compiled ahead of time, launched as the edge does, against the same in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.kernels.building.compile import compile_to
from sshr_deploy.runtime.kernels.cam_to_mask import naive
from sshr_deploy.runtime.kernels.cam_to_mask import plan as mask_plan
from sshr_deploy.runtime.kernels.hfrm_cam.op import hfrm_cam, pack_hfrm_cam
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    ADD_VARIANT,
    check_fit,
    choose_config,
    make_plan,
    variants,
)
from tests.gpu_here import torch_has_a_gpu
from tests.tolerances import relative_rms_error

pytestmark = pytest.mark.skipif(not torch_has_a_gpu(), reason="needs a GPU")
CLASSES = 4


def _sm() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


@pytest.fixture(scope="module")
def library() -> str:
    pytest.importorskip("cuda.core")
    return "cuda-core"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", [1, 3])
def test_hfrm_cam(tmp_path: Path, library: str, layout: str, batch: int) -> None:
    sm = _sm()
    torch.manual_seed(batch)
    shape = (batch, 64, 28, 28)
    feature = torch.randn(shape, device="cuda").half()
    if layout == "nhwc":
        feature = feature.contiguous(memory_format=torch.channels_last)
    gate = torch.rand(batch, 64, device="cuda")
    weights = pack_hfrm_cam(
        torch.randn(CLASSES, 64),
        torch.randn(CLASSES),
        torch.randn(64, 15, 15) / 15,
        0.7,
        dtype=torch.float16,
        device="cuda",
    )
    expected = hfrm_cam(feature, gate, weights)
    config = choose_config(sm, "fp16", CLASSES)
    name = f"fp16-{layout}-n4"
    (variant,) = (variant for variant in variants(sm) if variant.name == name)
    plan = make_plan(config, shape, feature.stride(), CLASSES, 132)
    check_fit(variant, plan.cam.scalars)
    memory = feature.permute(0, 2, 3, 1) if layout == "nhwc" else feature
    with open_device(library=library) as device:
        tensors = (memory, gate, weights.head, weights.context, weights.bias)
        inputs = []
        for tensor in tensors:
            array = tensor.cpu().numpy()
            inputs.append(device.allocate(array.nbytes))
            device.upload(inputs[-1], array)
        size = (plan.splits, batch, CLASSES, 28, 28)
        parts = device.allocate(4 * int(np.prod(size)))
        device.fill(parts, 0xFF)  # NaN
        kernel = device.load(compile_to(tmp_path, variant, sm))
        device.launch(kernel, plan.cam.grid, (*inputs, *plan.cam.scalars, parts))
        cam = parts
        if plan.add is not None:
            cam = device.allocate(4 * int(np.prod(size[1:])))
            add = device.load(compile_to(tmp_path, ADD_VARIANT, sm))
            device.launch(add, plan.add.grid, (parts, *plan.add.scalars, cam))
        got = torch.from_numpy(device.download(cam, np.float32, size[1:]))
    assert relative_rms_error(got, expected) < 1e-6


def test_cam_to_mask(tmp_path: Path, library: str) -> None:
    sm = _sm()
    rng = np.random.default_rng(0)
    shape = (2, CLASSES, 28, 28)
    cams = [np.maximum(rng.normal(size=shape), 0).astype(np.float32) for _ in range(3)]
    prob = rng.random((2, CLASSES), np.float32)
    settings: dict[str, Any] = {"threshold": 0.4, "height_px": 224, "width_px": 224}
    weights = (0.6, 0.2, 0.2)
    expected = naive.cam_to_mask(cams, prob, weights=weights, **settings)
    with open_device(library=library) as device:
        inputs = []
        for array in (*cams, prob):
            inputs.append(device.allocate(array.nbytes))
            device.upload(inputs[-1], array)
        ranges = device.allocate(4 * int(np.prod(mask_plan.ranges_shape(2, CLASSES))))
        labels = device.allocate(expected.nbytes)
        first = mask_plan.plan_ranges(shape, weights=weights, **settings)
        second = mask_plan.plan_mask(shape, **settings)
        kernels = [
            device.load(compile_to(tmp_path, variant, sm))
            for variant in (mask_plan.RANGES, mask_plan.MASK)
        ]
        device.launch(kernels[0], first.grid, (*inputs, *first.scalars, ranges))
        device.launch(kernels[1], second.grid, (*inputs, ranges, *second.scalars, labels))
        got = device.download(labels, np.uint8, expected.shape)
    assert np.array_equal(got, expected)
