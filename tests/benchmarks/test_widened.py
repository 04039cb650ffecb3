from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sshr_deploy.benchmarks.widened import main, widened
from sshr_deploy.errors import UsageError
from sshr_deploy.model.checkpoint import load_checkpoint, read_header
from sshr_deploy.model.config import ModelConfig
from sshr_deploy.model.sshr import SSHR


def test_a_wider_network_gives_what_the_narrow_one_gives(small_checkpoint: Path) -> None:
    narrow = load_checkpoint(small_checkpoint).double()
    wide = widened(narrow, 6)
    classes = narrow.config.num_classes
    assert {name: tensor.shape for name, tensor in wide.state_dict().items()} == {
        name: tensor.shape for name, tensor in SSHR(ModelConfig(classes, 6)).state_dict().items()
    }
    patches = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        for got, wanted in zip(wide(patches), narrow(patches), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_only_multiples_of_the_width_can_be_had(small_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="multiple of 2"):
        widened(load_checkpoint(small_checkpoint), 5)


def test_the_program_keeps_the_header(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "wide.safetensors"
    monkeypatch.setattr("sys.argv", ["widened", str(small_checkpoint), str(out), "--width", "4"])
    main()
    assert load_checkpoint(out).config.width == 4
    assert read_header(out)["trained_on"] == read_header(small_checkpoint)["trained_on"]
