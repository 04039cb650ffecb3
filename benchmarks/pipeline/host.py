"""Whether a machine keeps up with a GPU: everything but the engine (`sshr-deploy benchmark host`).

A whole run over some slides, the engine replaced by a stand-in, against reading alone by as many
threads. The ways take turns, so that a busy moment of the machine falls on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sshr_deploy.benchmarks.pipeline.runs import Timed, TimedRun, planned, read_alone, run_whole
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.stand_in_session import StandInSession
from sshr_deploy.bundle import Bundle
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.runtime.machine.spread import Ratio, spread_of
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.settings import InferSettings, Mode

READING, NULL, FIXED, GPU = "reading alone", "null", "fixed", "gpu"
_FIXED_OVER_READING = 2.0
"""Time of the session of fixed cost over that of reading a unit, so that the host is faster."""


@dataclass
class _Way:
    """One thing that is timed."""

    call: Callable[[], Timed]
    unit_s: float | None
    """Time that the stand-in takes for a unit; None where there is none."""
    taken: list[Timed] = field(default_factory=list)

    @property
    def samples(self) -> list[float]:
        return [timed.seconds for timed in self.taken]


def measure_host(
    bundle: Bundle,
    source: Path,
    geometry: Geometry,
    recorder: Recorder,
    *,
    patches_per_s: float,
    readers: int | None = None,
    batch: int = 1,
    rounds: int = 5,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Rows of reading alone, and of whole runs with three stand-ins for the engine.

    Args:
        bundle: its profile counts, not its network.
        source: a slide, or a folder of them, which follow one another; read in every round.
        geometry: of the units: patches or fields.
        recorder: gets the rows, anew after each run.
        patches_per_s: speed of the GPU that is played.
        readers: reading threads, None for one a core.
        batch: units a call of the engine.
        rounds: runs of each way; shares of the bound need five.
        on_step: told what comes next.

    Raises:
        InputError: a slide cannot be read, or none has tissue.
        UsageError: there is none.
    """
    readers = readers or usable_cores()
    mode = Mode.REFERENCE if geometry.is_patch else Mode.SEAMLESS
    settings = InferSettings(mode, readers=readers, batch=batch, overwrite=True)

    def context(unit_s: float = 0.0) -> Context:
        session = StandInSession(bundle.manifest.profile.num_classes, geometry, unit_s)
        return Context(bundle, Sessions.of(bundle, session), settings)

    with planned(source, context()) as slides:
        units = sum(len(work.todo) for work in slides)
        facts = [
            {"name": w.path.name, "units": len(w.todo), "unit_mm2": w.unit_mm2} for w in slides
        ]
    recorder.fact("slides", facts)
    read = partial(read_alone, source, context(), readers)
    read_unit_s = read().seconds / units  # warms the file's pages up, too
    gpu_unit_s = (geometry.side_px / PATCH_PX) ** 2 / patches_per_s
    costs = {NULL: 0.0, FIXED: _FIXED_OVER_READING * read_unit_s, GPU: gpu_unit_s}
    ways = {READING: _Way(read, None)}
    for name, unit_s in costs.items():
        ways[name] = _Way(partial(run_whole, source, context(unit_s)), unit_s)
    for turn in range(rounds):
        for name, way in ways.items():
            on_step(f"round {turn + 1} of {rounds}: {name}")
            way.taken.append(way.call())
            recorder.row(_row(name, ways, units, recorder))
    needed = _gpu_needs_cores(ways[NULL], units * gpu_unit_s, recorder.busy())
    for key, value in needed.fields("gpu_needs_cores").items():
        recorder.fact(key, value)


def _gpu_needs_cores(null: _Way, gpu_s: float, busy: str | None) -> Ratio:
    """Processor time of a run without an engine, over the GPU's time for the same slides."""
    cpu = spread_of([timed.cpu_s for timed in null.taken])
    if (why := busy or cpu.busy()) is not None:
        return Ratio(None, f"cores that a GPU needs: {why}")
    return Ratio(cpu.median_ms / gpu_s)


def _row(name: str, ways: dict[str, _Way], units: int, recorder: Recorder) -> Row:
    way = ways[name]
    figures: dict[str, float | None] = {
        "units_per_s": units / float(np.median(way.samples)),
        "cpu_s_per_unit": float(np.median([timed.cpu_s for timed in way.taken])) / units,
    }
    refused = {}
    if way.unit_s is not None:
        share = _share_of_bound(name, ways, units, recorder)
        figures["of_bound"] = share.value
        if share.refused is not None:
            refused["of_bound"] = share.refused
    facts: dict[str, object] = {"unit_s": way.unit_s}
    last = way.taken[-1]
    if isinstance(last, TimedRun):
        facts["bound"] = "its own rate" if way.unit_s else READING
        facts["effort"] = last.effort.model_dump(mode="json")
    return Row(
        name=name,
        unit="s",
        better="lower",
        samples=tuple(way.samples),
        figures=figures,
        refused=refused,
        facts=facts,
    )


def _share_of_bound(name: str, ways: dict[str, _Way], units: int, recorder: Recorder) -> Ratio:
    """Rate over that of reading alone, or over the stand-in's own."""
    way = ways[name]
    if not way.unit_s:
        return recorder.ratio((READING, ways[READING].samples), (name, way.samples), "s")
    spread = spread_of(way.samples)
    if (busy := recorder.busy()) is not None:
        return Ratio(None, busy)
    if (why := spread.busy()) is not None:
        return Ratio(None, f"{name}: {why}")
    return Ratio(units * way.unit_s / spread.median_ms)
