"""A worker of a cluster: does inputs in a process of its own, with an engine of its own.

Ray makes an actor of it. Its methods are called by Ray's threads and return at once or soon; one
thread of its own opens the engine and does the inputs, as an engine belongs to one thread.
"""

from __future__ import annotations

import os
import platform
import queue
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sshr_deploy.api import Model
from sshr_deploy.cluster.messages import (
    Began,
    Broken,
    Computed,
    Ended,
    Left,
    Message,
    Order,
    Ready,
    Report,
    Step,
    TakenOver,
    Wanted,
)
from sshr_deploy.cluster.shipping import bundle_at, kept_bundles
from sshr_deploy.errors import SessionError, SshrDeployError, UsageError, first_line
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.documents import Context
from sshr_deploy.runtime.pipeline.processing import Processing
from sshr_deploy.runtime.pipeline.run_lock import RunLock, run_lock
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.terms import terms_of
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.version import __version__

_REPORT_S = 2.0
"""A report without messages is made after so long: a sign of life."""
_GATHER_S = 0.05
"""Messages that come in such a time after the first are in the same report."""
_SEE_S = 10.0
"""What another machine has just written may be seen so late on a share."""


class Worker:
    """See the module; `messages` tells all that happens, its errors too."""

    def __init__(self, order: Order) -> None:
        """Begin to open the engine."""
        self._order, self._token = order, secrets.token_hex(8)
        self._inputs: queue.SimpleQueue[Input | None] = queue.SimpleQueue()  # None ends
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._bundle: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._stop = StopRequest()
        threading.Thread(target=self._work, name="work", daemon=True).start()

    def give(self, item: Input) -> None:
        """Do an input, after those that were given before."""
        self._inputs.put(item)

    def ship(self, files: Mapping[str, Any]) -> None:
        """Take the files of the bundle: references to their bytes in Ray's store, by name."""
        self._bundle.put(files)

    def stop(self) -> None:
        """Leave what is under way for the next run; `Left` or `Broken` is the last message."""
        self._stop.ask()
        self._inputs.put(None)

    def messages(self) -> Report:
        """Those since the last report; waits a while for the first."""
        messages: list[Message] = []
        try:
            messages.append(self._said.get(timeout=_REPORT_S))
            time.sleep(_GATHER_S)
            while True:
                messages.append(self._said.get_nowait())
        except queue.Empty:
            return Report(self._token, platform.node(), os.getpid(), messages)

    def _work(self) -> None:
        try:
            with self._opened() as model, self._entered(model) as lock:
                context = model.context(model.settings, self._order.wording)
                with self._workforce(model, lock, context) as processing:
                    self.say(Ready(model.info, context.settings))
                    try:
                        self._process(processing)
                    finally:
                        for result in processing.ended():
                            self.say(Ended(result))
                left = Left(context.engine("slide"), processing.effort())
            self.say(left)  # everything is closed
        except SshrDeployError as error:
            self.say(Broken(error))
        except Exception as error:
            traceback.print_exc()  # into Ray's log of this worker
            reason = f"it met a defect of sshr-deploy ({first_line(error)}); please report it"
            self.say(Broken(SessionError(f"{reason} with the log of the worker")))

    def _entered(self, model: Model) -> AbstractContextManager[RunLock]:
        """The results folder, as one of the runs that share it."""
        bundle, order = model.bundle, self._order
        terms = terms_of(bundle.manifest, bundle.manifest_sha256, order.spec.settings)
        return run_lock(order.out, terms)

    def _workforce(self, model: Model, lock: RunLock, context: Context) -> Processing:
        return model.workforce(self._order.out, lock, context, _Telling(self.say), self._stop)

    def _opened(self) -> Model:
        order = self._order
        if order.version != __version__:
            raise UsageError(
                f"it has sshr-deploy {__version__}, the run is of {order.version}; install the "
                "same release on all machines"
            )
        for path in order.must_see:
            _wait_for(path)
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray's guess; the order has the user's
        bundle = bundle_at(order.spec.bundle, order.manifest_sha256, self._fetch, kept_bundles())
        return Model(
            replace(order.spec, bundle=bundle.path),
            bundle,
            lambda text: self.say(Step(text)),
            on_open=lambda info: info.worded(order.wording),
            for_slides=order.for_slides,
            processes=order.processes,
        )

    def _fetch(self) -> dict[str, Callable[[], bytes]]:
        import ray

        self.say(Wanted())

        def bring(file: Any) -> bytes:
            content: bytes = ray.get(file)
            return content

        return {name: partial(bring, file) for name, file in self._bundle.get().items()}

    def _process(self, processing: Processing) -> None:
        try:
            while (first := self._inputs.get()) is not None:
                with closing(processing.process(partial(self._next, [first]))) as ended:
                    for result in ended:
                        self.say(Ended(result))
        except KeyboardInterrupt:  # by the request to stop
            pass

    def _next(self, first: list[Input]) -> Input | None:
        """The input that `_process` waited for, then those that have come since."""
        if first:
            return first.pop()
        try:
            item = self._inputs.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._inputs.put(None)  # for `_process`
        return item

    def say(self, message: Message) -> None:
        """Put a message into the next report."""
        self._said.put(message)


class _Telling:
    """A reporter that tells of inputs in messages; `Ended` is said where they are given out."""

    def __init__(self, say: Callable[[Message], None]) -> None:
        self._say = say

    def run_started(self, inputs: int) -> None:
        """See `Reporter`."""

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """See `Reporter`."""
        self._say(Began(path, tiles, tile_mm2))

    def tiles_done(self, path: Path, tiles: int) -> None:
        """See `Reporter`."""
        self._say(Computed(path, tiles))

    def taken_over(self, path: Path, holder: str) -> None:
        """See `Reporter`."""
        self._say(TakenOver(path, holder))

    def input_finished(self, result: InputResult) -> None:
        """See `Reporter`."""


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + _SEE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise UsageError(
                f"it does not see {path}; mount the share there, at the same path on all machines"
            )
        time.sleep(0.2)
