"""Slides from end to end, by stage, beside the engine alone and reading alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sshr_deploy.benchmarks.measuring.memory import PeakMemory
from sshr_deploy.benchmarks.pipeline.day import day_of
from sshr_deploy.benchmarks.pipeline.runs import (
    Timed,
    TimedRun,
    compute_alone,
    in_a_row,
    read_alone,
    run_whole,
)
from sshr_deploy.benchmarks.pipeline.stages import STAGES, limit_of, shares_of, stages_of
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.machine.spread import Ratio, unsteady
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.pipeline.documents import Context

WHOLE, ENGINE, READING = "whole run", "engine alone", "reading alone"
IN_A_ROW = "three slides in a row"
_TIMES = 3
"""A slide in a row, for what each one costs that follows another."""


@dataclass
class _Way:
    call: Callable[[], Timed]
    taken: list[Timed] = field(default_factory=list)

    @property
    def samples(self) -> list[float]:
        return [timed.seconds for timed in self.taken]

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples))

    @property
    def typical(self) -> Timed:
        """Of median length."""
        return sorted(self.taken, key=lambda timed: timed.seconds)[len(self.taken) // 2]


def measure_pipeline(
    context: Context,
    source: Path,
    recorder: Recorder,
    *,
    rounds: int = 5,
    slides_a_day: int | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Rows of a whole run, the engine alone, reading alone, and each stage of the run.

    The ways take turns, after one run that does not count and whose peak memory does. Reading alone
    has the threads that this run chose.

    Args:
        context: bundle, open sessions and settings of the run.
        source: a slide, or a folder of them, which follow one another.
        recorder: gets the rows, anew after each run.
        rounds: of each way; ratios need five.
        slides_a_day: to plan for.
        on_step: told what comes next.

    Raises:
        InputError: a slide cannot be read, or none has tissue.
        UsageError: there is no slide.
        SessionError: the engine fails.
    """
    on_step("a run that does not count")
    with PeakMemory() as memory:
        first = run_whole(source, context)
    info = context.sessions.of_slides(context.mode).info
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            WHOLE: _Way(lambda: run_whole(source, context)),
            ENGINE: _Way(lambda: compute_alone(source, context)),
            READING: _Way(lambda: read_alone(source, context, first.effort.readers)),
        }
        if slides_a_day is not None and first.slides == 1:
            linked = in_a_row(first.paths[0], Path(folder), _TIMES)
            ways[IN_A_ROW] = _Way(lambda: run_whole(linked, context))
        for turn in range(rounds):
            for name, way in ways.items():
                on_step(f"round {turn + 1} of {rounds}: {name}")
                way.taken.append(way.call())
                _record(recorder, ways, info, memory.mb)
            if slides_a_day is not None:
                _record_day(recorder, ways, slides_a_day, info)


def _record(recorder: Recorder, ways: dict[str, _Way], info: SessionInfo, memory_mb: float) -> None:
    run = ways[WHOLE].typical
    assert isinstance(run, TimedRun)
    runs = [each for each in ways[WHOLE].taken if isinstance(each, TimedRun)]
    seconds = ways[WHOLE].median_s
    figures: dict[str, float | None] = {
        "slides_per_h": 3600 * run.slides / seconds,
        "units_per_s": run.units / seconds,
        "mm2_per_s": run.tissue_mm2 / seconds,
        "cores_busy": run.cpu_s / run.seconds,
        "peak_memory_mb": memory_mb,
    }
    refused: dict[str, str] = {}
    for name, other in (("over_engine_alone", ENGINE), ("over_reading_alone", READING)):
        if not ways[other].taken:
            continue
        ratio = _ratio(recorder, ways, other, info)
        figures[name] = ratio.value
        if ratio.refused is not None:
            refused[name] = ratio.refused
    facts = {
        **_engine_facts(info),
        "slides": run.slides,
        "units": run.units,
        "tissue_mm2": run.tissue_mm2,
        "readers": run.effort.readers,
        "readers_chosen_by": run.effort.readers_chosen_by,
        "limit": limit_of(runs),
        "effort": run.effort.model_dump(mode="json"),
    }
    agreement = _agreement(info)
    recorder.row(_row(WHOLE, ways[WHOLE].samples, agreement, figures, refused, facts))
    for name in (ENGINE, READING, IN_A_ROW):
        if name in ways and ways[name].taken:
            of_network = None if name == READING else agreement
            recorder.row(_row(name, ways[name].samples, of_network))
    _record_stages(recorder, runs)


def _record_stages(recorder: Recorder, runs: list[TimedRun]) -> None:
    """Work of each stage in each run; its shares are medians over them."""
    found, shares = [stages_of(run) for run in runs], shares_of(runs)
    for name, about in STAGES.items():
        each = [stages[name] for stages in found]
        pairs = list(zip(each, runs, strict=True))
        figures: dict[str, float | None] = {
            "busy_share": float(np.median([s.busy_s / s.threads / r.seconds for s, r in pairs])),
            "share_of_run": shares[name],
        }
        waited_s = [s.engine_waited_s for s in each if s.engine_waited_s is not None]
        if waited_s:
            figures["engine_waited_s"] = float(np.median(waited_s))
        samples = [stage.busy_s for stage in each]
        facts = {"about": about, "thread": each[0].thread, "threads": each[0].threads}
        recorder.row(_row(f"stage {name}", samples, None, figures, {}, facts))


def _record_day(recorder: Recorder, ways: dict[str, _Way], slides: int, info: SessionInfo) -> None:
    row = ways.get(IN_A_ROW, ways[WHOLE])
    alone, several = ways[WHOLE].typical, row.typical
    assert isinstance(alone, TimedRun) and isinstance(several, TimedRun)
    day = day_of(
        slides,
        alone,
        several,
        cores=usable_cores(),
        first_s=ways[WHOLE].median_s,
        row_s=row.median_s,
        network_s=ways[ENGINE].median_s,
        read_s=ways[READING].median_s,
        refused=_unqualified(info) or recorder.busy() or _why_unsteady(ways),
    )
    recorder.fact("day", day.as_json())


def _unqualified(info: SessionInfo) -> str | None:
    if info.unqualified is None:
        return None
    return f"the network is not qualified here: {info.unqualified}"


def _why_unsteady(ways: dict[str, _Way]) -> str | None:
    reasons = (unsteady(name, way.samples) for name, way in ways.items())
    return next((why for why in reasons if why is not None), None)


def _ratio(recorder: Recorder, ways: dict[str, _Way], other: str, info: SessionInfo) -> Ratio:
    """Time of a whole run over another way's."""
    if other == ENGINE and (why := _unqualified(info)) is not None:
        return Ratio(None, why)
    return recorder.ratio((WHOLE, ways[WHOLE].samples), (other, ways[other].samples), "s")


def _agreement(info: SessionInfo) -> Agreement | None:
    if info.mask_agreement is None:
        return None
    return Agreement(masks=info.mask_agreement, cam_error=None, misses=())


def _engine_facts(info: SessionInfo) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "engine": info.engine,
        "precision": info.precision,
        "library": info.library,
        "device": info.device,
        "threads": info.threads,
        "streams": info.streams,
    }
    return facts if info.unqualified is None else {**facts, "unqualified": info.unqualified}


def _row(
    name: str,
    samples: list[float],
    agreement: Agreement | None,
    figures: dict[str, float | None] | None = None,
    refused: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
) -> Row:
    is_nothing = not all(sample > 0 for sample in samples)
    return Row(
        name=name,
        unit="s",
        better="lower",
        samples=() if is_nothing else tuple(samples),
        not_measured="it had nothing to do in one of the runs" if is_nothing else None,
        agreement=agreement,
        figures=figures or {},
        refused=refused or {},
        facts=facts or {},
    )
