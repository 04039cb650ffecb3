from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sshr_deploy.geometry import Geometry


@pytest.fixture
def exported_before(small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the export take the graph of `small_bundle_dir`, which takes no seconds.

    It is depthwise, and stands in for the separable one, too. There are no graphs for fields unless
    the test asks for those that it has.
    """
    from sshr_deploy.export import artifacts
    from sshr_deploy.export import job as export_job

    for usual in ("CPU_FIELD_PX", "GPU_FIELD_PX"):
        monkeypatch.setattr(export_job, usual, 0)

    def copy(model: object, path: Path, *, form: object, geometry: Geometry) -> None:
        if not geometry.is_patch:
            shutil.copy(small_bundle_dir / "field.onnx", path)
            return
        shutil.copy(small_bundle_dir / "model.onnx", path)
        shutil.copy(small_bundle_dir / "model.onnx.data", path.with_name("model.onnx.data"))

    monkeypatch.setattr(artifacts, "write_onnx", copy)
