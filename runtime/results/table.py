"""The table of a results folder: one row for each result, and for each input that failed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.results.file_names import REPORT_NAME, SMALL_PICTURES
from sshr_deploy.runtime.results.findings import (
    Kind,
    OtherSummary,
    SlideSummary,
    SlideWarning,
    StageSeconds,
    Summary,
    warnings_of,
)
from sshr_deploy.runtime.results.records import FailedInput, ResultsTable, TableInput
from sshr_deploy.runtime.slides import Mpp


@dataclass(frozen=True)
class Origin:
    """Model, engine and mode of a result."""

    engine: str
    """With its precision, "onnx-cpu fp32"."""
    library: str
    device: str
    mask_agreement: float | None
    """Share of mask pixels equal to the reference's; None if unknown."""
    unqualified: str | None
    """Why it ran although nothing shows that it equals the reference."""
    mode: str
    bundle: str
    """Name of its folder."""
    manifest_sha256: str

    @classmethod
    def of(cls, summary: Summary) -> Origin | None:
        """None for a result of another release of this package."""
        if isinstance(summary, OtherSummary):
            return None
        engine = summary.engine
        return cls(
            engine=f"{engine.engine} {engine.precision}",
            library=engine.library,
            device=engine.device,
            mask_agreement=engine.mask_agreement,
            unqualified=engine.unqualified,
            mode=str(summary.key.get("mode", "")),
            bundle=Path(summary.bundle.path).name,
            manifest_sha256=summary.bundle.manifest_sha256,
        )


@dataclass(frozen=True)
class ResultRow:
    """The part of a summary that the table has; all of it would take far more memory."""

    path: Path
    kind: Kind
    folder: str
    """Relative to the results of the run."""
    finished_utc: str
    profile: str | None
    mpp: Mpp | None
    areas_mm2: dict[str, float | None]
    """By class."""
    shares: dict[str, float]
    """Of the pixels of all classes, by class."""
    tissue_area_mm2: float | None
    seconds: StageSeconds
    fit: str | None
    """Verdict on a slide whose look was measured."""
    fit_words: str = ""
    """The verdict as a sentence."""
    warnings: tuple[SlideWarning, ...] = ()
    """Reasons to look at it."""
    origin: Origin | None = None
    pictures: tuple[str, ...] = ()
    """Names of the thumbnail and the small overlay, where they are in the folder."""
    has_page: bool = False
    """The folder has its own `report.html`."""

    @classmethod
    def of(
        cls, path: Path, folder: str, summary: Summary, files: Collection[str] = ()
    ) -> ResultRow:
        """Row of the input at `path`; `files` are the names in its folder."""
        fit = summary.fit if isinstance(summary, SlideSummary) else None
        return cls(
            path=path,
            kind=summary.input.kind,
            folder=folder,
            finished_utc=summary.finished_utc,
            profile=summary.profile,
            mpp=summary.mpp,
            areas_mm2={entry.name: entry.area_mm2 for entry in summary.classes},
            shares={entry.name: entry.share for entry in summary.classes},
            tissue_area_mm2=summary.tissue_area_mm2,
            seconds=summary.seconds,
            fit=None if fit is None else fit.verdict,
            fit_words="" if fit is None else fit.words,
            warnings=warnings_of(summary),
            origin=Origin.of(summary),
            pictures=tuple(name for name in SMALL_PICTURES if name in files),
            has_page=REPORT_NAME in files,
        )


@dataclass(frozen=True)
class FailedRow:
    """An input that was not done."""

    path: Path
    kind: Kind | None
    reason: str


Row = ResultRow | FailedRow


def sorted_rows(rows: Iterable[Row]) -> list[Row]:
    """By path, then by the folder of the result."""
    return sorted(rows, key=lambda r: (r.path.parts, r.folder if isinstance(r, ResultRow) else ""))


def results_table(rows: Sequence[Row]) -> ResultsTable:
    """The table as `run.json` has it."""
    done = sum(isinstance(row, ResultRow) for row in rows)
    return ResultsTable(done=done, failed=len(rows) - done, inputs=tuple(map(_entry, rows)))


def csv_rows(profile: Profile, rows: Sequence[Row]) -> list[dict[str, object]]:
    """The table as `summary.csv` has it; area columns are named after the classes, in mm2."""
    names = class_names(profile, rows)
    return [_csv_row(names, row) for row in rows]


def class_names(profile: Profile, rows: Sequence[Row]) -> list[str]:
    """The classes of `profile`, then those that other bundles left in the folder."""
    met = (name for row in rows if isinstance(row, ResultRow) for name in row.shares)
    return list(dict.fromkeys([*profile.class_names, *met]))


def _entry(row: Row) -> TableInput | FailedInput:
    path = str(row.path.absolute())
    if isinstance(row, FailedRow):
        return FailedInput(path=path, kind=row.kind, status="failed", reason=row.reason)
    return TableInput(
        path=path,
        kind=row.kind,
        status="done",
        reason="",
        folder=row.folder,
        mpp=row.mpp,
        seconds=row.seconds,
    )


def _csv_row(names: Sequence[str], row: Row) -> dict[str, object]:
    done = row if isinstance(row, ResultRow) else None
    return {
        "input": str(row.path),
        "kind": row.kind,
        "status": "failed" if isinstance(row, FailedRow) else "done",
        "reason": row.reason if isinstance(row, FailedRow) else "",
        "tissue_mm2": done and done.tissue_area_mm2,
        **{f"{name} mm2": done and done.areas_mm2.get(name) for name in names},
        **{f"{name} share": done and done.shares.get(name) for name in names},
        "seconds": done and done.seconds.get("total"),
        "folder": done and done.folder,
        "profile": done and done.profile,
        "fit": done and done.fit,
        "warnings": done and " ".join(warning.code for warning in done.warnings),
    }
