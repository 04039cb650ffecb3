"""Lists of facts on the pages, each a name and a text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sshr_deploy.errors import counted
from sshr_deploy.runtime.report import figures
from sshr_deploy.runtime.results.findings import (
    MaskFacts,
    PatchSummary,
    Provenance,
    SlideSummary,
)
from sshr_deploy.runtime.results.records import RunRecord
from sshr_deploy.runtime.slides import Mpp

Facts = list[tuple[str, str]]


def run_facts(record: RunRecord) -> Facts:
    """Of a run: when, where and with which settings."""
    settings, counts = record.settings, record.counts
    facts = [
        ("Inputs from", record.source),
        ("Time", f"{figures.moment(record.started_utc)}, {_duration(record)}"),
        (
            "Inputs",
            f"{counts.done:,} done, {counts.skipped:,} done earlier, {counts.failed:,} failed",
        ),
        ("Mode", "" if settings.mode is None else settings.mode.value),
        ("Tissue", settings.tissue.value),
        ("Machine", f"{record.machine.platform}, Python {record.machine.python}"),
    ]
    if record.left_out:
        others = ", ".join(f"{number:,} {suffix}" for suffix, number in record.left_out.items())
        facts.append(("Files not read", others))
    if record.effort is not None:
        facts.append(("Limited by", record.effort.limited_by))
    return facts


def input_facts(summary: SlideSummary | PatchSummary) -> Facts:
    """Of a slide or image, and its label map."""
    tiles = summary.tiles
    facts: Facts = []
    if isinstance(summary, SlideSummary):
        slide, mpp = summary.slide, summary.mpp
        width_mm, height_mm = (
            figures.digits(side_px * um / 1000)
            for side_px, um in ((slide.width_px, mpp.x_um), (slide.height_px, mpp.y_um))
        )
        size = f"{_sides(slide.width_px, slide.height_px)}, {width_mm} × {height_mm} mm"
        facts.append(("Size", f"{size}, {counted(slide.levels, 'level')}"))
    facts.append(("Pixel size", _pixel_size(summary.mpp)))
    facts.append(("Mask", _mask(summary.mask)))
    if isinstance(summary, SlideSummary):
        unit = "tile" if summary.key.get("mode") == "reference" else "field"
        facts.append(
            ("Computed", f"{tiles.computed:,} of {counted(tiles.total, unit)}: those with tissue")
        )
        facts.append(("Regions", f"{summary.regions:,}"))
        facts.append(("Read by", summary.slide.reader))
        if summary.fit is not None:
            facts.append(("Fit", f"{summary.fit.words} (score {summary.fit.score:.2f})"))
        facts.append(("Limited by", summary.effort.limited_by))
    else:
        facts.append(("Parts", f"{tiles.total:,}"))
        if summary.large is not None:
            facts.append(("Taken as", summary.large.value))
    return [(name, text) for name, text in facts if text]


def origin_facts(summary: Provenance) -> Facts:
    """Engine and model of a result."""
    engine, bundle = summary.engine, summary.bundle
    facts = [
        ("Engine", f"{engine.engine} {engine.precision}"),
        ("Library", engine.library),
        ("Device", engine.device),
        ("Threads", "" if engine.threads is None else str(engine.threads)),
        ("Streams", "" if engine.streams is None else str(engine.streams)),
        ("Agreement", _agreement(engine.mask_agreement)),
        ("Not qualified", engine.unqualified or ""),
        *(("Note", note) for note in engine.notes),
        ("Model", bundle.path),
        ("Manifest", bundle.manifest_sha256),
        ("Checkpoint", bundle.checkpoint_sha256),
        ("Profile", summary.profile),
        ("Trained as", _relabelled(summary)),
        ("sshr-deploy", summary.sshr_deploy),
    ]
    if bundle.adaptation is not None:
        when = figures.moment(bundle.adaptation.adapted_utc)
        facts.append(("Adapted to", f"{bundle.adaptation.source}, {when}"))
    return [(name, text) for name, text in facts if text]


def _duration(record: RunRecord) -> str:
    try:
        started, finished = map(datetime.fromisoformat, (record.started_utc, record.finished_utc))
    except ValueError:
        return figures.NONE
    return figures.seconds((finished - started).total_seconds())


def _sides(width_px: int, height_px: int) -> str:
    return f"{width_px:,} × {height_px:,} px"


def _pixel_size(mpp: Mpp | None) -> str:
    if mpp is None:
        return "not given, so that there are no areas"
    source = "from the file" if mpp.source == "file" else mpp.source
    return f"{figures.pixel_size(mpp)}, {source}"


def _mask(mask: MaskFacts) -> str:
    size = "" if mask.mpp_um is None else f" of {mask.mpp_um:.4g} µm"
    return _sides(mask.width_px, mask.height_px) + size


def _agreement(part: float | None) -> str:
    return (
        "" if part is None else f"{figures.agreement(part)} of mask pixels equal to the reference's"
    )


def _relabelled(summary: Provenance) -> str:
    known = summary.relabelled_from
    if known is None:
        return ""
    classes: Sequence[str] = known.get("classes", ())
    return f"{known.get('profile', '')}: {', '.join(classes)}"
