"""The examples in `docs/python-api.md` run as they stand, on the demo."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")


@pytest.fixture
def demo(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `demo` after `make demo`, one graph for all engines."""
    from sshr_deploy.export.bundle import export_bundle
    from sshr_deploy.export.graph.deploy import HfrmForm
    from sshr_deploy.export.job import ExportOptions
    from sshr_deploy.export.reference import shipped_patches
    from sshr_deploy.profiles import load_profile

    demo = repo_root / "demo"
    shutil.copytree(demo / "data", tmp_path / "data")
    (tmp_path / "out").mkdir()
    export_bundle(
        demo / "checkpoint.safetensors",
        load_profile(str(demo / "profile.toml")),
        tmp_path / "out" / "bundle",
        shipped_patches(),
        ExportOptions(form=HfrmForm.DEPTHWISE),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_api(demo: Path, repo_root: Path) -> None:
    docs = repo_root / "docs"
    found = doctest.testfile(str(docs / "python-api.md"), module_relative=False)
    assert found.failed == 0 and found.attempted > 20
    shown, made = (
        np.asarray(Image.open(p)) for p in (docs / "python-api.png", demo / "out/api/both.png")
    )
    assert shown.shape == made.shape
    assert np.abs(shown.astype(int) - made).mean() < 1
