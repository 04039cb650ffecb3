"""One slide under way: planned, computed unit by unit, finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.machine.clock import Stages, Stopwatch
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.planning import plan_units
from sshr_deploy.runtime.pipeline.result_folders import file_sizes
from sshr_deploy.runtime.pipeline.slide_checks import check_slide
from sshr_deploy.runtime.pipeline.slide_files import SlideJob, Written, write_slide_files
from sshr_deploy.runtime.pipeline.stopping import TimeLimit
from sshr_deploy.runtime.pipeline.unit_store import Unit, UnitStore
from sshr_deploy.runtime.pipeline.units import Output, Units
from sshr_deploy.runtime.results.file_names import SLIDE_RESULTS
from sshr_deploy.runtime.results.findings import (
    MaskFacts,
    SlideFacts,
    SlideResult,
    StageSeconds,
    Tiles,
)
from sshr_deploy.runtime.slides import SlideReader, open_slide
from sshr_deploy.runtime.slides.dicom_source import slide_identity
from sshr_deploy.runtime.slides.shared_reader import SharedReader
from sshr_deploy.runtime.slides.view import plan_view, read_view, thumbnail_view

_T = TypeVar("_T")


class SlideWork(Closing):
    """A slide that is planned, with its open reader and the store of its results.

    `read` is for any thread; `keep` for one; `finish` for one, after the last `keep`; `result`,
    `leave` and `close` when none of these is running. `leave` and `close` may come at any time
    before, and end it.
    """

    def __init__(
        self,
        job: SlideJob,
        fingerprint: str,
        context: Context,
        units: Units,
        reader: SharedReader,
        store: UnitStore,
        facts: SlideFacts,
        stages: Stages,
        ledger: Ledger,
        limit: TimeLimit,
    ) -> None:
        self.path, self.fingerprint = job.path, fingerprint
        self.units, self.ledger, self.limit = units, ledger, limit
        self.todo = [unit for unit in units.places if unit not in store]
        """Units that no earlier run computed."""
        self._job, self._profile, self._outputs = job, context.profile, context.settings.outputs
        self._reader, self._store = reader, store
        self._facts, self._stages = facts, stages
        self._written: Written | None = None
        self._files: dict[str, int] = {}

    @property
    def unit_mm2(self) -> float:
        """Area that a unit covers, on average."""
        return self.units.kept_px * (self.units.plan.grid.mpp_um / 1000) ** 2

    def read(self, unit: Unit) -> NDArray[np.uint8]:
        """Pixels of a unit, RGB [height_px, width_px, 3].

        Raises:
            InputError: the file is damaged there.
        """
        with self.ledger.working("read"), self._reader.in_use() as reader:
            return self.units.read(reader, unit)

    def keep(self, units: Sequence[Unit], output: Output) -> None:
        """Keep what the network says of a batch of units.

        Raises:
            OutputError: the disk is full.
            SlowSlideError: it takes too long.
        """
        self._store.put({u: self.units.record(output, i) for i, u in enumerate(units)})
        self.limit.check()

    def finish(self, check_stop: Callable[[], None]) -> None:
        """Write mask, overlay and regions; `check_stop` is called often, what it raises ends it.

        Raises:
            OutputError: a result cannot be written.
            InputError: one that is asked for cannot be made of this slide.
            SlowSlideError: it takes too long.
        """
        self.limit.go_on()
        check = partial(self._check, check_stop)
        watch, before_s = Stopwatch(), self.ledger.busy_s("labels")
        self._write(check)
        self._reader.close()
        self._files = file_sizes(self._job.folder, (*SLIDE_RESULTS, *self._outputs.on_request))
        self.ledger.add("write", watch.seconds() - (self.ledger.busy_s("labels") - before_s))

    def result(self) -> SlideResult:
        """Findings, once it is finished."""
        plan, written = self.units.plan, self._written
        assert written is not None
        return SlideResult(
            slide=self._facts,
            mpp=plan.mpp,
            mask=MaskFacts(
                width_px=plan.grid.width_px,
                height_px=plan.grid.height_px,
                mpp_um=plan.grid.mpp_um,
            ),
            tiles=Tiles(computed=len(self.units.places), total=self.units.total),
            stain_concern=plan.concern,
            fit=self._job.checks.fit,
            warnings=written.warnings,
            tissue_area_mm2=round(sum(c.area_mm2 for c in written.classes), 9),
            classes=written.classes,
            regions=written.regions,
            files=self._files,
            seconds=self._seconds(),
            effort=self.ledger.effort(),
        )

    def leave(self) -> None:
        """Close, but leave what was kept for the next run."""
        self._reader.close()
        self._store.leave()

    def close(self) -> None:
        """Close the slide, and delete what was kept of it."""
        self._reader.close()
        self._store.close()

    def _seconds(self) -> StageSeconds:
        """Of the slide's own time, one after the other; `Effort` has the work of all threads."""
        ledger, stages = self.ledger, self._stages.seconds()
        return {
            "open": stages["open"],
            "tissue": stages["tissue"],
            "read": round(ledger.waited_s("read"), 4),
            "infer": round(ledger.busy_s("infer"), 4),
            "mask": round(ledger.busy_s("keep") + ledger.busy_s("labels"), 4),
            "write": round(ledger.busy_s("write"), 4),
            "total": stages["total"],
        }

    def _write(self, check_stop: Callable[[], None]) -> None:
        bands = self._checked(self.units.bands(self._store, check_stop), check_stop)
        self._written = write_slide_files(
            self._job, self._picture, bands, self._profile, self._outputs, check_stop
        )

    def _picture(self, check_stop: Callable[[], None]) -> NDArray[np.uint8]:
        plan, view = self._job.plan, self._job.view
        try:
            with self._reader.in_use() as reader:
                return read_view(reader, plan, view, check_stop)
        except InputError:  # what is computed needs the slide no more, which may be gone by now
            return thumbnail_view(plan, view)

    def _check(self, check_stop: Callable[[], None]) -> None:
        check_stop()
        self.limit.check()

    def _checked(self, bands: Iterator[_T], check_stop: Callable[[], None]) -> Iterator[_T]:
        while True:
            check_stop()
            with self.ledger.working("labels"):
                band = next(bands, None)
            if band is None:
                return
            yield band


def begin_slide(
    path: Path,
    folder: Path,
    context: Context,
    fingerprint: str,
    run_ledger: Ledger,
    check_stop: Callable[[], None],
    place: Path | None = None,
    shorten: Callable[[Units], Units] = lambda units: units,
) -> SlideWork:
    """Open a slide, find its tissue, and go on with what an interrupted run kept of it.

    Args:
        path: the slide.
        folder: of its results.
        context: the session's inputs decide whether it is cut into tiles or fields.
        fingerprint: of the slide, see `fingerprint_of`.
        run_ledger: of the run.
        check_stop: called often; what it raises ends it.
        place: of the slide among the inputs, for its pixel size; None for its name.
        shorten: gives the units to do, of all.

    Raises:
        InputError: the slide cannot be read, its pixel size is not known (MissingMppError), or it
            is plainly not H&E, or that alone takes too long (SlowSlideError).
        OutputError: nothing can be written into `folder`.
    """
    stages, ledger = Stages(), Ledger(run_ledger)
    limit = TimeLimit(path, context.settings.max_slide_minutes)

    def check() -> None:
        check_stop()
        limit.check()

    with ExitStack() as undo:
        with ledger.working("plan"):
            with stages.stage("open"):
                reader = open_slide(path)
                shared = undo.enter_context(SharedReader(reader))
            with stages.stage("tissue"):
                units = shorten(plan_units(reader, path, context, place, check))
                checks = check_slide(context.bundle, reader, units.plan)
        identity = None
        if context.settings.outputs.dicom_seg:
            identity = slide_identity(path, fingerprint)
        key = context.units_key(fingerprint, units.plan.mpp)
        store = undo.enter_context(UnitStore(folder, units.record_type, key))
        facts = slide_facts(reader)
        job = SlideJob(path, folder, identity, units.plan, checks, plan_view(reader, units.plan))
        undo.pop_all()
    limit.pause()
    return SlideWork(job, fingerprint, context, units, shared, store, facts, stages, ledger, limit)


def slide_facts(reader: SlideReader) -> SlideFacts:
    """Facts of an open slide, for documents."""
    width_px, height_px = reader.level_sizes_px[0]
    return SlideFacts(
        reader=reader.reader,
        width_px=width_px,
        height_px=height_px,
        levels=len(reader.level_sizes_px),
    )
