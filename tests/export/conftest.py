from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def exported_before(small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the export take the graph of `small_bundle_dir`, which takes no seconds."""
    from sshr_deploy.export import artifacts

    def copy(model: object, path: Path, *, form: object) -> None:
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(small_bundle_dir / name, path.with_name(name))

    monkeypatch.setattr(artifacts, "write_onnx", copy)
