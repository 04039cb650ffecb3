from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.benchmarks.constructed_slide import build_slide


@pytest.fixture(scope="session")
def nine_tiles(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    """A slide of 3 x 3 tiles of 448 px, if its pixels count as 0.5 um; most have tissue."""
    path = tmp_path_factory.mktemp("slides") / "nine.svs"
    build_slide(demo_slide, path, side_px=1344, tissue_share=0.75)
    return path
