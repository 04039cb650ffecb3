"""`infer` and `evaluate` on images: the options reach the run, and mean the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image
from typer.testing import CliRunner

from sshr_deploy.cli import app


@pytest.mark.parametrize(("large", "tiles"), [("tiles", 3), ("whole", 1)])
def test_the_same_options_give_the_same_score(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path, large: str, tiles: int
) -> None:
    split, out, scores = tmp_path / "split", tmp_path / "out", tmp_path / "scores.json"
    for part in ("img", "mask"):
        (split / part).mkdir(parents=True)
    with openslide.OpenSlide(demo_slide) as slide:
        slide.read_region((700, 900), 0, (600, 200)).convert("RGB").save(split / "img" / "x.png")
    truth = np.repeat(np.arange(4, dtype=np.uint8), 150)[None].repeat(200, 0)
    Image.fromarray(truth).save(split / "mask" / "x.png")
    model, choice = ["--model", str(small_bundle_dir)], ["--large", large, "--quiet"]
    for args in (
        [
            "infer",
            str(split / "img"),
            *model,
            "--out",
            str(out),
            "--mpp",
            "1",
            *choice,
            "--mode",
            "reference",
        ],
        ["evaluate", str(split), *model, "--json", str(scores), *choice, "--mode", "reference"],
    ):
        done = CliRunner().invoke(app, args)
        assert (done.exit_code, done.output) == (0, ""), done.exception
    summary = json.loads((out / "x.png" / "summary.json").read_text("utf-8"))
    assert summary["large"] == large
    assert summary["tiles"]["total"] == tiles
    assert summary["tissue_area_mm2"] == pytest.approx(0.12)
    mask = np.asarray(Image.open(out / "x.png" / "mask.png"))
    document = json.loads(scores.read_text("utf-8"))
    right = (mask == truth)[truth < 3].mean()
    assert document["scores"]["pixel_accuracy"] == pytest.approx(right, rel=1e-12)
    assert document["settings"]["large"] == large
