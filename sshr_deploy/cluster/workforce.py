"""The workers of a cluster as one workforce: who has which input, and what becomes of lost ones.

A worker is an actor of Ray with an engine of its own. It has the input that it computes and one
more to plan and read meanwhile. Ray starts a lost one again, on another machine if need be; its
inputs go to whoever is free, and begin with what was kept of them. An input that was under way in
several workers as they were lost is taken for the cause, and fails.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from sshr_deploy.bundle import Bundle
from sshr_deploy.closing import Closing
from sshr_deploy.cluster.connecting import Place
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
    Wanted,
)
from sshr_deploy.cluster.shipping import file_names
from sshr_deploy.cluster.worker import Worker
from sshr_deploy.errors import InputError, OutputError, SessionError, SshrDeployError, counted
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.feed import Take
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.records import RunEffort
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.results import InputResult
from sshr_deploy.runtime.settings import InferSettings

_AHEAD = 2
"""Slides that a worker has at a time, or batches of images."""
_MOST_LOSSES = 3
"""An input fails with so many lost workers; a worker that is lost so often, with nothing done in
between, is given up."""
_ASK_S = 1.0
_SILENT_S = 600.0
_LEAVE_S = 60.0


class _Employed:
    """A worker, as the workforce sees it."""

    def __init__(self, actor: Any, place: Place) -> None:
        self.actor, self.place, self.host = actor, place, place.host
        self.report = actor.messages.remote()
        self.token: str | None = None
        """Of its process; None where it is being started."""
        self.ready: Ready | None = None
        self.given: dict[Path, Input] = {}
        self.gifts: list[Any] = []
        """Calls that have not come back yet."""
        self.losses = 0
        """Since it did something last."""
        self.left: Left | None = None

    def give(self, item: Input) -> None:
        """Let it do an input."""
        self.given[item.path] = item
        self.gifts.append(self.actor.give.remote(item))

    def room(self) -> float:
        """Share of `_AHEAD` that is free; 0 where it is not ready."""
        if self.ready is None or self.left is not None:
            return 0.0
        batch = self.ready.settings.batch
        load = sum(1 if item.kind == "slide" else 1 / batch for item in self.given.values())
        return 1 - load / _AHEAD


class RayWorkforce(Closing):
    """A workforce of the actors of a cluster; for one thread.

    Iterating over `process` raises:
        SessionError: no worker is left, or none answers for ten minutes.
        OutputError: results cannot be written.
    """

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
            order: what they are to do; its `processes` are set for each.
            bundle: sent to machines that do not have it.
            say: told of each step, and of workers that are lost.
            events: told of workers that are lost.

        Raises:
            SshrDeployError: no worker could open an engine; the error of the last.
        """
        self._ray, self._bundle, self._say, self._events = ray, bundle, say, events
        self.reporter: Reporter | None = None
        """Told of the inputs of all workers; set before there are inputs."""
        self._files: dict[str, Any] | None = None  # in Ray's store
        self._waiting: deque[Input] = deque()  # given back
        self._lost_with: Counter[Path] = Counter()
        self._heard: deque[tuple[_Employed, Message]] = deque()
        self._results: deque[InputResult] = deque()
        self._left: list[Left] = []
        self._fatal: SshrDeployError | None = None
        self._silence = Stopwatch()
        self._workers = [
            _Employed(_actor(ray, place, replace(order, processes=place.workers)), place)
            for place in places
        ]
        try:
            while not self.ready():
                self._hear()
        except BaseException:
            self.close()
            raise

    def ready(self) -> list[Ready]:
        """Engine and settings of each worker that is ready."""
        return [worker.ready for worker in self._workers if worker.ready is not None]

    def info(self) -> SessionInfo:
        """The engine of most workers; its notes name others."""
        

    def process(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        """See `Workforce`; inputs end in no order."""
        while True:
            self._hand_out(take)
            if not self._waiting and not any(worker.given for worker in self._workers):
                return
            self._hear()
            yield from self.ended()

    def ended(self) -> Iterator[InputResult]:
        """See `Workforce`."""
        while self._results:
            yield self._results.popleft()

    def effort(self) -> RunEffort | None:
        """See `Workforce`: of the workers that were not lost, once they are closed."""
        ...
