"""Whether an engine holds its rate: windows of ten seconds, with heat, clocks and power."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from sshr_deploy.benchmarks.report.bootstrap import ratio_interval
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.throughput.energy import EnergyMeter
from sshr_deploy.benchmarks.throughput.engine import BundleEngine, engine_facts, refusal
from sshr_deploy.benchmarks.throughput.machine_watch import MachineWatch
from sshr_deploy.benchmarks.throughput.rates import Load, rate_figures, rate_row, refused_row
from sshr_deploy.benchmarks.throughput.slide_amount import Amount, input_mm2
from sshr_deploy.runtime.engines.kinds import default_batch

WINDOW_S = 10.0
_ENDS = 3
"""The first and the last third are compared."""
TREND = "last_over_first"
"""Its figure, with `_low` and `_high` behind it those of its interval."""
_FEWEST = 5
"""Windows of a third; fewer have no interval to speak of."""


def measure_soak(
    engine: BundleEngine,
    recorder: Recorder,
    *,
    batch: int | None,
    streams: int | None,
    minutes: float,
    amount: Amount,
) -> None:
    """Compute without a pause for `minutes`; one row, whose samples are the rates of windows.

    Its facts have a list `windows` with when each ended, its rate, and what the machine told of
    itself meanwhile. The row is recorded anew with each window, so that an interruption loses none.

    Args:
        engine: of a bundle for patches, or for fields.
        recorder: of the document.
        batch: inputs of a call; None takes as many as a run does.
        streams: calls at the same time; None chooses.
        minutes: how long.
        amount: of the slide that slides an hour are told for.

    Raises:
        SessionError: the engine cannot be opened, or fails.
        InputError, UsageError: the slide cannot be planned.
    """
    with engine.open(batch, streams) as session:
        agreement = engine.judge(session)
        if (why := refusal(agreement, engine)) is not None:
            recorder.row(refused_row("soak", session.geometry, why, agreement))
            return
        size = batch or default_batch(session.info.engine, session.geometry)
        slide = amount(session)
        if slide is not None:
            recorder.fact("slide", asdict(slide))
        load = Load.of(session, engine.bundle, size)
        facts = {"batch": size, "streams": session.info.streams}
        facts |= engine_facts(session, agreement)
        covers = input_mm2(session.geometry, engine.bundle.manifest.profile.mpp_um)
        windows: list[dict[str, Any]] = []
        for window in _windows(load, recorder, EnergyMeter(gpu=engine.gpu(session)), minutes * 60):
            windows.append(window)
            rates = [window["inputs_per_s"] for window in windows]
            busy = recorder.busy()
            trend, refused = _trend(rates, busy)
            figures = rate_figures(float(np.median(rates)), covers, slide, _mean_watts(windows))
            row = rate_row(
                "soak",
                session.geometry,
                rates,
                agreement,
                {**figures, **trend},
                {**facts, "windows": windows},
                busy,
            )
            if refused is not None:
                row = row.model_copy(update={"refused": {**row.refused, TREND: refused}})
            recorder.row(row)


def _windows(
    load: Load, recorder: Recorder, meter: EnergyMeter, seconds: float
) -> Iterator[dict[str, Any]]:
    clock = time.perf_counter
    with MachineWatch() as watch:
        count, until_s = load.batches_a_sample(), 0.0
        started = clock()
        while until_s < seconds:
            before, begun, inputs, spent_s = meter.joules(), clock(), 0, 0.0
            while inputs == 0 or spent_s < WINDOW_S:
                load.run(count)
                inputs += count * len(load.inputs)
                spent_s = clock() - begun
            joules, until_s = meter.joules(), clock() - started
            for reason in meter.unreadable:
                recorder.note(f"energy: {reason}")
            yield {
                "until_s": round(until_s, 3),
                "inputs_per_s": inputs / spent_s,
                "watts": {
                    part: (joules[part] - before[part]) / spent_s
                    for part in joules
                    if part in before
                },
                **watch.take(),
            }


def _mean_watts(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the windows in which it could be read."""
    watts: dict[str, list[float]] = {}
    for window in windows:
        for part, watt in window["watts"].items():
            watts.setdefault(part, []).append(watt)
    return {part: fmean(found) for part, found in watts.items()}


def _trend(rates: Sequence[float], busy: str | None) -> tuple[dict[str, float | None], str | None]:
    """The last third's rate over the first's, below 1 where it became slower; or why not.

    With the interval in which it lies with 95 %: where that holds 1, the engine holds its rate.
    """
    third = len(rates) // _ENDS
    ends = (f"{TREND}_low", f"{TREND}_high")
    if third < _FEWEST or busy is not None:
        few = f"{len(rates)} windows are too few for a trend"
        return dict.fromkeys((TREND, *ends)), busy or few
    last, first = rates[-third:], rates[:third]
    ratio = float(np.median(last) / np.median(first))
    return {TREND: ratio, **dict(zip(ends, ratio_interval(last, first), strict=True))}, None
