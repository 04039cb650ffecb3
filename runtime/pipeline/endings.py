"""How the inputs of a run end: each recorded, and its folder kept or cleared."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sshr_deploy.atomic import output_errors
from sshr_deploy.errors import InputError, OutputError, SshrDeployError
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.documents import Context, summary_of, without_engine
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.result_folders import (
    ResultFolders,
    is_whole,
    move_summary,
    read_summary,
    write_summary,
)
from sshr_deploy.runtime.pipeline.run_lock import Claim, RunLock
from sshr_deploy.runtime.report.single import write_input_page
from sshr_deploy.runtime.results.file_names import ERROR_NAME
from sshr_deploy.runtime.results.findings import InputResult, PatchResult, SlideResult, Summary


class Endings:
    """How inputs end whose results go below `out`, which other runs may share.

    `taken` and `fresh_folder` are for any thread, all else for that of the run.
    """

    def __init__(self, out: Path, lock: RunLock, context: Context, reporter: Reporter) -> None:
        self._out, self._lock, self._context, self._reporter = out, lock, context, reporter
        self.folders = ResultFolders(out)
        self.ended: deque[InputResult] = deque()
        """In their order; whoever takes them away removes them."""

    def add(self, result: InputResult) -> None:
        """Record how an input ended, and tell the reporter."""
        self.ended.append(result)
        self._reporter.input_finished(result)

    @contextmanager
    def guarded(self, item: Input) -> Iterator[None]:
        """Record a failure of this input and go on, unless it concerns the whole run."""
        try:
            yield
        except InputError as error:
            self._failed(item, error)
        except SshrDeployError as error:
            self._failed(item, error)
            raise
        except Exception as error:
            log = self._out / item.relative / ERROR_NAME
            with suppress(OSError):
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(traceback.format_exc(), "utf-8", "backslashreplace")
            defect = (
                f"{item.path} met a defect of sshr-deploy ({type(error).__name__}); "
                f"please report it with {log}"
            )
            self._failed(item, SshrDeployError(defect))

    def _failed(self, item: Input, reason: SshrDeployError) -> None:
        if not self._lock.is_lost():  # or they may be another run's by now
            self.folders.discard(item.relative)
        self._lock.give_up(item.relative)
        text = self._context.wording(str(reason))
        self.add(InputResult(item.path, item.kind, "failed", text, error=reason))

    def taken(self, item: Input, fingerprint: str) -> InputResult | Claim | None:
        """Why not to do this: an earlier run did, or another one is at it; None makes it ours.

        Raises:
            InputError: it would replace the result of another input.
            OutputError: the folder cannot be read or written.
        """
        if (earlier := self._earlier(item, fingerprint)) is not None:
            return earlier
        with output_errors(self._out):
            claim = self._lock.claim(item.relative)
        if claim.held_by is not None:
            return claim
        if claim.taken_from is not None:
            self._reporter.taken_over(item.path, claim.taken_from)
        earlier = self._earlier(item, fingerprint)  # another run has ended it meanwhile
        if earlier is not None:
            self._lock.give_up(item.relative)
        return earlier

    def _earlier(self, item: Input, fingerprint: str) -> InputResult | None:
        """What an earlier run did of this; refuses to replace the result of another input."""
        overwrite, has_company = self._context.settings.overwrite, self._lock.has_company
        folder = self._out / item.relative
        summary = None if overwrite and not has_company else read_summary(folder)
        if summary is None or (overwrite and summary.finished_utc <= self._lock.started_utc):
            return None
        ours, theirs = self._context.key(fingerprint, item.relative, summary), summary.key
        if has_company and theirs.get("qualified") is True:
            ours, theirs = without_engine(ours), without_engine(theirs)
        outputs = self._context.settings.outputs
        if not is_result_of(item, folder, summary, outputs, same_key=ours == theirs):
            return None
        path = str(item.path.absolute())
        if summary.input.path != path:  # the input was moved since
            summary = move_summary(folder, path, summary)
            self._write_page(folder, summary)
        self.folders.tidy(item.relative)
        return InputResult(item.path, item.kind, "skipped", summary=summary)

    def fresh_folder(self, item: Input) -> Path:
        """The folder of an input's results, empty; refuses to write where another run does."""
        self._lock.check()
        return self.folders.fresh(item.relative)

    def finish(self, item: Input, fingerprint: str, result: SlideResult | PatchResult) -> None:
        """Write the summary of an input that is done, and record it.

        Raises:
            OutputError: it cannot be written, or another run writes here now.
        """
        self._lock.check()
        summary = summary_of(
            result, self._context, path=item.path, relative=item.relative, fingerprint=fingerprint
        )
        write_summary(self._out / item.relative, summary)
        self.folders.keep(item.relative)
        self._write_page(self._out / item.relative, summary)
        self._lock.give_up(item.relative)
        self.add(InputResult(item.path, item.kind, "done", summary=summary))

    def _write_page(self, folder: Path, summary: Summary) -> None:
        """Write the page of an input, without which its result is as good.

        `write_pages` writes those that are missing, and says why if it cannot.
        """
        with suppress(OutputError):
            write_input_page(folder, summary, self._context.profile)

    def leave_rest(self) -> None:
        """Give up the inputs that did not end, once nothing works on them, and their folders."""
        self.folders.end(discard=not self._lock.is_lost())  # before they may be another run's
        self._lock.give_up_all()


def is_result_of(
    item: Input, folder: Path, summary: Summary, outputs: Outputs, *, same_key: bool
) -> bool:
    """Whether a folder holds the results of this input, all of them, as the run would make them.

    Args:
        item: perhaps moved since.
        folder: of its results.
        summary: what is there.
        outputs: files that the run would write of a slide.
        same_key: whether it was made from the same content and in the same way.

    Raises:
        InputError: it holds those of another input.
    """
    same = same_key and (item.kind != "slide" or outputs.are_in(summary.files))
    same, other = same and is_whole(folder, summary), summary.input.path
    if other != str(item.path.absolute()) and (
        not same or _is_another_file(Path(other), item.path)
    ):
        raise InputError(
            f"{item.path} would replace the result of {other} in {folder}; "
            "choose another `out`, or add `overwrite`"
        )
    return same


def _is_another_file(one: Path, other: Path) -> bool:
    """Whether `one` is still there, and not a link to `other` or the same by another path."""
    try:
        return not one.samefile(other)
    except OSError:
        return False
