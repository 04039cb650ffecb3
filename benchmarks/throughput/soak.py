"""Whether an engine holds its rate: windows of ten seconds, with heat, clocks and power."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import psutil

from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.throughput.energy import EnergyMeter
from sshr_deploy.benchmarks.throughput.engine import BundleEngine, engine_facts, refusal
from sshr_deploy.benchmarks.throughput.rates import Load, rate_figures, rate_row, refused_row
from sshr_deploy.benchmarks.throughput.slide_amount import Amount, input_mm2
from sshr_deploy.runtime.machine.nvml import gpu_loads
from sshr_deploy.runtime.machine.spread import ratio_of
from sshr_deploy.runtime.masks import mask_rule

WINDOW_S = 10.0
_ENDS = 3
"""The first and the last third are compared."""
_TREND = "last_over_first"
_PACKAGE_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


def measure_soak(
    engine: BundleEngine,
    recorder: Recorder,
    *,
    batch: int,
    streams: int | None,
    minutes: float,
    amount: Amount,
    window_s: float = WINDOW_S,
) -> None:
    """Compute without a pause for `minutes`; one row, whose samples are the rates of windows.

    Its facts have a list `windows` with when each ended, its rate, and what the machine told of
    itself then. The row is recorded anew with each window, so that an interruption loses none.

    Args:
        engine: of a bundle for patches, or for fields.
        recorder: of the document.
        batch: inputs of a call.
        streams: calls at the same time; None chooses.
        minutes: how long.
        amount: of the slide that slides an hour are told for.
        window_s: seconds of a window.

    Raises:
        SessionError: the engine cannot be opened, or fails.
        InputError, UsageError: the slide cannot be planned.
    """
    with engine.open(batch, streams) as session:
        agreement = engine.judge(session)
        if (why := refusal(agreement, engine)) is not None:
            recorder.row(refused_row("soak", session.geometry, why, agreement))
            return
        slide = amount(session)
        load = Load.of(session, batch, mask_rule(engine.bundle.manifest.profile))
        facts = {"batch": batch, **engine_facts(session, agreement)}
        covers = input_mm2(session.geometry, engine.bundle.manifest.profile.mpp_um)
        windows: list[dict[str, Any]] = []
        for window in _windows(load, recorder, minutes * 60, window_s):
            windows.append(window)
            rates = [window["inputs_per_s"] for window in windows]
            trend, refused = _trend(rates, recorder.busy())
            figures = rate_figures(float(np.median(rates)), covers, slide, _mean_watts(windows))
            row = rate_row(
                "soak",
                session.geometry,
                rates,
                agreement,
                {**figures, _TREND: trend},
                {**facts, "windows": windows},
                {} if refused is None else {_TREND: refused},
            )
            recorder.row(row)


def _windows(
    load: Load, recorder: Recorder, seconds: float, window_s: float
) -> Iterator[dict[str, Any]]:
    clock = time.perf_counter
    count, meter = load.batches_a_sample(), EnergyMeter()
    for reason in meter.unreadable:
        recorder.note(f"energy: {reason}")
    started, joules = clock(), meter.joules()
    until_s = 0.0
    while until_s < seconds:
        begun, inputs, spent_s = clock(), 0, 0.0
        while inputs == 0 or spent_s < window_s:
            load.run(count)
            inputs += count * len(load.inputs)
            spent_s = clock() - begun
        before, joules, until_s = joules, meter.joules(), clock() - started
        yield {
            "until_s": round(until_s, 3),
            "inputs_per_s": inputs / spent_s,
            "watts": {part: (joules[part] - before[part]) / spent_s for part in joules},
            **_machine_now(),
        }


def _mean_watts(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    parts = windows[0]["watts"]
    return {part: sum(w["watts"][part] for w in windows) / len(windows) for part in parts}


def _trend(rates: Sequence[float], busy: str | None) -> tuple[float | None, str | None]:
    """The last third's rate over the first's, below 1 where it became slower; or why not."""
    third = len(rates) // _ENDS
    if busy is not None:
        return None, busy
    if third == 0:
        return None, f"{len(rates)} windows are too few for a trend"
    ratio = ratio_of(("last third", rates[-third:]), ("first third", rates[:third]))
    return ratio.value, ratio.refused


def _machine_now() -> dict[str, Any]:
    frequency = getattr(psutil, "cpu_freq", lambda: None)()
    return {
        "cpu_mhz": None if frequency is None else frequency.current,
        "cpu_celsius": _cpu_celsius(),
        "gpus": [asdict(gpu) for gpu in gpu_loads()],
    }


def _cpu_celsius() -> float | None:
    """Of the hottest sensor of the processor; None where the system has none."""
    with suppress(OSError, AttributeError):  # psutil has it for Linux and FreeBSD
        sensors = psutil.sensors_temperatures()
        found = [s.current for name in _PACKAGE_SENSORS for s in sensors.get(name, ())]
        return max(found, default=None)
    return None
