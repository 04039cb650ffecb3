from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sshr_deploy.model import SSHR, ModelConfig


def test_tensor_names_and_shapes_are_the_published_ones(golden_dir: Path) -> None:
    published = json.loads((golden_dir / "state_dict.json").read_text())
    with torch.device("meta"):
        model = SSHR(ModelConfig(num_classes=4))
    assert {name: list(t.shape) for name, t in model.state_dict().items()} == published


def test_width_8_has_1_8_million_parameters() -> None:
    with torch.device("meta"):
        model = SSHR(ModelConfig(num_classes=4, width=8))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.8e6, rel=0.02)


@pytest.mark.parametrize(
    "kwargs", [{"num_classes": 0}, {"num_classes": 17}, {"num_classes": 3, "width": 0}]
)
def test_impossible_shapes_are_refused(kwargs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ModelConfig(**kwargs)


def test_cam_sizes_follow_the_strides() -> None:
    torch.manual_seed(0)
    cams = SSHR(ModelConfig(num_classes=3, width=1)).eval()(torch.randn(2, 3, 64, 48))
    assert [tuple(c.shape) for c in cams] == [(2, 3, 16, 12), *[(2, 3, 8, 6)] * 3]


def test_pooled_logits_equal_those_of_the_cams() -> None:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=1)).double().eval()
    for name, parameter in model.named_parameters():
        if "gamma" in name or "context_conv" in name:
            torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 64, 64).double()
    torch.testing.assert_close(
        model.pooled_logits(model.features(x)), model.logits(model(x)), rtol=1e-9, atol=1e-12
    )


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(num_classes=3, width=1))
    x = torch.randn(2, 3, 32, 32)
    model.eval()
    assert torch.equal(model(x).cam_deep, model(x).cam_deep)
    model.train()
    assert not torch.equal(model(x).cam_deep, model(x).cam_deep)
