from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.constructed_slide import build_slide
from sshr_deploy.benchmarks.modes import measure, seams_of
from sshr_deploy.bundle import load_bundle
from sshr_deploy.runtime.evaluation.seams import Seams


def test_work_is_that_of_the_inputs_the_engine_was_given(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    slide = tmp_path / "x.svs"
    build_slide(demo_slide, slide, side_px=1920, tissue_share=0.5)
    report = measure(small_bundle_dir, slide, rounds=2)
    manifest = load_bundle(small_bundle_dir).manifest
    assert manifest.fields is not None
    reference, seamless = report["modes"]["reference"], report["modes"]["seamless"]
    ((height, width, patches),) = reference["inputs"]
    assert height == width == 224
    assert reference["gflop"] == pytest.approx(patches * manifest.model.gflop_per_patch)
    pixels = sum(h * w * count for h, w, count in seamless["inputs"])
    each = manifest.fields.gflop_per_field / manifest.fields.geometry.side_px**2
    assert seamless["gflop"] == pytest.approx(pixels * each)
    assert reference["tissue_mm2"] == pytest.approx(seamless["tissue_mm2"], rel=1e-3)
    ratios = report["seamless_over_reference"]
    assert ratios["gflop_per_mm2"] == pytest.approx(
        seamless["gflop_per_mm2"] / reference["gflop_per_mm2"]
    )
    assert len(seamless["samples_s"]) == 2


def test_seams_lie_at_the_tiles_borders() -> None:
    mask = np.zeros((500, 450), np.uint8)
    mask[:, 224:] = 1
    assert seams_of(mask, 2) == Seams.of_mask(mask, 2, rows=[224, 448], columns=[224, 448])
    assert seams_of(mask, 2).border_differing == 500
