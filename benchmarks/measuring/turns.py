"""Times several things in turns, so that a busy moment of the machine falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from sshr_deploy.errors import SshrDeployError

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
    on_failure: Callable[[str, SshrDeployError], object] | None = None,
) -> Iterator[tuple[str, list[float]]]:
    """Time each call until it has had `seconds`; gives its name and the milliseconds of a turn.

    A turn is at least three samples and about a second, after the calls that do not count. All have
    the same number of turns, in which who has had its seconds gives one sample: no one is timed
    without the others beside it. Who iterates may keep what came so far at any time.

    Args:
        calls: by name; each is called many times.
        seconds: measuring time of each, without what does not count.
        fewest: samples of each, at least.
        settle_s: how long calls at the beginning of a turn do not count; one is made at least.
        on_failure: told of a call that failed and has no more turns; None lets the error through.
    """
    spent = dict.fromkeys(calls, 0.0)
    taken = dict.fromkeys(calls, 0)
    going = dict(calls)
    while any(spent[name] < seconds or taken[name] < fewest for name in going):
        for name, call in list(going.items()):
            left_s = min(_TURN_S, seconds - spent[name])
            is_done = left_s <= 0 and taken[name] >= fewest
            try:
                turn = _turn(call, settle_s, left_s, 1 if is_done else _FEWEST_A_TURN)
            except SshrDeployError as error:
                if on_failure is None:
                    raise
                del going[name]
                on_failure(name, error)
                continue
            spent[name] += sum(turn) / 1e3
            taken[name] += len(turn)
            yield name, turn


def _turn(call: Callable[[], object], settle_s: float, seconds: float, fewest: int) -> list[float]:
    """Milliseconds of at least so many calls."""
    settle(call, settle_s)
    turn: list[float] = []
    while sum(turn) < seconds * 1e3 or len(turn) < fewest:
        start = time.perf_counter()
        call()
        turn.append((time.perf_counter() - start) * 1e3)
    return turn


def settle(call: Callable[[], object], seconds: float = SETTLE_S) -> None:
    """Call for so long, once at least, until the threads of others sleep."""
    end = time.perf_counter() + seconds
    call()
    while time.perf_counter() < end:
        call()
