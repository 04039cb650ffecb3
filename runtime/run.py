"""A run over many inputs: one failure never stops it, and a second run does only what is left."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import remove_abandoned, write_csv, write_json
from sshr_deploy.errors import InputError, OutputError, SshrDeployError, UsageError
from sshr_deploy.runtime import discovery, patch_job, slide_job
from sshr_deploy.runtime.discovery import Input, find_inputs
from sshr_deploy.runtime.names import ERROR_NAME, RESULT_NAMES, SUMMARY_NAME
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.progress import InputResult, Reporter
from sshr_deploy.runtime.sessions import Session
from sshr_deploy.runtime.slides import check_mpp
from sshr_deploy.runtime.stain import check_stain
from sshr_deploy.runtime.summary import Context, csv_rows, now_utc, run_document


@dataclass
class RunResult:
    """How a run ended."""

    results: list[InputResult]
    document: dict[str, Any]
    """Content of `run.json`."""
    stopped_by: OutputError | None = None
    """Why it stopped early: results could not be written."""

    @property
    def exit_code(self) -> int:
        """0 if every input is done, else 1."""
        failed = self.stopped_by or any(r.status == "failed" for r in self.results)
        return 1 if failed else 0


def run_infer(
    source: Path, out: Path, session: Session, context: Context, reporter: Reporter
) -> RunResult:
    """Process the slides and patches at or below `source` into `out`.

    Each input gets a folder of its own name with its results and a `summary.json`, which is
    written last; `run.json` and `summary.csv` cover them all. An input whose `summary.json`
    shows that the same was done before is skipped, unless the settings say `overwrite`.
    Ctrl-C and a failing engine leave `run.json` with what was done and are raised again.

    Raises:
        UsageError: nothing to do at `source`, an impossible pixel size in the settings, or `out`
            cannot take the results.
        SessionError: the engine fails.
    """
    check_mpp(context.settings.mpp_um, force=context.settings.force_mpp)
    inputs, failures = find_inputs(source, out)
    _prepare(out, inputs)
    run = _Run(out, session, context, reporter)
    reporter.run_started(len(inputs) + len(failures))
    for failure in failures:
        run.add(failure)
    started = now_utc()
    stopped_by: BaseException | None = None
    try:
        run.process(inputs)
    except (SshrDeployError, KeyboardInterrupt) as error:
        stopped_by = error
    document = run_document(
        context,
        run.results,
        started_utc=started,
        interrupted=isinstance(stopped_by, KeyboardInterrupt),
        stopped_by=str(stopped_by) if isinstance(stopped_by, SshrDeployError) else None,
    )
    unwritten = _write_run(out, context, run.results, document)
    if stopped_by is not None and not isinstance(stopped_by, OutputError):
        raise stopped_by
    return RunResult(run.results, document, stopped_by or unwritten)


def _write_run(
    out: Path, context: Context, results: Sequence[InputResult], document: dict[str, Any]
) -> OutputError | None:
    """Write both files of the run, each even if the other fails; returns the first failure."""
    failure: OutputError | None = None
    try:
        write_json(out / "run.json", document)
    except OutputError as error:
        failure = error
    try:
        write_csv(out / "summary.csv", csv_rows(context.profile, results))
    except OutputError as error:
        failure = failure or error
    return failure


class _Run:
    def __init__(self, out: Path, session: Session, context: Context, reporter: Reporter) -> None:
        self.out = out
        self.session = session
        self.context = context
        self.reporter = reporter
        self.results: list[InputResult] = []

    def add(self, result: InputResult) -> None:
        self.results.append(result)
        self.reporter.input_finished(result)

    def process(self, inputs: Sequence[Input]) -> None:
        for kind, group in groupby(inputs, lambda item: item.kind):
            if kind == "slide":
                for item in group:
                    self._slide(item)
            else:
                self._patches(list(group))

    def _slide(self, item: Input) -> None:
        with self._guarded(item):
            fingerprint = _fingerprint(item.path)
            if self._skip(item, fingerprint):
                return
            summary = slide_job.segment_slide(
                item.path,
                self._fresh_folder(item),
                self.session,
                self.context.profile,
                self.context.settings,
                self.reporter,
            )
            self._finish(item, fingerprint, summary)

    def _patches(self, items: Sequence[Input]) -> None:
        size = self.context.settings.batch
        for start in range(0, len(items), size):
            ready: list[tuple[Input, str, patch_job.PatchJob]] = []
            for item in items[start : start + size]:
                with self._guarded(item):
                    fingerprint = _fingerprint(item.path)
                    if not self._skip(item, fingerprint):
                        rgb = read_image(item.path)
                        any_stain = self.context.settings.any_stain
                        check_stain(item.path, rgb, any_stain=any_stain)
                        folder = self._fresh_folder(item)
                        job = patch_job.PatchJob(rgb, resize_to_patch(rgb), folder)
                        ready.append((item, fingerprint, job))
            if ready:
                self._patch_batch(ready)

    def _patch_batch(self, ready: Sequence[tuple[Input, str, patch_job.PatchJob]]) -> None:
        cams, infer_s = patch_job.infer_patches([job for _, _, job in ready], self.session)
        for index, (item, fingerprint, job) in enumerate(ready):
            with self._guarded(item):
                self.reporter.input_started(item.path, 1)
                profile = self.context.profile
                summary = patch_job.finish_patch(job, cams, index, profile, infer_s)
                self.reporter.tiles_done(1)
                self._finish(item, fingerprint, summary)

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
        self.add(InputResult(item.path, item.kind, "failed", str(reason)))

    def _skip(self, item: Input, fingerprint: str) -> bool:
        """Whether an earlier run did this; refuses to replace the result of another input."""
        if self.context.settings.overwrite:
            return False
        folder = self.out / item.relative
        summary = _read_summary(folder)
        if summary is None:
            return False
        whole = all((folder / str(name)).is_file() for name in summary.get("files", []))
        if whole and summary["key"] == self.context.key(fingerprint, summary):
            self.add(InputResult(item.path, item.kind, "skipped", summary=summary))
            return True
        other = str(summary.get("input", {}).get("path", ""))
        if other != str(item.path.absolute()):
            raise InputError(
                f"{item.path} would replace the result of {other} in {folder}; "
                "choose another --out, or add --overwrite"
            )
        return False

    def _fresh_folder(self, item: Input) -> Path:
        """The folder of an input's results, without what an earlier or killed run left there."""
        folder = self.out / item.relative
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in RESULT_NAMES:
                (folder / name).unlink(missing_ok=True)
            remove_abandoned(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror}; choose another --out"
            ) from error
        return folder

    def _finish(self, item: Input, fingerprint: str, summary: dict[str, Any]) -> None:
        document = {
            "input": {"path": str(item.path.absolute()), "kind": item.kind},
            "finished_utc": now_utc(),
            "folder": item.relative.as_posix(),
            **summary,
            **self.context.provenance(),
            "key": self.context.key(fingerprint, summary),
        }
        write_json(self.out / item.relative / SUMMARY_NAME, document)
        self.add(InputResult(item.path, item.kind, "done", summary=document))


def _read_summary(folder: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((folder / SUMMARY_NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and "key" in summary else None


def _fingerprint(path: Path) -> str:
    try:
        return discovery.fingerprint(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _prepare(out: Path, inputs: Sequence[Input]) -> None:
    for item in inputs:
        if (out / item.relative).is_file():
            raise UsageError(
                f"--out {out} is where the inputs are ({item.relative} is there); "
                "choose another folder"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be made a folder: {error.strerror}; choose another"
        ) from error
