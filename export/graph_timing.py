"""How fast ONNX Runtime runs several graphs on this processor, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sshr_deploy.runtime.sessions.onnxruntime import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.session import PATCH_PX, Session

_TURN = 3
"""Counted calls of a session before the next one has its turn."""
_ROUNDS = 9


def time_graphs(graphs: Sequence[Path], classes: int) -> list[float]:
    """Median milliseconds a patch of each graph at batch 1; see `time_sessions`.

    Raises:
        SessionError: a graph cannot be run.
    """
    with ExitStack() as stack:
        sessions = [stack.enter_context(OnnxRuntimeSession(graph, classes)) for graph in graphs]
        return [float(np.median(samples)) for samples in time_sessions(sessions)]


def time_sessions(
    sessions: Sequence[Session], rounds: int = _ROUNDS, batch: int = 1
) -> list[list[float]]:
    """Milliseconds of each of `rounds` calls, with `batch` patches of noise, for each session.

    The sessions take turns, so that a busy moment of the machine falls on all of them; a turn is a
    few calls, of which the first is not counted: the threads of the session before it still spin
    then, which took up to 40 % of a short call.

    Raises:
        SessionError: an engine fails.
    """
    patches = np.random.default_rng(0).integers(0, 256, (batch, PATCH_PX, PATCH_PX, 3), np.uint8)
    samples: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        session.infer(patches)  # the first call allocates
    while len(samples[-1]) < rounds:
        for session, times in zip(sessions, samples, strict=True):
            session.infer(patches)
            for _ in range(min(_TURN, rounds - len(times))):
                start = time.perf_counter()
                session.infer(patches)
                times.append((time.perf_counter() - start) * 1e3)
    return samples
