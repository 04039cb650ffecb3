"""What `cam_to_mask` refuses, and what it hands to its launches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.cam_to_mask.op import cam_to_mask
from tests.runtime.kernels.cam_cases import WEIGHTS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cam_28_1": torch.zeros(2, 3, 4)}, r"cam_28_1 is \[2, 3, 4\]"),
        ({"cam_28_1": torch.zeros(2, 17, 4, 4)}, "cam_28_1 has 17 classes; .* at most 16"),
        ({"cam_28_1": torch.zeros(0, 3, 4, 4)}, r"cam_28_1 is \[0, 3, 4, 4\]"),
        ({"cam_28_1": torch.zeros(1, 1, 1).expand(65_536, 1, 1, 1)}, "cam_28_1 holds 65536"),
        ({"cam_28_1": torch.zeros(1, 1, 1).expand(1, 1, 1, 32_768)}, "cam_28_1 is 1 x 32768"),
        ({"cam_28_1": torch.zeros(2, 3, 4, 4, dtype=torch.float16)}, "cam_28_1 is float16; .*32"),
        ({"cam_28_2": torch.zeros(2, 3, 4, 5)}, r"cam_28_2 is .*; it must be \[2, 3, 4, 4\]"),
        ({"cam_28_2": torch.zeros(2, 3, 4, 4, device="meta")}, "cam_28_2 is on meta; "),
        ({"cam_deep": torch.zeros(2, 3, 4, 4, dtype=torch.float64)}, "cam_deep is float64; "),
        ({"prob": torch.zeros(2, 4)}, r"prob is \[2, 4\]; it must be \[2, 3\]"),
        ({"prob": torch.zeros(2, 3, dtype=torch.int64)}, "prob is int64; it must be float32"),
        ({"weights": (0.5, 0.5)}, "weights is .* three finite numbers >= 0"),
        ({"weights": (0.5, -0.1, 0.5)}, "weights is .* three finite numbers >= 0"),
        ({"weights": (0.5, math.nan, 0.5)}, "weights is .* three finite numbers >= 0"),
        ({"weights": (0.5, 1e39, 0.5)}, "weights is .* three finite numbers >= 0"),
        ({"threshold": math.nan}, "threshold is nan; it must be a finite number"),
        ({"height_px": 0}, "height_px is 0; it must be a whole number from 1 to 32767"),
        ({"width_px": 32_768}, "width_px is 32768; it must be a whole number from 1"),
        ({"width_px": 1.5}, "width_px is 1.5; it must be a whole number"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], message: str, device: str) -> None:
    right: dict[str, Any] = {
        name: torch.zeros(2, 3, 4, 4) for name in ("cam_28_1", "cam_28_2", "cam_deep")
    } | {"prob": torch.zeros(2, 3), "weights": WEIGHTS, "threshold": 0.5}
    arguments = {**right, "height_px": 8, "width_px": 8, **wrong}
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and not value.is_meta:
            arguments[name] = value.to(device)
    with pytest.raises(KernelArgumentError, match=message):
        cam_to_mask(**arguments)


@pytest.mark.parametrize("sm", [75, 80, 86, 89, 90, 100, 120])
def test_launches_have_a_scalar_for_each_of_the_signature(sm: int) -> None:
    shape = (3, 4, 28, 28)
    size = {"height_px": 257, "width_px": 301}
    launches = {
        "ranges": plan.plan_ranges(shape, weights=WEIGHTS, threshold=0.5, **size),
        "mask": plan.plan_mask(shape, threshold=0.5, **size),
    }
    variants = {variant.name: variant for variant in plan.variants(sm)}
    assert variants.keys() == launches.keys()
    for name, launch in launches.items():
        kinds = [kind for kind in variants[name].signature.values() if not kind.startswith("*")]
        assert kinds == ["fp32" if isinstance(s, float) else "i32" for s in launch.scalars]
        assert not variants[name].fuse_multiply_add
    assert launches["ranges"].grid == (12, 3, 1)
    assert launches["mask"].grid == (10, 33, 3)
