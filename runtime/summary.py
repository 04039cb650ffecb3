"""Builds the documents a run leaves: `summary.json`, `summary.csv`, `run.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import sshr_deploy
from sshr_deploy.bundle import Bundle
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.machine import library_versions
from sshr_deploy.runtime.progress import InputResult
from sshr_deploy.runtime.sessions import Session, SessionInfo
from sshr_deploy.runtime.settings import InferSettings

_LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "pillow",
    "rasterio",
)


@dataclass(frozen=True)
class Context:
    """What all results of a run share."""

    bundle: Bundle
    session: Session
    settings: InferSettings

    @property
    def engine(self) -> SessionInfo:
        """What serves the run; a session may find more to note while it runs."""
        return self.session.info

    @property
    def profile(self) -> Profile:
        """The bundle's profile."""
        return self.bundle.manifest.profile

    def key(self, fingerprint: str, summary: dict[str, Any]) -> dict[str, Any]:
        """Identity of a result: the same key means that computing it again would change nothing.

        `summary` is that of the result; `--mpp` counts only where it was used, or would be now.
        """
        settings = self.settings
        key = {
            "input_fingerprint": fingerprint,
            "bundle_manifest_sha256": self.bundle.manifest_sha256,
            "sshr_deploy": sshr_deploy.__version__,
            "engine": f"{self.engine.engine} {self.engine.precision}",
            "library": self.engine.library,
            "device": self.engine.device,
            "qualified": self.engine.unqualified is None,
            **settings.key(),
        }
        source = summary.get("mpp", {}).get("source")  # None for a patch
        if source is not None and (source != "file" or settings.force_mpp):
            key |= {"mpp_um": settings.mpp_um, "force_mpp": settings.force_mpp}
        return key

    def provenance(self) -> dict[str, Any]:
        """Engine, bundle and version, for each document."""
        manifest = self.bundle.manifest
        return {
            "sshr_deploy": sshr_deploy.__version__,
            "profile": manifest.profile.name,
            "relabelled_from": manifest.relabelled_from,
            "engine": asdict(self.engine),
            "bundle": {
                "path": str(self.bundle.path),
                "manifest_sha256": self.bundle.manifest_sha256,
                "files_sha256": {name: entry.sha256 for name, entry in manifest.files.items()},
                "checkpoint_sha256": manifest.model.checkpoint_sha256,
                "model_metadata": manifest.model.metadata,
            },
        }


def now_utc() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def class_table(
    profile: Profile, counts: Sequence[int], mpp_um: float | None
) -> list[dict[str, Any]]:
    """One entry a class: label, name, pixels, share of all class pixels, area in mm2.

    `counts` are the pixels of labels 0 to N. The area is None where the pixel size is not known.
    """
    total = sum(int(c) for c in counts[: profile.num_classes])
    pixel_mm2 = None if mpp_um is None else (mpp_um / 1000) ** 2
    return [
        {
            "label": label,
            "name": tissue.name,
            "pixels": int(counts[label]),
            "share": int(counts[label]) / total if total else 0.0,
            "area_mm2": None if pixel_mm2 is None else round(int(counts[label]) * pixel_mm2, 9),
        }
        for label, tissue in enumerate(profile.classes)
    ]


def csv_rows(profile: Profile, results: Iterable[InputResult]) -> list[dict[str, object]]:
    """One row an input for `summary.csv`; area columns are named after the classes, in mm2."""
    rows = []
    for result in results:
        summary = result.summary
        row: dict[str, object] = {
            "input": str(result.path),
            "kind": result.kind,
            "status": result.status,
            "reason": result.reason,
            "tissue_mm2": summary.get("tissue_area_mm2"),
        }
        by_name = {c["name"]: c for c in summary.get("classes", [])}
        for tissue in profile.classes:
            row[f"{tissue.name} mm2"] = by_name.get(tissue.name, {}).get("area_mm2")
        for tissue in profile.classes:
            row[f"{tissue.name} share"] = by_name.get(tissue.name, {}).get("share")
        row["seconds"] = summary.get("seconds", {}).get("total")
        rows.append(row)
    return rows


def run_document(
    context: Context,
    results: Sequence[InputResult],
    *,
    started_utc: str,
    interrupted: bool,
    stopped_by: str | None,
) -> dict[str, Any]:
    """Content of `run.json`: settings, versions, and how each input ended."""
    statuses = [r.status for r in results]
    return {
        "started_utc": started_utc,
        "finished_utc": now_utc(),
        "interrupted": interrupted,
        "stopped_by": stopped_by,
        "counts": {s: statuses.count(s) for s in ("done", "skipped", "failed")},
        **context.provenance(),
        "settings": asdict(context.settings),
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "libraries": library_versions(_LIBRARIES),
        "inputs": [
            {
                "path": str(r.path),
                "kind": r.kind,
                "status": r.status,
                "reason": r.reason,
                **{k: r.summary[k] for k in ("folder", "mpp", "seconds") if k in r.summary},
            }
            for r in results
        ],
    }
