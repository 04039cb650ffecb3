"""Builds the documents a run leaves: `summary.json`, `summary.csv`, its record."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sshr_deploy
from sshr_deploy.bundle import Bundle
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import Session, SessionInfo
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.processor import library_versions
from sshr_deploy.runtime.progress import InputResult
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


_RUN_FIELDS = ("folder", "mpp", "tiles", "seconds")
"""What `run.json` repeats of each `summary.json`."""
IMAGE_MPP_SOURCE = "--mpp (images state none)"
"""Where the pixel size of a PNG or JPEG comes from; its dots per inch are those of a screen."""


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

        `summary` is that of the result; `--mpp` counts only where it was used, or would be now,
        and `--large` only for images that are large.
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
        source = (summary.get("mpp") or {}).get("source")  # None for an image without --mpp
        if source in (None, IMAGE_MPP_SOURCE):
            key["mpp_um"] = settings.mpp_um
        elif source != "file" or settings.force_mpp:
            key |= {"mpp_um": settings.mpp_um, "force_mpp": settings.force_mpp}
        if summary.get("large") is not None:
            key["large"] = settings.large.value
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
    """One row an input for `summary.csv`; area columns are named after the classes, in mm2.

    The classes of `profile` come first, then those that other bundles left in the folder.
    """
    rows = list(results)
    met = (entry["name"] for row in rows for entry in row.summary.get("classes", ()))
    names = list(dict.fromkeys([*(tissue.name for tissue in profile.classes), *met]))
    return [_csv_row(names, row) for row in rows]


def _csv_row(names: Sequence[str], result: InputResult) -> dict[str, object]:
    summary = result.summary
    by_name = {entry["name"]: entry for entry in summary.get("classes", ())}
    return {
        "input": str(result.path),
        "kind": result.kind,
        "status": result.status,
        "reason": result.reason,
        "tissue_mm2": summary.get("tissue_area_mm2"),
        **{f"{name} mm2": by_name.get(name, {}).get("area_mm2") for name in names},
        **{f"{name} share": by_name.get(name, {}).get("share") for name in names},
        "seconds": summary.get("seconds", {}).get("total"),
        "folder": summary.get("folder"),
        "profile": summary.get("profile"),
    }


def run_document(
    context: Context,
    results: Sequence[InputResult],
    *,
    source: Path,
    left_out: Mapping[str, int],
    started_utc: str,
    interrupted: bool,
    stopped_by: str | None,
) -> dict[str, Any]:
    """The record of a run: settings, versions, and how each input ended."""
    statuses = [r.status for r in results]
    return {
        "source": str(source.absolute()),
        "started_utc": started_utc,
        "finished_utc": now_utc(),
        "interrupted": interrupted,
        "stopped_by": stopped_by,
        "counts": {s: statuses.count(s) for s in ("done", "skipped", "failed")},
        "left_out": dict(left_out),
        **context.provenance(),
        "settings": asdict(context.settings),
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "libraries": library_versions(_LIBRARIES),
        "inputs": [input_entry(r) for r in results],
    }


def input_entry(result: InputResult) -> dict[str, Any]:
    """One input in `run.json`."""
    summary = result.summary
    return {
        "path": str(result.path.absolute()),
        "kind": result.kind,
        "status": result.status,
        "reason": result.reason,
        **{k: summary[k] for k in _RUN_FIELDS if k in summary},
    }
