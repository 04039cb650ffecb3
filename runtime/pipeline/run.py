"""A run over many inputs: one failure never stops it, and a second run does only what is left."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import OutputError, SshrDeployError
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.pipeline.documents import Context, run_record
from sshr_deploy.runtime.pipeline.processing import Processing, Workforce
from sshr_deploy.runtime.pipeline.reporting import Reporter, WatcherError
from sshr_deploy.runtime.pipeline.run_folder import write_run
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.work import Work
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.results.records import RunDocument

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


class Run:
    """A run over many inputs: iterate over it to do it, then ask for its `outcome`.

    Each input gets a folder of its own name with its results and a `summary.json`, which is
    written last; for the files that cover them all see `run_folder`. An input whose `summary.json`
    shows that the same was done before is skipped, unless the settings say `overwrite`.
    Ctrl-C, a request to stop (raised as Ctrl-C is) and a failing engine leave `run.json` with all
    that was done and are raised again. So is it where the iteration is left. Where another run has
    taken the folder over, this one stops and writes its record in `runs/` only.

    Iterating raises:
        SessionError: the engine fails.
    """

    outcome: RunResult

    def __init__(
        self,
        work: Work,
        context: Context,
        reporter: Reporter,
        workforce: Workforce | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        """The inputs are done by `workforce`, or by this process, which `stop` may end early.

        The run closes the workforce.
        """
        self.work, self.context, self._reporter = work, context, reporter
        self._workforce = workforce or Processing(work.out, work.lock, context, reporter, stop)
        self._results: list[InputResult] = []

    def __iter__(self) -> Generator[InputResult, None, None]:
        """The inputs as they end, failed and skipped ones too."""
        found, started, workforce = self.work.found, now_utc(), self._workforce
        self._reporter.run_started(len(found.inputs) + len(found.failures))
        stopped_by: BaseException | None = None
        inputs = iter(found.inputs)
        try:
            for failure in found.failures:
                self._results.append(failure)
                self._reporter.input_finished(failure)
                yield failure
            with closing(workforce.process(lambda: next(inputs, None))) as ended:
                for result in ended:
                    self._results.append(result)
                    yield result
            self.work.lock.check()
        except (SshrDeployError, *_INTERRUPTIONS) as error:
            stopped_by = error
        finally:
            workforce.close()
        rest = list(workforce.ended())
        self._results += rest
        self.outcome = self._written(started, stopped_by)
        if not isinstance(stopped_by, GeneratorExit):
            yield from rest
        if isinstance(stopped_by, WatcherError):
            raise stopped_by.error
        if stopped_by is not None and not isinstance(stopped_by, OutputError):
            raise stopped_by

    def _written(self, started_utc: str, stopped_by: BaseException | None) -> RunResult:
        """Write the files that cover the whole run."""
        work, context, results = self.work, self.context, self._results
        reason = stopped_by if isinstance(stopped_by, SshrDeployError) else None
        record = run_record(
            context,
            results,
            source=work.source,
            left_out=work.found.left_out,
            started_utc=started_utc,
            interrupted=isinstance(stopped_by, _INTERRUPTIONS),
            stopped_by=None if reason is None else context.wording(str(reason)),
            effort=self._workforce.effort(),
            kind="slide" if any(i.kind == "slide" for i in work.found.inputs) else "patch",
        )
        with ExitStack() as stack:
            with suppress(OSError):  # the writing itself tells what is wrong
                stack.enter_context(work.lock.alone())  # so that the last one's table has all
            written = write_run(
                work.out,
                work.found,
                context.profile,
                results,
                record,
                only_record=work.lock.is_lost(),
            )
        output_error = stopped_by if isinstance(stopped_by, OutputError) else written.failure
        return RunResult(results, written.document, written.files, output_error)
