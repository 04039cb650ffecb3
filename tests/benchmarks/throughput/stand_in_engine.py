"""An engine whose batches cost what a test says, on a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.benchmarks.throughput.engine import BundleEngine
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.contract import OUTPUT_NAMES, PATCH_PX, CamBatch, MaskRule, SessionInfo
from sshr_deploy.runtime.sessions.base import BaseSession, Finish, output_shape

AGREES = Agreement(masks=1.0, cam_error=0.0, misses=())
DIFFERS = Agreement(masks=0.5, cam_error=1.0, misses=("masks agree on 50.0000% of pixels",))
Cost = Callable[[int, int], float]
"""Seconds of a call by batch and streams."""


class Clock:
    """Stands still but for the calls of the stand-in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


class StandIn(BaseSession):
    """Answers with zeros."""

    def __init__(self, clock: Clock, cost: Cost, streams: int | None, most: int) -> None:
        self.info = SessionInfo("onnx-cpu", "fp32", "none", "none 0", streams=streams)
        self._clock, self._cost, self._most = clock, cost, most
        self.seen: set[int] = set()
        """Sums of the inputs of its calls."""

    def _start(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> Finish:
        count = len(patches)
        if count > self._most:
            raise SessionError("out of memory")
        self.seen.add(int(patches.sum()))
        self._clock.now += self._cost(count, self.info.streams or 1)
        shapes = ((count, *output_shape(name, 3, self.geometry)) for name in OUTPUT_NAMES)
        cams = CamBatch(*(np.zeros(shape, np.float32) for shape in shapes))
        labels = np.zeros((count, PATCH_PX, PATCH_PX), np.uint8)
        return lambda: (cams, labels)

    def close(self) -> None:
        """There is nothing to free."""


class StandInEngine(BundleEngine):
    """Opens stand-ins."""

    def __init__(self, bundle: Bundle, clock: Clock, cost: Cost, **changes: Any) -> None:
        super().__init__(bundle, "onnx-cpu", threads=2)
        self._clock, self._cost = clock, cost
        self.agreement, self.has_streams, self.most = AGREES, True, 1024
        self.opens_up_to, self.gpu_index = 1024, None
        vars(self).update(changes)
        self.opened: list[tuple[int | None, int | None]] = []
        self.sessions: list[StandIn] = []

    def open(self, batch: int | None, streams: int | None) -> StandIn:
        """See `BundleEngine.open`."""
        self.opened.append((batch, streams))
        if (batch or 1) > self.opens_up_to:
            raise SessionError("no memory to open it")
        given = (streams or 1) if self.has_streams else None
        session = StandIn(self._clock, self._cost, given, self.most)
        if self.agreement.misses and self.allow_unqualified:
            session.info = replace(session.info, unqualified="it differs")
        self.sessions.append(session)
        return session

    def gpu(self, session: Any) -> int | None:
        """See `BundleEngine.gpu`."""
        return self.gpu_index

    def judge(self, session: Any) -> Agreement:
        """See `BundleEngine.judge`."""
        return self.agreement
