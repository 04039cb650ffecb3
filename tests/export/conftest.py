from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def exported_before(small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the export take the graph of `small_bundle_dir`, which takes no seconds.

    It is depthwise, and stands in for the separable one, too.
    """
    from sshr_deploy.export import artifacts

    def copy(model: object, path: Path, *, form: object) -> None:
        shutil.copy(small_bundle_dir / "model.onnx", path)
        shutil.copy(small_bundle_dir / "model.onnx.data", path.with_name("model.onnx.data"))

    monkeypatch.setattr(artifacts, "write_onnx", copy)
