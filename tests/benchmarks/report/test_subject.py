from __future__ import annotations

import hashlib
from pathlib import Path

from sshr_deploy.benchmarks.report.subject import subject_of
from sshr_deploy.bundle import load_bundle


def test_a_bundle_is_told_by_its_files(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    subject = subject_of(bundle)
    assert (subject.profile, subject.width) == ("wsss4luad", 2)
    assert subject.manifest_sha256 == bundle.manifest_sha256
    graph = hashlib.sha256((small_bundle_dir / "model.onnx").read_bytes()).hexdigest()
    assert subject.files_sha256["model.onnx"] == graph
    assert set(subject.files_sha256) == set(bundle.manifest.files)
