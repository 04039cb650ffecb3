"""Inputs through the engines, each into its folder: what runs and the watching of folders share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError, OutputError
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
from sshr_deploy.runtime.pipeline.reporting import PartsProgress, Reporter
from sshr_deploy.runtime.pipeline.run_lock import Claim, RunLock
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.results.findings import InputResult, Kind
from sshr_deploy.runtime.results.records import RunEffort
from sshr_deploy.runtime.settings import InferSettings, Mode

_LOOK_AGAIN_S = 2.0
"""At inputs that other runs are at, where nothing else is left."""


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
        try:
            with closing(self._paused(_Intake(take, self._context.settings))) as pauses:
                for _ in pauses:
                    yield from self.ended()
                    self._stop.check()
        finally:
            self._endings.leave_rest()
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
        """End the reading threads."""
        self._readers.close()

    def _paused(self, intake: _Intake) -> Generator[None, None, None]:
        """Do the inputs, with a pause whenever some may have ended."""
        while True:
            while (group := intake.group()) is not None:
                is_slide = group.kind == "slide"
                yield from self._slides(intake) if is_slide else self._patches(intake, group)
            if not intake.aside:
                return
            if self._stop.wait(_LOOK_AGAIN_S):
                self._stop.check()
            intake.look_again()

    def _slides(self, intake: _Intake) -> Iterator[None]:
        context, endings = self._context, self._endings
        settings = context.settings
        session = context.sessions.of_slides(context.mode)
        flow = Flow[Input, InputResult | Claim](
            partial(intake.next, _Group("slide")),
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
                    elif isinstance(ended, Claim):
                        intake.aside.append(item)
                    else:
                        self._finish(item, ended)
                yield

    def _finish(self, item: Input, work: SlideWork) -> None:
        try:
            self._endings.finish(item, work.fingerprint, work.result())
        except OutputError:
            if not self._lock.is_lost():
                work.leave()
            raise

    def _plan(self, item: Input, check_stop: Callable[[], None]) -> SlideWork | InputResult | Claim:
        """Begin a slide, in the thread that the flow has for it, unless another run has it."""
        fingerprint = fingerprint_of(item.path)
        taken = self._endings.taken(item, fingerprint)
        if taken is not None:
            return taken
        folder = self._endings.fresh_folder(item)
        return slide_job.begin_slide(
            item.path, folder, self._context, fingerprint, self._ledger, check_stop, item.relative
        )

    def _patches(self, intake: _Intake, group: _Group) -> Iterator[None]:
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
            self._readable(intake, group),
            sessions.patches,
            profile,
            settings.large,
            settings.batch,
            fields=(lambda: sessions.fields) if self._context.mode is Mode.SEAMLESS else None,
            mpp_um=group.mpp_um,
            on_parts=on_parts,
            on_error=failed,
        )
        for image, prediction in predictions:
            with endings.guarded(image.item):
                progress(image.item.path, prediction.parts, prediction.parts)
                result = patch_job.finish_patch(image.job, prediction, profile, settings)
                endings.finish(image.item, image.fingerprint, result)
            yield

    def _readable(
        self, intake: _Intake, group: _Group
    ) -> Iterator[tuple[_Image, NDArray[np.uint8]]]:
        """The images of a group that are left to do, read one by one; failures are recorded."""
        while (item := intake.next(group)) is not None:
            image = None
            with self._endings.guarded(item):
                fingerprint = fingerprint_of(item.path)
                taken = self._endings.taken(item, fingerprint)
                if isinstance(taken, InputResult):
                    self._endings.add(taken)
                elif taken is not None:
                    intake.aside.append(item)
                else:
                    folder = self._endings.fresh_folder(item)  # what an earlier run left goes first
                    profile, settings = self._context.profile, self._context.settings
                    job = patch_job.read_patch(item.path, folder, profile, settings, item.relative)
                    image = _Image(item, fingerprint, job)
            if image is not None:
                yield image, image.job.rgb


class _Group(NamedTuple):
    """Of inputs that are done together."""

    kind: Kind
    mpp_um: float | None = None
    """Pixel size of images as the user gives it."""


class _Intake:
    """Inputs in their order, those of one group at a time."""

    def __init__(self, take: Take[Input], settings: InferSettings) -> None:
        self._take, self._settings = take, settings
        self._held: Input | None = None
        self._again: deque[Input] = deque()
        self.aside: list[Input] = []
        """Inputs that other runs are at."""

    def look_again(self) -> None:
        """Give out once more what was put aside, behind what is new."""
        self._again += self.aside
        self.aside.clear()

    def group(self) -> _Group | None:
        """Of the next one; None where there is none at the moment."""
        if self._held is None:
            self._held = self._take()
        if self._held is None and self._again:
            self._held = self._again.popleft()
        item = self._held
        if item is None or item.kind == "slide":
            return None if item is None else _Group("slide")
        try:
            return _Group("patch", self._settings.mpp_of(item.relative).um)
        except InputError:  # it is recorded where the image is read
            return _Group("patch")

    def next(self, group: _Group) -> Input | None:
        """The next one, if it is of that group."""
        if self.group() != group:
            return None
        item, self._held = self._held, None
        return item
