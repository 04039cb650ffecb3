"""Times several things in turns, so that a busy moment of the machine falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

SETTLE_S = 0.3
"""At the beginning of a turn calls do not count for so long: threads of the one before still spin,
which doubled the time of short calls (`benchmarks/notes.md`, "A trap, met twice")."""
FEWEST = 6
"""Samples of each, whatever they take: from six on a median has an interval."""
_TURN_S = 1.0
_FEWEST_A_TURN = 3


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    fewest: int = FEWEST,
    settle_s: float = SETTLE_S,
) -> Iterator[tuple[str, list[float]]]:
    """Time each call until it has had `seconds`; gives its name and the milliseconds of a turn.

    A turn is at least three samples and about a second, after the calls that do not count. Who
    iterates may keep what came so far at any time.

    Args:
        calls: by name; each is called many times.
        seconds: measuring time of each, without what does not count.
        fewest: samples of each, at least.
        settle_s: how long calls at the beginning of a turn do not count; one is made at least.
    """
    spent = dict.fromkeys(calls, 0.0)
    taken = dict.fromkeys(calls, 0)
    waiting = list(calls)
    while waiting:
        for name in list(waiting):
            call, turn = calls[name], list[float]()
            _settle(call, settle_s)
            left_s = min(_TURN_S, seconds - spent[name])
            while sum(turn) < left_s * 1e3 or len(turn) < _FEWEST_A_TURN:
                start = time.perf_counter()
                call()
                turn.append((time.perf_counter() - start) * 1e3)
            spent[name] += sum(turn) / 1e3
            taken[name] += len(turn)
            if spent[name] >= seconds and taken[name] >= fewest:
                waiting.remove(name)
            yield name, turn


def _settle(call: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    call()
    while time.perf_counter() < end:
        call()
