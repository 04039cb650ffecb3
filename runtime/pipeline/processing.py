"""Inputs through the engines, each into its folder: what runs and the watching of folders share."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.engines.kind import inputs_for
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.pipeline import patch as patch_job
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline.discovery import Input, fingerprint_of
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.endings import Endings
from sshr_deploy.runtime.pipeline.feed import Take
from sshr_deploy.runtime.pipeline.flow import Flow
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.records import RunEffort
from sshr_deploy.runtime.pipeline.reporting import PartsProgress, Reporter
from sshr_deploy.runtime.pipeline.results import InputResult, Kind
from sshr_deploy.runtime.pipeline.run_lock import RunLock
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.settings import Mode


class Workforce(Protocol):
    """Does inputs: this process (`Processing`), or several."""

    def process(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        """Do what `take` gives until it has none and all that began have ended; may be repeated.

        Yields how inputs ended. `take` is called by the thread that iterates, not only when an
        input has ended.

        Raises:
            SessionError: the engine fails.
            OutputError: results cannot be written.
            KeyboardInterrupt: a stop was requested, and what the engine had in hand is kept.
        """

    def ended(self) -> Iterator[InputResult]:
        """Inputs that have ended and were not yielded, because an error came between."""

    def effort(self) -> RunEffort | None:
        """Work on slides so far; None where none was begun."""

    def close(self) -> None:
        """End all threads or workers; what is under way is left for the next run."""


class _Image(NamedTuple):
    item: Input
    fingerprint: str
    job: patch_job.PatchJob


class Processing(Closing):
    """A workforce of this process alone, for one thread."""

    def __init__(
        self,
        out: Path,
        lock: RunLock,
        context: Context,
        reporter: Reporter,
        stop: StopRequest | None = None,
    ) -> None:
        """Results go below `out`, whose `lock` is held; `stop` may end it early."""
        self._lock, self._context, self._reporter = lock, context, reporter
        self._stop = stop or StopRequest()
        self._endings = Endings(out, lock, context, reporter)
        self._readers, self._ledger = Readers(context.settings.readers), Ledger()

    def process(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        """See `Workforce`."""
        with closing(self._paused(_Intake(take))) as pauses:
            for _ in pauses:
                yield from self.ended()
                self._stop.check()
        yield from self.ended()

    def ended(self) -> Iterator[InputResult]:
        """See `Workforce`."""
        ended = self._endings.ended
        while ended:
            yield ended.popleft()

    def effort(self) -> RunEffort | None:
        """See `Workforce`."""
        effort, readers = self._ledger.effort(), self._readers
        if not effort.busy_s:
            return None
        return RunEffort(
            **dict(effort),
            readers=readers.count,
            readers_chosen_by=self._context.wording(readers.chosen_by),
        )

    def close(self) -> None:
        """End the reading threads, and remove the folders of inputs that did not end."""
        self._readers.close()
        self._endings.folders.end(discard=not self._lock.is_lost())

    def _paused(self, intake: _Intake) -> Generator[None, None, None]:
        """Do the inputs, with a pause whenever some may have ended."""
        while (kind := intake.kind()) is not None:
            yield from self._slides(intake) if kind == "slide" else self._patches(intake)

    def _slides(self, intake: _Intake) -> Iterator[None]:
        context, endings = self._context, self._endings
        settings = context.settings
        session = context.sessions.of_slides(context.mode)
        flow = Flow(
            partial(intake.next, "slide"),
            self._plan,
            session,
            mask_rule(context.profile) if session.geometry.is_patch else None,
            batch=inputs_for(settings.batch, session.geometry),
            readers=self._readers,
            ledger=self._ledger,
            reporter=self._reporter,
            stop=self._stop,
            may_leave=lambda: not self._lock.is_lost(),
        )
        with flow, closing(iter(flow)) as slides:
            for item, ended in slides:
                with endings.guarded(item):
                    if isinstance(ended, Exception):
                        raise ended
                    if isinstance(ended, InputResult):
                        endings.add(ended)
                    else:
                        endings.finish(item, ended.fingerprint, ended.result())
                yield

    def _plan(self, item: Input, check_stop: Callable[[], None]) -> SlideWork | InputResult:
        """Begin a slide, in the thread that the flow has for it, unless an earlier run did it."""
        fingerprint = fingerprint_of(item.path)
        earlier = self._endings.earlier(item, fingerprint)
        if earlier is not None:
            return earlier
        folder = self._endings.fresh_folder(item)
        return slide_job.begin_slide(
            item.path, folder, self._context, fingerprint, self._ledger, check_stop
        )

    def _patches(self, intake: _Intake) -> Iterator[None]:
        profile, settings = self._context.profile, self._context.settings
        sessions, endings = self._context.sessions, self._endings
        progress = PartsProgress(self._reporter)

        def on_parts(image: _Image, done: int, parts: int) -> None:
            progress(image.item.path, done, parts)
            self._stop.check()

        def failed(image: _Image, error: Exception) -> None:
            with endings.guarded(image.item):
                raise error

        predictions = predict_images(
            self._readable(intake),
            sessions.patches,
            profile,
            settings.large,
            settings.batch,
            fields=(lambda: sessions.fields) if self._context.mode is Mode.SEAMLESS else None,
            mpp_um=settings.mpp_um,
            on_parts=on_parts,
            on_error=failed,
        )
        for image, prediction in predictions:
            with endings.guarded(image.item):
                progress(image.item.path, prediction.parts, prediction.parts)
                result = patch_job.finish_patch(image.job, prediction, profile, settings)
                endings.finish(image.item, image.fingerprint, result)
            yield

    def _readable(self, intake: _Intake) -> Iterator[tuple[_Image, NDArray[np.uint8]]]:
        """The images that are left to do, read one by one; failures are recorded."""
        while (item := intake.next("patch")) is not None:
            image = None
            with self._endings.guarded(item):
                fingerprint = fingerprint_of(item.path)
                earlier = self._endings.earlier(item, fingerprint)
                if earlier is not None:
                    self._endings.add(earlier)
                else:
                    folder = self._endings.fresh_folder(item)  # what an earlier run left goes first
                    profile, settings = self._context.profile, self._context.settings
                    job = patch_job.read_patch(item.path, folder, profile, settings)
                    image = _Image(item, fingerprint, job)
            if image is not None:
                yield image, image.job.rgb


class _Intake:
    """Inputs in their order, those of one kind at a time."""

    def __init__(self, take: Take[Input]) -> None:
        self._take = take
        self._held: Input | None = None

    def kind(self) -> Kind | None:
        """Of the next one; None where there is none at the moment."""
        self._held = self._held or self._take()
        return None if self._held is None else self._held.kind

    def next(self, kind: Kind) -> Input | None:
        """The next one, if it is of that kind."""
        if self.kind() != kind:
            return None
        item, self._held = self._held, None
        return item
