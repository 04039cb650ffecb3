"""A run over many inputs: one failure never stops it, and a second run does only what is left."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import OutputError, SshrDeployError
from sshr_deploy.runtime.engines.kind import inputs_for
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline import patch as patch_job
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline.discovery import Input, fingerprint_of
from sshr_deploy.runtime.pipeline.documents import Context, run_record
from sshr_deploy.runtime.pipeline.endings import Endings
from sshr_deploy.runtime.pipeline.flow import Flow
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.records import RunDocument, RunEffort
from sshr_deploy.runtime.pipeline.reporting import PartsProgress, Reporter, WatcherError
from sshr_deploy.runtime.pipeline.results import InputResult
from sshr_deploy.runtime.pipeline.run_folder import write_run
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.work import Work
from sshr_deploy.runtime.settings import Mode

_INTERRUPTIONS = (KeyboardInterrupt, GeneratorExit, WatcherError)


@dataclass
class RunResult:
    """How a run ended."""

    results: list[InputResult]
    document: RunDocument
    """Content of `run.json`."""
    files: list[Path]
    """Files about the whole run that could be written."""
    stopped_by: OutputError | None = None
    """Why it stopped early: results could not be written."""

    @property
    def exit_code(self) -> int:
        """0 if every input is done, else 1."""
        failed = self.stopped_by or any(r.status == "failed" for r in self.results)
        return 1 if failed else 0


class _Image(NamedTuple):
    item: Input
    fingerprint: str
    job: patch_job.PatchJob


class Run:
    """A run over many inputs: iterate over it to do it, then ask for its `outcome`.

    Each input gets a folder of its own name with its results and a `summary.json`, which is
    written last; for the files that cover them all see `run_folder`. An input whose `summary.json`
    shows that the same was done before is skipped, unless the settings say `overwrite`.
    Ctrl-C and a failing engine leave `run.json` with all that was done and are raised again. So is
    it where the iteration is left. Where another run has taken the folder over, this one stops and
    writes its record in `runs/` only.

    Iterating raises:
        SessionError: the engine fails.
    """

    outcome: RunResult

    def __init__(self, work: Work, context: Context, reporter: Reporter) -> None:
        self.work = work
        self.context = context
        self.reporter = reporter
        self.endings = Endings(work, context, reporter)
        self._readers, self._ledger = Readers(context.settings.readers), Ledger()

    def __iter__(self) -> Generator[InputResult, None, None]:
        """The inputs as they end, failed and skipped ones too."""
        found, started, given = self.work.found, now_utc(), 0
        results = self.endings.results
        self.reporter.run_started(len(found.inputs) + len(found.failures))
        for failure in found.failures:
            self.endings.add(failure)
        stopped_by: BaseException | None = None
        try:
            with closing(self._process(found.inputs)) as ended:
                for _ in ended:
                    while given < len(results):
                        given += 1
                        yield results[given - 1]
            self.work.lock.check()
        except (SshrDeployError, *_INTERRUPTIONS) as error:
            stopped_by = error
        finally:
            self._readers.close()
            self.endings.folders.end(discard=not self.work.lock.is_lost())
        self.outcome = self._written(started, stopped_by)
        if not isinstance(stopped_by, GeneratorExit):
            yield from results[given:]
        if isinstance(stopped_by, WatcherError):
            raise stopped_by.error
        if stopped_by is not None and not isinstance(stopped_by, OutputError):
            raise stopped_by

    def _written(self, started_utc: str, stopped_by: BaseException | None) -> RunResult:
        """Write the files that cover the whole run."""
        work, context = self.work, self.context
        reason = stopped_by if isinstance(stopped_by, SshrDeployError) else None
        record = run_record(
            context,
            self.endings.results,
            source=work.source,
            left_out=work.found.left_out,
            started_utc=started_utc,
            interrupted=isinstance(stopped_by, _INTERRUPTIONS),
            stopped_by=None if reason is None else context.wording(str(reason)),
            effort=self._effort(),
            kind="slide" if any(i.kind == "slide" for i in work.found.inputs) else "patch",
        )
        written = write_run(
            work.out,
            work.source,
            work.found,
            context.profile,
            self.endings.results,
            record,
            only_record=work.lock.is_lost(),
        )
        output_error = stopped_by if isinstance(stopped_by, OutputError) else written.failure
        return RunResult(self.endings.results, written.document, written.files, output_error)

    def _effort(self) -> RunEffort | None:
        effort, readers = self._ledger.effort(), self._readers
        if not effort.busy_s:
            return None
        return RunEffort(
            **dict(effort),
            readers=readers.count,
            readers_chosen_by=self.context.wording(readers.chosen_by),
        )

    def _process(self, inputs: Sequence[Input]) -> Generator[None, None, None]:
        """Do the inputs, with a pause whenever some have ended."""
        for kind, group in groupby(inputs, lambda item: item.kind):
            of_kind = self._slides if kind == "slide" else self._patches
            yield from of_kind(list(group))

    def _slides(self, items: Sequence[Input]) -> Iterator[None]:
        context = self.context
        settings = context.settings
        session = context.sessions.of_slides(context.mode)
        flow = Flow(
            items,
            self._plan,
            session,
            mask_rule(context.profile) if session.geometry.is_patch else None,
            batch=inputs_for(settings.batch, session.geometry),
            readers=self._readers,
            ledger=self._ledger,
            reporter=self.reporter,
            may_leave=lambda: not self.work.lock.is_lost(),
        )
        with flow, closing(iter(flow)) as slides:
            for item, ended in slides:
                with self.endings.guarded(item):
                    if isinstance(ended, Exception):
                        raise ended
                    if isinstance(ended, InputResult):
                        self.endings.add(ended)
                    else:
                        self.endings.finish(item, ended.fingerprint, ended.result())
                yield

    def _plan(self, item: Input, check_stop: Callable[[], None]) -> SlideWork | InputResult:
        """Begin a slide, in the thread that the flow has for it, unless an earlier run did it."""
        fingerprint = fingerprint_of(item.path)
        earlier = self.endings.earlier(item, fingerprint)
        if earlier is not None:
            return earlier
        folder = self.endings.fresh_folder(item)
        return slide_job.begin_slide(
            item.path, folder, self.context, fingerprint, self._ledger, check_stop
        )

    def _patches(self, items: Sequence[Input]) -> Iterator[None]:
        profile, settings = self.context.profile, self.context.settings
        sessions = self.context.sessions
        progress = PartsProgress(self.reporter)

        def failed(image: _Image, error: Exception) -> None:
            with self.endings.guarded(image.item):
                raise error

        predictions = predict_images(
            self._readable(items),
            sessions.patches,
            profile,
            settings.large,
            settings.batch,
            fields=(lambda: sessions.fields) if self.context.mode is Mode.SEAMLESS else None,
            mpp_um=settings.mpp_um,
            on_parts=lambda image, done, parts: progress(image.item.path, done, parts),
            on_error=failed,
        )
        for image, prediction in predictions:
            with self.endings.guarded(image.item):
                progress(image.item.path, prediction.parts, prediction.parts)
                result = patch_job.finish_patch(image.job, prediction, profile, settings)
                self.endings.finish(image.item, image.fingerprint, result)
            yield

    def _readable(self, items: Sequence[Input]) -> Iterator[tuple[_Image, NDArray[np.uint8]]]:
        """The images that are left to do, read one by one; failures are recorded."""
        for item in items:
            image = None
            with self.endings.guarded(item):
                fingerprint = fingerprint_of(item.path)
                earlier = self.endings.earlier(item, fingerprint)
                if earlier is not None:
                    self.endings.add(earlier)
                else:
                    folder = self.endings.fresh_folder(item)  # what an earlier run left goes first
                    profile, settings = self.context.profile, self.context.settings
                    job = patch_job.read_patch(item.path, folder, profile, settings)
                    image = _Image(item, fingerprint, job)
            if image is not None:
                yield image, image.job.rgb
