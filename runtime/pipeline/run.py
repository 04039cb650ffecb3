"""A run over many inputs: one failure never stops it, and a second run does only what is left."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.errors import InputError, OutputError, SshrDeployError, UsageError
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.pipeline import patch as patch_job
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline.discovery import Found, Input, fingerprint_of, search
from sshr_deploy.runtime.pipeline.documents import Context, run_record, summary_of
from sshr_deploy.runtime.pipeline.file_names import ERROR_NAME
from sshr_deploy.runtime.pipeline.images import predict_images
from sshr_deploy.runtime.pipeline.records import RunDocument
from sshr_deploy.runtime.pipeline.reporting import PartsProgress, Reporter
from sshr_deploy.runtime.pipeline.result_folders import (
    ResultFolders,
    is_whole,
    move_summary,
    read_summary,
    write_summary,
)
from sshr_deploy.runtime.pipeline.results import InputResult, PatchResult, SlideResult
from sshr_deploy.runtime.pipeline.run_folder import write_run
from sshr_deploy.runtime.pipeline.run_lock import RunLock, run_lock
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import check_mpp


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


@dataclass(frozen=True)
class Work:
    """Inputs of a run, and its hold on the folder of the results."""

    source: Path
    out: Path
    found: Found
    lock: RunLock


@contextmanager
def prepare_run(source: Path, out: Path, settings: InferSettings) -> Iterator[Work]:
    """Refuse what cannot work, before an engine is opened, and keep other runs out of `out`.

    Where nothing is written into `out`, it is not made.

    Raises:
        UsageError: nothing to do at `source`, an impossible pixel size in the settings, `out`
            cannot take the results, or another run writes there.
    """
    check_mpp(settings.mpp_um, force=settings.force_mpp)
    found = search(source, out)
    for item in found.inputs:
        if (out / item.relative).is_file():
            raise UsageError(
                f"--out {out} is where the inputs are ({item.relative} is there); "
                "choose another folder"
            )
    with run_lock(out) as lock:
        yield Work(source, out, found, lock)


def run_infer(work: Work, session: Session, context: Context, reporter: Reporter) -> RunResult:
    """Process the slides and patches of `work` into its folder.

    Each input gets a folder of its own name with its results and a `summary.json`, which is
    written last; for what covers them all see `run_folder`. An input whose `summary.json`
    shows that the same was done before is skipped, unless the settings say `overwrite`.
    Ctrl-C and a failing engine leave `run.json` with what was done and are raised again. Where
    another run has taken the folder over, this one stops and writes its record in `runs/` only.

    Raises:
        SessionError: the engine fails.
    """
    found = work.found
    run = _Run(work, session, context, reporter)
    reporter.run_started(len(found.inputs) + len(found.failures))
    for failure in found.failures:
        run.add(failure)
    started = now_utc()
    stopped_by = run.process_all()
    record = run_record(
        context,
        run.results,
        source=work.source,
        left_out=found.left_out,
        started_utc=started,
        interrupted=isinstance(stopped_by, KeyboardInterrupt),
        stopped_by=str(stopped_by) if isinstance(stopped_by, SshrDeployError) else None,
    )
    written = write_run(
        work.out,
        work.source,
        found,
        context.profile,
        run.results,
        record,
        only_record=work.lock.is_lost(),
    )
    if stopped_by is not None and not isinstance(stopped_by, OutputError):
        raise stopped_by
    return RunResult(run.results, written.document, written.files, stopped_by or written.failure)


class _Image(NamedTuple):
    item: Input
    fingerprint: str
    job: patch_job.PatchJob


class _Run:
    def __init__(self, work: Work, session: Session, context: Context, reporter: Reporter) -> None:
        self.out = work.out
        self.inputs = work.found.inputs
        self.lock = work.lock
        self.session = session
        self.context = context
        self.reporter = reporter
        self.folders = ResultFolders(work.out)
        self.results: list[InputResult] = []

    def add(self, result: InputResult) -> None:
        self.results.append(result)
        self.reporter.input_finished(result)

    def process_all(self) -> SshrDeployError | KeyboardInterrupt | None:
        """Process the inputs; gives what ended that early, if anything did."""
        try:
            self._process(self.inputs)
            self.lock.check()
        except (SshrDeployError, KeyboardInterrupt) as error:
            return error
        finally:
            self.folders.remove_all_empty()
        return None

    def _process(self, inputs: Sequence[Input]) -> None:
        for kind, group in groupby(inputs, lambda item: item.kind):
            if kind == "slide":
                for item in group:
                    self._slide(item)
            else:
                self._patches(list(group))

    def _slide(self, item: Input) -> None:
        with self._guarded(item):
            fingerprint = fingerprint_of(item.path)
            if self._skip(item, fingerprint):
                return
            result = slide_job.segment_slide(
                item.path,
                self._fresh_folder(item),
                self.session,
                self.context.profile,
                self.context.settings,
                self.reporter,
            )
            self._finish(item, fingerprint, result)

    def _patches(self, items: Sequence[Input]) -> None:
        profile, settings = self.context.profile, self.context.settings
        progress = PartsProgress(self.reporter)

        def failed(image: _Image, error: Exception) -> None:
            with self._guarded(image.item):
                raise error

        predictions = predict_images(
            self._readable(items),
            self.session,
            profile,
            settings.large,
            settings.batch,
            mpp_um=settings.mpp_um,
            on_parts=lambda image, done, parts: progress(image.item.path, done, parts),
            on_error=failed,
        )
        for image, prediction in predictions:
            with self._guarded(image.item):
                progress(image.item.path, prediction.parts, prediction.parts)
                result = patch_job.finish_patch(image.job, prediction, profile, settings)
                self._finish(image.item, image.fingerprint, result)

    def _readable(self, items: Sequence[Input]) -> Iterator[tuple[_Image, NDArray[np.uint8]]]:
        """The images that are left to do, read one by one; failures are recorded."""
        for item in items:
            image = None
            with self._guarded(item):
                fingerprint = fingerprint_of(item.path)
                if not self._skip(item, fingerprint):
                    folder = self._fresh_folder(item)  # what an earlier run left goes first
                    profile, settings = self.context.profile, self.context.settings
                    job = patch_job.read_patch(item.path, folder, profile, settings)
                    image = _Image(item, fingerprint, job)
            if image is not None:
                yield image, image.job.rgb

    @contextmanager
    def _guarded(self, item: Input) -> Iterator[None]:
        """Record a failure of this input and go on, unless it concerns the whole run."""
        try:
            yield
        except InputError as error:
            self._failed(item, error)
        except SshrDeployError as error:
            self._failed(item, error)
            raise
        except Exception as error:
            log = self.out / item.relative / ERROR_NAME
            with suppress(OSError):
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(traceback.format_exc(), "utf-8", "backslashreplace")
            defect = (
                f"{item.path} met a defect of sshr-deploy ({type(error).__name__}); "
                f"please report it with {log}"
            )
            self._failed(item, SshrDeployError(defect))

    def _failed(self, item: Input, reason: SshrDeployError) -> None:
        if not self.lock.is_lost():  # or they may be another run's by now
            self.folders.discard(item.relative)
        self.add(InputResult(item.path, item.kind, "failed", str(reason)))

    def _skip(self, item: Input, fingerprint: str) -> bool:
        """Whether an earlier run did this; refuses to replace the result of another input."""
        if self.context.settings.overwrite:
            return False
        folder = self.out / item.relative
        summary = read_summary(folder)
        if summary is None:
            return False
        same = summary.key == self.context.key(fingerprint, summary)
        same = same and is_whole(folder, summary)
        path, other = str(item.path.absolute()), summary.input.path
        if other != path and (not same or _is_another_file(Path(other), item.path)):
            raise InputError(
                f"{item.path} would replace the result of {other} in {folder}; "
                "choose another --out, or add --overwrite"
            )
        if same:
            if other != path:  # the input was moved since
                move_summary(folder, path)
            self.add(InputResult(item.path, item.kind, "skipped", summary=summary))
        return same

    def _fresh_folder(self, item: Input) -> Path:
        """The folder of an input's results, empty; refuses to write where another run does."""
        self.lock.check()
        return self.folders.fresh(item.relative)

    def _finish(self, item: Input, fingerprint: str, result: SlideResult | PatchResult) -> None:
        self.lock.check()
        summary = summary_of(
            result, self.context, path=item.path, relative=item.relative, fingerprint=fingerprint
        )
        write_summary(self.out / item.relative, summary)
        self.folders.keep(item.relative)
        self.add(InputResult(item.path, item.kind, "done", summary=summary))


def _is_another_file(one: Path, other: Path) -> bool:
    """Whether `one` is still there, and not a link to `other` or the same by another path."""
    try:
        return not one.samefile(other)
    except OSError:
        return False
