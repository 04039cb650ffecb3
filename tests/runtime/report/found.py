"""Results as runs find them, built without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.results.findings import (
    BundleFacts,
    Effort,
    MaskFacts,
    PatchClass,
    PatchSummary,
    SlideClass,
    SlideFacts,
    SlideSummary,
    Source,
    Tiles,
)
from sshr_deploy.runtime.results.records import Counts, Machine, RunRecord
from sshr_deploy.runtime.results.table import ResultRow
from sshr_deploy.runtime.settings import InferSettings, Mode
from sshr_deploy.runtime.slides import Mpp

SHARES = {"tumour": 0.25, "stroma": 0.75, "normal": 0.0}

_PROVENANCE: dict[str, Any] = {
    "sshr_deploy": "0.1.0",
    "profile": "wsss4luad",
    "relabelled_from": None,
    "engine": SessionInfo(
        "onnx-cpu", "fp32", "a processor", "onnxruntime 1.30.0", mask_agreement=0.99999
    ),
    "bundle": BundleFacts(
        path="/models/lung",
        manifest_sha256="ab" * 32,
        files_sha256={},
        checkpoint_sha256="cd" * 32,
        model_metadata={},
    ),
}


def slide_summary(name: str = "1.svs", folder: str | None = None, **changes: Any) -> SlideSummary:
    """A slide of 2 mm² of tissue, in the classes of the profile wsss4luad."""
    parts: dict[str, Any] = {
        "schema_version": 1,
        "input": Source(path=f"/in/{name}", kind="slide"),
        "finished_utc": "2026-11-28T10:51:31+00:00",
        "folder": name if folder is None else folder,
        "slide": SlideFacts(reader="openslide", width_px=4000, height_px=2000, levels=3),
        "mpp": Mpp(0.5, 0.5, "file"),
        "mask": MaskFacts(width_px=2000, height_px=1000, mpp_um=1.0),
        "tiles": Tiles(computed=3, total=4),
        "stain_concern": None,
        "tissue_area_mm2": 2.0,
        "classes": tuple(
            SlideClass(label=i, name=n, pixels=1, share=share, area_mm2=2 * share)
            for i, (n, share) in enumerate(SHARES.items())
        ),
        "regions": 7,
        "files": {"mask.ome.tif": 1234, "overlay.png": 5678},
        "seconds": {"open": 0.1, "infer": 60.0, "total": 75.0},
        "effort": Effort(busy_s={}, engine_waited_s={}, limited_by="engine"),
        "key": {"mode": "seamless"},
        **_PROVENANCE,
    }
    return SlideSummary(**parts | changes)


def patch_summary(name: str = "1.png", **changes: Any) -> PatchSummary:
    """An image without a pixel size, whose last class is off."""
    slide = dict(slide_summary(name))
    kept = ("schema_version", "finished_utc", "folder", "mask", "tiles", "seconds", "key")
    parts: dict[str, Any] = {
        **{field: slide[field] for field in kept},
        "input": Source(path=f"/in/{name}", kind="patch"),
        "mpp": None,
        "large": None,
        "stain_concern": None,
        "tissue_area_mm2": None,
        "classes": tuple(
            PatchClass(label=i, name=n, pixels=1, share=s, area_mm2=None, probability=s, on=s > 0)
            for i, (n, s) in enumerate(SHARES.items())
        ),
        "files": {"mask.png": 12, "overlay.png": 34},
        **_PROVENANCE,
    }
    return PatchSummary(**parts | changes)


def row_of(summary: SlideSummary | PatchSummary, *files: str) -> ResultRow:
    """Its row in the table; `files` are in its folder."""
    return ResultRow.of(Path(summary.input.path), summary.folder, summary, files)


def record(**changes: Any) -> RunRecord:
    """Of a run that took two minutes."""
    parts: dict[str, Any] = {
        "schema_version": 1,
        "source": "/in",
        "started_utc": "2026-11-28T10:50:00+00:00",
        "finished_utc": "2026-11-28T10:52:00+00:00",
        "interrupted": False,
        "stopped_by": None,
        "counts": Counts(done=8, skipped=0, failed=1),
        "left_out": {".txt": 3},
        "settings": InferSettings(Mode.SEAMLESS),
        "machine": Machine(platform="Linux", python="3.11.7"),
        "libraries": {},
        "effort": None,
        "inputs": (),
        "failed_earlier": (),
        **_PROVENANCE,
    }
    return RunRecord(**parts | changes)
