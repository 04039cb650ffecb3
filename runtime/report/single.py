"""`report.html` of one input, in the folder of its results."""

from __future__ import annotations

from pathlib import Path

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.report.facts import input_facts, origin_facts
from sshr_deploy.runtime.report.pages import page, write_page
from sshr_deploy.runtime.report.parts import parts_of
from sshr_deploy.runtime.results.file_names import (
    OVERLAY_2X_NAME,
    OVERLAY_NAME,
    REPORT_NAME,
    SUMMARY_NAME,
)
from sshr_deploy.runtime.results.findings import (
    OtherSummary,
    PatchSummary,
    SlideSummary,
    Summary,
    warnings_of,
)

_LEAST_WAITING = 0.01
"""Of its time, that an input waited for others, to be told."""


def write_input_page(folder: Path, summary: Summary, profile: Profile) -> None:
    """Write the page of an input into the folder of its results.

    There is none for a result of another release of this package, which says too little.

    Args:
        folder: of the results.
        summary: what is found.
        profile: has the colours of the classes.

    Raises:
        OutputError: it cannot be written.
    """
    if not isinstance(summary, OtherSummary):
        write_page(folder / REPORT_NAME, lambda: input_page(summary, profile))


def input_page(summary: SlideSummary | PatchSummary, profile: Profile) -> str:
    """The page as HTML; see `write_input_page`."""
    names = [entry.name for entry in summary.classes]
    stages = dict(summary.seconds)
    total_s = stages.pop("total", sum(stages.values()))
    waiting_s = total_s - sum(stages.values())
    if waiting_s >= _LEAST_WAITING * total_s:
        stages["waiting"] = waiting_s
    files = summary.files
    return page(
        "single.html",
        names,
        profile,
        summary=summary,
        name=Path(summary.input.path).name,
        home="../" * len(Path(summary.folder).parts) + REPORT_NAME,
        parts=parts_of(
            names,
            {entry.name: entry.share for entry in summary.classes},
            {entry.name: entry.area_mm2 for entry in summary.classes},
        ),
        warnings=warnings_of(summary),
        overlay=OVERLAY_NAME if OVERLAY_NAME in files else None,
        finest=OVERLAY_2X_NAME if OVERLAY_2X_NAME in files else OVERLAY_NAME,
        facts=input_facts(summary),
        origin=origin_facts(summary),
        stages=stages,
        total_s=total_s,
        files=[*files.items(), (SUMMARY_NAME, None)],
    )
