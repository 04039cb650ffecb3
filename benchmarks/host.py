"""Whether a machine keeps up with a GPU: everything but the engine (`sshr-deploy benchmark host`).

A whole run over some slides, the engine replaced by a stand-in, against reading alone by as many
threads. The ways take turns, so that a busy moment of the machine falls on all of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.benchmarks.stand_in_session import StandInSession
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.machine.threads import usable_cores
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.reporting import TileCounter, no_tiles
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.sessions import Sessions
from sshr_deploy.runtime.pipeline.slide import SlideWork, begin_slide
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.settings import InferSettings, Mode

_FIXED_OVER_READING = 2.0
"""Time of the session of fixed cost over that of reading a unit, so that the host is faster."""


@dataclass
class _Way:
    """One thing that is timed."""

    run: Callable[[], dict[str, Any]]
    bound: str
    unit_s: float | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)


def measure_host(
    bundle: Bundle,
    source: Path,
    geometry: Geometry,
    *,
    patches_per_s: float,
    readers: int | None = None,
    batch: int = 1,
    rounds: int = 3,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Units a second of reading alone, and of whole runs with three stand-ins for the engine.

    Args:
        bundle: its profile counts, not its network.
        source: a slide, or a folder of them, which follow one another; read in every round.
        geometry: of the units: patches or fields.
        patches_per_s: speed of the GPU that is played.
        readers: reading threads, None for one a core.
        batch: units a call of the engine.
        rounds: runs of each way.
        on_step: told what comes next.

    Raises:
        InputError: a slide cannot be read, or none has tissue.
        UsageError: there is none.
    """
    readers = readers or usable_cores()
    environment = describe_environment()
    host = _Host(bundle, source, geometry, readers, batch)
    unit_s = host.read_alone()["seconds"] / host.units  # warms the file's pages up, too
    gpu_unit_s = (geometry.side_px / PATCH_PX) ** 2 / patches_per_s
    ways = {
        "reading alone": _Way(host.read_alone, "itself"),
        "null": _Way(lambda: host.run(0.0), "reading alone", 0.0),
        "fixed": _Way(lambda: host.run(_FIXED_OVER_READING * unit_s), "its own rate", 2 * unit_s),
        "gpu": _Way(lambda: host.run(gpu_unit_s), "its own rate", gpu_unit_s),
    }
    for turn in range(rounds):
        for name, way in ways.items():
            on_step(f"round {turn + 1} of {rounds}: {name}")
            way.samples.append(way.run())
    rows = {name: _row(way, host.units) for name, way in ways.items()}
    read_per_s = rows["reading alone"]["units_per_s"]
    for row in rows.values():
        unit_s = row["unit_s"]
        row["of_bound"] = row["units_per_s"] * unit_s if unit_s else row["units_per_s"] / read_per_s
    return {
        "benchmark": "host",
        "environment": environment,
        "slides": host.facts,
        "settings": {
            "side_px": geometry.side_px, "core_px": geometry.core_px, "batch": batch,
            "readers": readers, "rounds": rounds, "gpu_patches_per_s": patches_per_s,
        },
        "rows": rows,
        "gpu_needs_cores": rows["null"]["cpu_s_per_unit"] / gpu_unit_s,
    }  # fmt: skip


class _Host:
    """Slides that are read, and run with stand-ins."""

    def __init__(
        self, bundle: Bundle, source: Path, geometry: Geometry, readers: int, batch: int
    ) -> None:
        self.bundle, self.source, self.geometry = bundle, source, geometry
        self.readers = readers
        mode = Mode.REFERENCE if geometry.is_patch else Mode.SEAMLESS
        self.settings = InferSettings(mode, readers=readers, batch=batch, overwrite=True)
        self.units = 0
        self.facts: list[dict[str, Any]] = []

    def read_alone(self) -> dict[str, Any]:
        """Read the units of a run with its threads, and nothing else."""
        with ExitStack() as stack:
            slides = self._planned(stack)
            pool = stack.enter_context(ThreadPoolExecutor(self.readers))
            watch, cpu_s = Stopwatch(), time.process_time()
            for work in slides:
                for _ in pool.map(work.read, work.todo):
                    pass
            return {"seconds": watch.seconds(), "cpu_s": time.process_time() - cpu_s}

    def run(self, unit_s: float) -> dict[str, Any]:
        """A whole run, from opening the first slide to the last file."""
        with tempfile.TemporaryDirectory() as folder:
            watch, cpu_s = Stopwatch(), time.process_time()
            with prepare_run(self.source, Path(folder), self.settings) as work:
                run = Run(work, self._context(unit_s), TileCounter(no_tiles))
                for result in run:
                    if result.error is not None:
                        raise result.error
            used = {"seconds": watch.seconds(), "cpu_s": time.process_time() - cpu_s}
        return {**used, "effort": run.outcome.document.model_dump(mode="json")["effort"]}

    def _context(self, unit_s: float) -> Context:
        classes = self.bundle.manifest.profile.num_classes
        session = StandInSession(classes, self.geometry, unit_s)
        return Context(self.bundle, Sessions.of(self.bundle, session), self.settings)

    def _planned(self, stack: ExitStack) -> list[SlideWork]:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context = self._context(0.0)
        slides = []
        with prepare_run(self.source, out, self.settings) as work:
            inputs = work.found.inputs
        for index, item in enumerate(inputs):
            folder = out / str(index)
            folder.mkdir()
            begun = begin_slide(item.path, folder, context, "", Ledger(), lambda: None)
            slides.append(stack.enter_context(begun))
        self.facts = [
            {"name": w.path.name, "units": len(w.todo), "unit_mm2": w.unit_mm2} for w in slides
        ]
        self.units = sum(len(w.todo) for w in slides)
        if self.units == 0:
            raise InputError(f"{self.source} has no tissue; give slides that have")
        return slides


def _row(way: _Way, units: int) -> dict[str, Any]:
    seconds, cpu_s = (
        float(np.median([sample[key] for sample in way.samples])) for key in ("seconds", "cpu_s")
    )
    return {
        "units_per_s": units / seconds,
        "cpu_s_per_unit": cpu_s / units,
        "unit_s": way.unit_s,
        "bound": way.bound,
        "samples": way.samples,
    }
