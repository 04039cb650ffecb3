from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.benchmarks.constructed_slide import build_slide
from sshr_deploy.benchmarks.slides.job import SlideJob, SlideSettings, prepare_job
from sshr_deploy.bundle import load_bundle


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    path = tmp_path_factory.mktemp("slide") / "small.svs"
    build_slide(demo_slide, path, side_px=1344, tissue_share=0.75)
    return path


@pytest.fixture(scope="session")
def job(
    tmp_path_factory: pytest.TempPathFactory,
    small_bundle_dir: Path,
    small_checkpoint: Path,
    slide: Path,
) -> SlideJob:
    """Of a few tiles, with the networks for peers."""
    settings = SlideSettings(engine="onnx-cpu", batch=4, workers=0, mpp_um=0.5, force_mpp=True)
    folder = tmp_path_factory.mktemp("job")
    return prepare_job(load_bundle(small_bundle_dir), slide, small_checkpoint, folder, settings)
