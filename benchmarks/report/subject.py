"""The subject of a benchmark's document."""

from __future__ import annotations

from sshr_deploy.benchmarks.report.records import Subject
from sshr_deploy.bundle import Bundle


def subject_of(bundle: Bundle) -> Subject:
    """A bundle, with the hashes that its manifest states."""
    manifest = bundle.manifest
    return Subject(
        profile=manifest.profile.name,
        width=manifest.model.width,
        gflop_per_patch=manifest.model.gflop_per_patch,
        manifest_sha256=bundle.manifest_sha256,
        files_sha256={name: entry.sha256 for name, entry in manifest.files.items()},
    )
