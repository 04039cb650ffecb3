"""The inputs of a results folder, by numbers: requests name a number, never a path."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from sshr_deploy.runtime.pipeline.result_folders import read_summary, result_folders_below
from sshr_deploy.runtime.results.file_names import RUN_NAME, SUMMARY_NAME
from sshr_deploy.runtime.results.findings import (
    FileText,
    Kind,
    PatchClass,
    PatchSummary,
    SlideClass,
    SlideSummary,
    Summary,
    warnings_of,
)

_FRESH_S = 2.0
"""The folder is not searched again within that time."""
_KEY_DIGITS = 16

_Signature = tuple[int, int]
"""Time of the last change of a file, in ns, and its bytes."""


@dataclass(frozen=True)
class Entry:
    """One input with results."""

    id: int
    """The same as long as the server runs."""
    key: str
    """The same in every run of the viewer: links name it, not the slide."""
    source: Path
    """The file that was segmented."""
    fingerprint: str | None
    """Of that file, see `fingerprint_of`; None where the summary has none."""
    kind: Kind
    folder: Path
    """Of its results."""
    version: str
    """Another one when it was computed again."""
    size_px: tuple[int, int]
    """Width and height of the slide at level 0, or of the image."""
    l0_px_per_mask_px: tuple[float, float]
    """Pixels of those along one pixel of the mask, in x and y."""
    classes: tuple[SlideClass | PatchClass, ...]
    tissue_area_mm2: float | None
    warnings: int
    """How many reasons there are to look at it."""
    files: frozenset[str]
    """Names of its result files."""


@dataclass(frozen=True)
class NotShown:
    """An input without results that can be shown."""

    path: str
    reason: str


class _Ended(BaseModel):
    path: FileText
    status: str
    reason: FileText = ""


class _Table(BaseModel):
    inputs: list[_Ended]


class _Run(BaseModel):
    """Fields that are read of `run.json`, whichever release wrote it."""

    folder: _Table


class Catalogue:
    """What a results folder holds; it is searched again while others write there."""

    def __init__(self, root: Path) -> None:
        """Search `root`."""
        self._root = root
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._read: dict[str, tuple[_Signature, Entry | NotShown]] = {}
        self._entries: dict[int, Entry] = {}
        self._not_shown: list[NotShown] = []
        self._searched_s = -_FRESH_S
        self.refresh()

    def refresh(self) -> None:
        """Search the folder again unless that was just done; only changed summaries are read."""
        with self._lock:
            if time.monotonic() - self._searched_s < _FRESH_S:
                return
            self._search()
            self._searched_s = time.monotonic()

    def entries(self) -> Sequence[Entry]:
        """By path of their inputs."""
        return sorted(self._entries.values(), key=lambda e: (e.source.parts, e.folder.parts))

    def not_shown(self) -> Sequence[NotShown]:
        """Inputs that failed, and results of releases that this one does not know."""
        return self._not_shown

    def entry(self, number: int) -> Entry:
        """The input of that number.

        Raises:
            LookupError: there is none.
        """
        if number not in self._entries:
            raise LookupError(f"there is no input {number}")
        return self._entries[number]

    def _search(self) -> None:
        found: dict[str, tuple[_Signature, Entry | NotShown]] = {}
        for folder, _ in result_folders_below(self._root):
            relative = folder.relative_to(self._root).as_posix()
            try:
                facts = (folder / SUMMARY_NAME).stat()
            except OSError:  # it is being replaced
                continue
            signature = facts.st_mtime_ns, facts.st_size
            known = self._read.get(relative)
            if known is not None and known[0] == signature:
                found[relative] = known
            elif (summary := read_summary(folder)) is not None:
                found[relative] = signature, self._entry(relative, folder, summary, signature)
        self._read = found
        read = [item for _, item in found.values()]
        self._entries = {entry.id: entry for entry in read if isinstance(entry, Entry)}
        done = {str(entry.source) for entry in self._entries.values()}
        failed = [failure for failure in _failures(self._root) if failure.path not in done]
        self._not_shown = [*failed, *(item for item in read if isinstance(item, NotShown))]

    def _entry(
        self, relative: str, folder: Path, summary: Summary, signature: _Signature
    ) -> Entry | NotShown:
        if not isinstance(summary, SlideSummary | PatchSummary):
            reason = "made by another release of sshr-deploy; run infer on it again"
            return NotShown(summary.input.path, reason)
        mask_px = summary.mask.width_px, summary.mask.height_px
        size_px, scale = mask_px, (1.0, 1.0)
        if isinstance(summary, SlideSummary):
            size_px = summary.slide.width_px, summary.slide.height_px
            mpp_um = summary.mask.mpp_um or summary.mpp.x_um
            if min(mpp_um, summary.mpp.x_um, summary.mpp.y_um) <= 0:
                reason = "its summary.json states no pixel size; run infer on it again"
                return NotShown(summary.input.path, reason)
            scale = mpp_um / summary.mpp.x_um, mpp_um / summary.mpp.y_um
        fingerprint = summary.key.get("input_fingerprint")
        digest = hashlib.sha256(relative.encode("utf-8", "surrogatepass")).hexdigest()
        return Entry(
            id=self._ids.setdefault(relative, len(self._ids) + 1),
            key=digest[:_KEY_DIGITS],
            source=Path(summary.input.path),
            fingerprint=fingerprint if isinstance(fingerprint, str) else None,
            kind=summary.input.kind,
            folder=folder,
            version="-".join(map(str, signature)),
            size_px=(max(1, size_px[0]), max(1, size_px[1])),
            l0_px_per_mask_px=scale,
            classes=summary.classes,
            tissue_area_mm2=summary.tissue_area_mm2,
            warnings=len(warnings_of(summary)),
            files=frozenset(summary.files),
        )


def _failures(root: Path) -> list[NotShown]:
    """Inputs that failed and were not done since, by the latest run."""
    try:
        run = _Run.model_validate(json.loads((root / RUN_NAME).read_bytes()))
    except (OSError, ValueError, RecursionError):  # ValueError: of json and of pydantic
        return []
    return [NotShown(i.path, i.reason) for i in run.folder.inputs if i.status == "failed"]
