"""The committed demo checkpoint, and the command that makes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.train import demo_checkpoint
from sshr_deploy.train.fit import FitSettings, evaluate
from sshr_deploy.train.textures import CLASS_NAMES, make_patches

CHECKPOINT = Path(__file__).parents[2] / "demo" / "checkpoint.safetensors"


def _facts(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_the_committed_checkpoint_says_what_it_is() -> None:
    facts = _facts(CHECKPOINT)
    assert "synthetic" in facts["title"]
    assert "no medical model" in facts["title"]
    assert "synthetic" in facts["training_data"]
    assert facts["classes"] == ", ".join(CLASS_NAMES)
    assert int(facts["steps"]) == FitSettings.steps
    assert CHECKPOINT.stat().st_size < 8_000_000


def test_the_committed_checkpoint_knows_the_textures() -> None:
    model = load_checkpoint(CHECKPOINT)
    assert (model.config.width, model.config.num_classes) == (8, len(CLASS_NAMES))
    scores = evaluate(model, make_patches(seed=77, count=8))
    assert scores.label_accuracy > 0.85
    assert scores.pixel_accuracy > 0.7  # chance is about 0.25
    assert scores.mean_iou > 0.5


def test_the_command_writes_a_checkpoint_with_its_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_checkpoint, "HELD_OUT_PATCHES", 2)
    out = tmp_path / "new" / "small.safetensors"
    assert demo_checkpoint.main(["--out", str(out), "--steps", "1", "--seed", "9"]) == 0
    facts = _facts(out)
    assert (facts["steps"], facts["seed"]) == ("1", "9")
    assert 0 <= float(facts["held_out_mean_iou"]) <= 1
    assert load_checkpoint(out).config.width == 8
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert "held_out_mean_iou" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--seed", "-1"], ["--seed", "1000003"]])
def test_the_command_refuses_senseless_numbers(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        demo_checkpoint.main(["--out", str(tmp_path / "x.safetensors"), *arguments])
    assert stop.value.code == 2
