"""How fast ONNX Runtime runs several graphs on this processor, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.machine.spread import Spread, spread_of
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession

_TURN = 5
"""Counted calls of a session before the next one has its turn."""
_SETTLE_S = 0.3
"""Seconds that a turn runs uncounted; threads that spin did so for 0.1 s (AMD EPYC, 2 cores)."""
_ROUNDS = 9


def time_graphs(graphs: Sequence[Path], classes: int) -> list[Spread]:
    """Milliseconds a patch of each graph at batch 1; see `time_until_told_apart`.

    Raises:
        SessionError: a graph cannot be run.
    """
    with ExitStack() as stack:
        sessions = [stack.enter_context(OnnxRuntimeSession(graph, classes)) for graph in graphs]
        return time_until_told_apart(sessions)


def time_until_told_apart(
    sessions: Sequence[Session], rounds: int = _ROUNDS, batch: int = 1
) -> list[Spread]:
    """Milliseconds of a call, measured until it is clear which of the first and last is faster.

    Where the quartiles of the two still overlap after `rounds` calls, twice as many are made, and
    once more; if they overlap even then, neither is the faster.

    Raises:
        SessionError: an engine fails.
    """
    samples: list[list[float]] = [[] for _ in sessions]
    wanted = [rounds, 2 * rounds, 4 * rounds]
    while wanted:
        more = wanted.pop(0)
        for times, new in zip(samples, time_sessions(sessions, more, batch), strict=True):
            times += new
        found = [spread_of(times) for times in samples]
        if found[0].below(found[-1]) or found[-1].below(found[0]):
            break
    return found


def time_sessions(
    sessions: Sequence[Session], rounds: int = _ROUNDS, batch: int = 1
) -> list[list[float]]:
    """Milliseconds of each of `rounds` calls, with `batch` inputs of noise, for each session.

    The sessions take turns, so that a busy moment of the machine falls on all of them. A turn
    begins with calls that are not counted, until a session runs as it would alone: the threads of
    those before it still spin, which doubled the time of short calls.

    Raises:
        SessionError: an engine fails.
    """
    shape = (batch, *sessions[0].geometry.input_shape())
    patches = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    samples: list[list[float]] = [[] for _ in sessions]
    while len(samples[-1]) < rounds:
        for session, times in zip(sessions, samples, strict=True):
            settled = time.perf_counter() + _SETTLE_S
            session.infer(patches)
            while time.perf_counter() < settled:
                session.infer(patches)
            for _ in range(min(_TURN, rounds - len(times))):
                start = time.perf_counter()
                session.infer(patches)
                times.append((time.perf_counter() - start) * 1e3)
    return samples
