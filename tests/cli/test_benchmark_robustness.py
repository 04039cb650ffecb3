"""`sshr-deploy benchmark robustness` as a person runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.benchmarks.perturbations import PERTURBATIONS
from tests.cli.command import Done, run_here


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small image, so that each network runs a patch a perturbation."""
    folder = tmp_path_factory.mktemp("data") / "val"
    for part in ("img", "mask"):
        (folder / part).mkdir(parents=True)
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(rgb).save(folder / "img" / "a.png")
    Image.fromarray(rgb[..., 1] // 64).save(folder / "mask" / "a.png")
    return folder


def run(*args: str | Path) -> Done:
    return run_here("benchmark", "robustness", *args)


def test_checkpoint_and_bundle_beside_each_other(
    split: Path, own_checkpoint: Path, small_bundle_dir: Path, tmp_path: Path
) -> None:
    models: list[str | Path] = ["--model", own_checkpoint, "--model", small_bundle_dir]
    outputs = [tmp_path / "r.json", tmp_path / "r.png"]
    done = run(split, *models, "--json", outputs[0], "--picture", outputs[1])
    assert done.returncode == 0, done.stderr
    report = json.loads(outputs[0].read_text("utf-8"))
    assert [model["kind"] for model in report["models"]] == ["checkpoint", "bundle"]
    assert [model["adaptation"] for model in report["models"]] == [None, None]
    assert report["settings"]["mode"] == "seamless"
    with Image.open(outputs[1]) as picture:
        assert picture.format == "PNG"
    for words in ("1 image, seamless mode", "2 - 1", "lost, 2", "tumour", *map(str, outputs)):
        assert words in done.stdout
    for one, ours, theirs in zip(
        PERTURBATIONS, *(model["rows"] for model in report["models"]), strict=True
    ):
        assert theirs["mean_iou"] == pytest.approx(ours["mean_iou"], abs=5e-3)
        lines = re.findall(rf"^{re.escape(one.words)} +(.*)$", done.stdout, re.MULTILINE)
        assert len(lines) == 3
        both = [f"{row['mean_iou']:.3f}" for row in (ours, theirs)]
        assert lines[0].split()[:2] == both
        assert lines[1].split() == [f"{iou:.3f}" for iou in ours["class_iou"]]
        assert lines[2].count("(") == 3


def test_one_network_has_one_table_of_each_kind(split: Path, small_bundle_dir: Path) -> None:
    done = run(split, "--model", small_bundle_dir, "--mode", "reference")
    assert done.returncode == 0, done.stderr
    assert "reference mode" in done.stdout and "mean IoU" in done.stdout
    assert "difference" not in done.stdout and " - 1" not in done.stdout
    assert done.stdout.count("blur, sigma 1.5 px") == 2


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["{split}", "--model", "{own}", "--model", "{own}"], "is given twice"),
        (["{split}", "--model", "{own}", "--picture", "x.jpg"], "is a PNG"),
        (["{split}", "--model", "{own}", "--json", "{split}/img/a.png"], "choose another place"),
        (["{split}", "--model", "{split}/none"], "does not exist"),
        (["{split}", "--model", "{own}", "--model", "{split}/none"], "does not exist"),
        (["{split}/img", "--model", "{own}"], "no folders img and mask"),
        (["{split}", "--model", "{own}", "--engine", "onnx-cpu"], "are for bundles"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    split: Path, own_checkpoint: Path, args: list[str], named: str
) -> None:
    done = run(*(arg.format(split=split, own=own_checkpoint) for arg in args), "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert named in line
