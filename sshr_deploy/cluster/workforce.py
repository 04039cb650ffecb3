"""The workers of a cluster as one workforce: who has which input, and what becomes of lost ones.

A worker is an actor of Ray with an engine of its own. Ray starts a lost one again, on another
machine if need be; its inputs go to whoever is free, and go on from what was kept of them. An
input that was under way in several workers as they were lost is taken for the cause, and fails.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from sshr_deploy.bundle import Bundle
from sshr_deploy.closing import Closing
from sshr_deploy.cluster.connecting import Place
from sshr_deploy.cluster.efforts import merged
from sshr_deploy.cluster.employed import Employed
from sshr_deploy.cluster.messages import (
    Began,
    Broken,
    Computed,
    Ended,
    Left,
    Message,
    Order,
    Ready,
    Step,
    TakenOver,
    Wanted,
)
from sshr_deploy.cluster.shipping import file_names
from sshr_deploy.errors import (
    InputError,
    OutputError,
    SessionError,
    SshrDeployError,
    counted,
    first_line,
)
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.feed import Take
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.results.records import RunEffort

MOST_LOSSES = 3
"""Lost workers after which an input fails that all of them had; and times that a worker may be lost
with nothing ended in between."""
_UNSEEN = "its process ended, or cannot be reached"
_LOOK_S = 0.5
_SILENT_S = 600.0
_LEAVE_S = 60.0


class RayWorkforce(Closing):
    """A workforce of the actors of a cluster, for one thread; `listen` before there are inputs."""

    def __init__(
        self,
        ray: ModuleType,
        places: Sequence[Place],
        order: Order,
        bundle: Bundle,
        say: Callable[[str], None],
        events: Events,
    ) -> None:
        """Start a worker in each place, and wait for the first that is ready.

        Args:
            ray: the package, connected.
            places: of the workers.
            order: what they are to do.
            bundle: sent to machines that do not have it.
            say: told of each step, and of workers that are lost.
            events: told of workers that are lost.

        Raises:
            SshrDeployError: no worker could open an engine; that of the last one.
        """
        self._ray, self._bundle, self._say, self._events = ray, bundle, say, events
        self._reporter: Reporter | None = None
        self._stop = StopRequest()
        self._files: dict[str, Any] = {}  # of the bundle, in Ray's store
        self._waiting: deque[Input] = deque()  # given back
        self._lost_with: Counter[Path] = Counter()
        self._heard: deque[tuple[Employed, Message]] = deque()
        self._results: deque[InputResult] = deque()
        self._left: list[Left] = []
        self._silence = Stopwatch()
        self._workers = [Employed(ray, order, place) for place in places]
        try:
            while not self.ready():
                self._hear()
        except BaseException:
            self.close()
            raise

    def listen(self, reporter: Reporter, stop: StopRequest | None = None) -> None:
        """Tell `reporter` of the inputs of all workers; `stop` may end `process` early."""
        self._reporter, self._stop = reporter, stop or StopRequest()

    def ready(self) -> list[Ready]:
        """Engine and settings of each worker that is ready."""
        return [worker.ready for worker in self._workers if worker.ready]

    def pids(self) -> list[int]:
        """Processes of the workers that are ready."""
        return [worker.pid for worker in self._workers if worker.ready]

    def infos(self) -> list[SessionInfo]:
        """The engines of workers that are ready, or ended as they were told."""
        return [*(ready.info for ready in self.ready()), *(left.info for left in self._left)]

    def process(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        """See `Workforce`; inputs end in any order.

        Raises:
            SessionError: no worker is left, or none was ready for ten minutes.
            OutputError: results cannot be written; all workers have left what was under way.
            KeyboardInterrupt: a stop was requested.
        """
        if not self._workers:
            raise SessionError("no worker is left; start again when the cause is mended")
        try:
            yield from self._processed(take)
        except OutputError:
            self.close()
            raise

    def _processed(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        while True:
            self._hand_out(take)
            if not self._waiting and not any(worker.given for worker in self._workers):
                return
            self._hear()
            yield from self.ended()
            self._stop.check()

    def ended(self) -> Iterator[InputResult]:
        """See `Workforce`."""
        while self._results:
            yield self._results.popleft()

    def effort(self) -> RunEffort | None:
        """See `Workforce`; of the workers that ended as they were told, once they have."""
        return merged(left.effort for left in self._left)

    def close(self) -> None:
        """Let all workers leave what is under way, and end them; safe to call twice."""
        watch, leaving = Stopwatch(), [worker for worker in self._workers if worker.ready]
        try:
            for worker in leaving:
                worker.actor.stop.remote()
            while watch.seconds() < _LEAVE_S and not all(
                worker.left or worker not in self._workers or not worker.ready for worker in leaving
            ):
                try:
                    self._hear()
                except SshrDeployError:
                    continue  # it is closed already
        finally:
            for worker in self._workers:
                worker.kill(for_good=True)
            self._workers = []

    def _hand_out(self, take: Take[Input]) -> None:
        """Give inputs to those who have room; one that was lost before is given alone."""
        while self._workers:
            worker = max(self._workers, key=Employed.room)
            alone = any(path in self._lost_with for path in worker.given)
            if worker.room() <= 0 or alone:
                return
            item = self._waiting.popleft() if self._waiting else take()
            if item is None:
                return
            if item.path in self._lost_with and worker.given:
                self._waiting.appendleft(item)
                return
            worker.give(item)

    def _hear(self) -> None:
        """Wait a moment for messages, and do what they ask for."""
        by_report = {worker.report: worker for worker in self._workers}
        come, _ = self._ray.wait(list(by_report), num_returns=1, timeout=_LOOK_S)
        for report in come:
            self._read(by_report[report])
        while self._heard:
            self._take_in(*self._heard.popleft())
        if self.ready():
            self._silence = Stopwatch()
        elif self._silence.seconds() > _SILENT_S:
            raise SessionError("no worker was ready for ten minutes; see ray status")

    def _read(self, worker: Employed) -> None:
        try:
            report = worker.read()
        except self._ray.exceptions.ActorUnavailableError:
            if worker.token is None:  # it is being started again
                time.sleep(_LOOK_S)
                worker.forget()
                return
            worker.kill(for_good=False)  # it may be cut off only, and must not go on
            self._lost(worker, _UNSEEN)
            return
        except self._ray.exceptions.RayError as error:
            self._give_up(worker, first_line(error))
            if not self._workers:
                raise SessionError(
                    f"no worker is left ({first_line(error)}); what is done is kept: see Ray's "
                    "logs, and run it again"
                ) from None
            return
        if worker.token not in (None, report.token):
            self._lost(worker, "its process was started again")
        worker.token, worker.host, worker.pid = report.token, report.host, report.pid
        self._heard += [(worker, message) for message in report.messages]

    def _take_in(self, worker: Employed, message: Message) -> None:
        reporter = self._reporter
        match message:
            case Step(text):
                self._silence = Stopwatch()
                self._say(f"{worker.host}: {text}")
            case Wanted():
                worker.actor.ship.remote(self._shipped())
            case Ready():
                worker.ready = message
            case Began(path, tiles, tile_mm2) if reporter is not None:
                reporter.input_started(path, tiles, tile_mm2)
            case Computed(path, tiles) if reporter is not None:
                reporter.tiles_done(path, tiles)
            case TakenOver(path, holder) if reporter is not None:
                reporter.taken_over(path, holder)
            case Ended(result):
                self._ended(worker, result)
            case Broken(error):
                self._broken(worker, error)
            case Left():
                worker.left = message
                self._left.append(message)

    def _ended(self, worker: Employed, result: InputResult) -> None:
        if isinstance(result.error, SessionError):
            return  # no fault of the input, which others may do; `Broken` follows
        self._add(result)
        if isinstance(result.error, OutputError):
            return  # `Broken` follows, and is waited for
        worker.given.pop(result.path, None)
        self._lost_with.pop(result.path, None)
        worker.losses = 0

    def _add(self, result: InputResult) -> None:
        self._results.append(result)
        if self._reporter:
            self._reporter.input_finished(result)

    def _broken(self, worker: Employed, error: SshrDeployError) -> None:
        self._give_up(worker, str(error))
        if isinstance(error, OutputError) or not self._workers:
            raise error

    def _lost(self, worker: Employed, reason: str) -> None:
        """Its process ended unasked: another is started, and its inputs wait for others."""
        worker.losses += 1
        if worker.losses >= MOST_LOSSES:
            self._give_up(worker, f"{reason} ({worker.losses} times)")
            if not self._workers:
                raise SessionError(
                    f"no worker is left, the last was lost: {reason}; what is done is kept, run "
                    "it again"
                )
            return
        self._tell(worker, reason)
        self._back(worker.forget())

    def _give_up(self, worker: Employed, reason: str) -> None:
        self._workers.remove(worker)
        worker.kill(for_good=True)
        self._tell(worker, reason)
        self._back(worker.given)

    def _tell(self, worker: Employed, reason: str) -> None:
        count = len(worker.given)
        others = f"; others get what it had ({counted(count, 'input')})" if count else ""
        self._say(f"worker {worker.pid} on {worker.host} was lost: {reason}{others}")
        self._events.emit(
            Code.WORKER_LOST, host=worker.host, pid=worker.pid, reason=reason, inputs=count
        )

    def _back(self, given: dict[Path, Input]) -> None:
        """Inputs of a lost worker wait again, but for those that were lost too often."""
        for item in reversed(given.values()):
            self._lost_with[item.path] += 1
            if (times := self._lost_with[item.path]) < MOST_LOSSES:
                self._waiting.appendleft(item)
                continue
            error = InputError(
                f"{item.path} was under way in {times} workers as they were lost, so it may be "
                "what ends them; look at it, and at Ray's logs"
            )
            self._add(InputResult(item.path, item.kind, "failed", str(error), error=error))

    def _shipped(self) -> dict[str, Any]:
        if not self._files:
            for name in file_names(self._bundle):
                self._files[name] = self._ray.put((self._bundle.path / name).read_bytes())
        return self._files
