"""The same slides run whole, only read, and only computed, each by the product's own parts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.runtime.engines.kind import inputs_for
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.reporting import TileCounter, no_tiles
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.slide import SlideWork, begin_slide
from sshr_deploy.runtime.pipeline.sources import Sources
from sshr_deploy.runtime.pipeline.work import checked_inputs, prepare_run
from sshr_deploy.runtime.results.findings import SlideSummary
from sshr_deploy.runtime.results.records import RunEffort
from sshr_deploy.runtime.slides import companions

_HELD_BYTES = 256 << 20
"""Of pixels that are computed alone: they are read before, and lie in memory."""


@dataclass(frozen=True)
class Timed:
    """Once through the slides, in seconds."""

    seconds: float
    cpu_s: float
    """Of all threads."""


@dataclass(frozen=True)
class TimedRun(Timed):
    """A whole run, from opening the first slide to the last file."""

    effort: RunEffort
    units: int
    """Tiles or fields."""
    tissue_mm2: float
    paths: tuple[Path, ...]
    """Of the slides."""

    @property
    def slides(self) -> int:
        """How many there are."""
        return len(self.paths)


@contextmanager
def planned(source: Path, context: Context) -> Iterator[list[SlideWork]]:
    """The slides of `source`, open, with their tiles or fields.

    Raises:
        InputError: one cannot be read, or none has tissue.
        UsageError: there is none.
    """
    with ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inputs = checked_inputs(Sources((source,)), out, context.settings).inputs
        slides = []
        for index, item in enumerate(inputs):
            folder = out / str(index)
            folder.mkdir()
            begun = begin_slide(
                item.path, folder, context, "", Ledger(), lambda: None, item.relative
            )
            slides.append(stack.enter_context(begun))
        if not any(work.todo for work in slides):
            raise InputError(f"{source} has no tissue; give slides that have")
        yield slides


def run_whole(source: Path, context: Context) -> TimedRun:
    """As `infer` does, but that the engine is open.

    Raises:
        InputError: a slide cannot be read.
        UsageError: there is none, or there are images as well.
        SessionError: the engine fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        watch, cpu_s = Stopwatch(), time.process_time()
        with prepare_run(source, Path(folder), context.settings) as work:
            run = Run(work, context, TileCounter(no_tiles))
            results = list(run)
        seconds, cpu_s = watch.seconds(), time.process_time() - cpu_s
    for result in results:
        if result.error is not None:
            raise result.error
    found = [r.summary for r in results if isinstance(r.summary, SlideSummary)]
    effort = run.outcome.document.effort
    if effort is None or len(found) < len(results):
        raise UsageError(f"{source} holds images; give a slide, or a folder of slides alone")
    units = sum(summary.tiles.computed for summary in found)
    area = sum(summary.tissue_area_mm2 for summary in found)
    return TimedRun(seconds, cpu_s, effort, units, area, tuple(Path(s.input.path) for s in found))


def read_alone(source: Path, context: Context, readers: int) -> Timed:
    """Read the tiles or fields of a run by so many threads, and nothing else."""
    with planned(source, context) as slides, ThreadPoolExecutor(readers) as pool:
        watch, cpu_s = Stopwatch(), time.process_time()
        for work in slides:
            for _ in pool.map(work.read, work.todo):
                pass
        return Timed(watch.seconds(), time.process_time() - cpu_s)


def compute_alone(source: Path, context: Context) -> Timed:
    """The network on the batches of a run, which are read before, by the stream that slides take.

    Of a large source the first batches, their time scaled to all pixels.
    """
    session = context.sessions.of_slides(context.mode)
    rule = mask_rule(context.profile) if session.geometry.is_patch else None
    with planned(source, context) as slides:
        batches, share = _batches(slides, inputs_for(context.settings.batch, session.geometry))
    watch, cpu_s = Stopwatch(), time.process_time()
    for _ in session.stream(enumerate(batches), rule):
        pass
    return Timed(watch.seconds() / share, (time.process_time() - cpu_s) / share)


def in_a_row(source: Path, folder: Path, times: int) -> Path:
    """A folder below `folder` with a slide so many times, as links."""
    for index in range(times):
        place = folder / str(index)
        place.mkdir()
        for file in {source, *companions(source)}:
            (place / file.name).symlink_to(file.absolute())
    return folder


def _batches(slides: list[SlideWork], most: int) -> tuple[list[NDArray[np.uint8]], float]:
    """Batches of one slide and size each as in a run, and their share of all pixels."""
    batches: list[NDArray[np.uint8]] = []
    held, total = 0, 0
    for work in slides:
        total += 3 * sum(map(work.units.input_px, work.todo))
        for _, alike in groupby(work.todo, key=lambda unit: unit[2:]):
            units = list(alike)
            for first in range(0, len(units), most):
                if held >= _HELD_BYTES:
                    break
                batches.append(np.stack([work.read(u) for u in units[first : first + most]]))
                held += batches[-1].nbytes
    return batches, held / total
