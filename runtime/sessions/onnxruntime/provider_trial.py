"""Options of a provider that change only the speed: kept where they make this machine faster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sshr_deploy.runtime.contract import PATCH_PX, Session

MARGIN = 0.05
"""Share of the time that options have to save: what is less may be the machine's noise."""
_ROUNDS = 15
_WARM_UP = 3

OPTIONS_KEY = "provider_options"
"""In the record of an engine: the options that were kept."""


class Trial(NamedTuple):
    """Median times of a call, in ms, without the options and with them."""

    plain_ms: float
    with_ms: float

    @property
    def is_faster(self) -> bool:
        """Whether the options save more than the margin."""
        return self.with_ms < (1 - MARGIN) * self.plain_ms


def time_pair(
    plain: Session,
    other: Session,
    batch: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """Time calls of `batch` patches of noise, the two sessions in turn.

    Raises:
        SessionError: an engine fails.
    """
    patches = np.random.default_rng(0).integers(0, 256, (batch, PATCH_PX, PATCH_PX, 3), np.uint8)
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UP + _ROUNDS):
        # Who comes first changes, as the second call may find a warmer card.
        pairs = list(zip((plain, other), samples, strict=True))
        for session, times in pairs if number % 2 else reversed(pairs):
            start = clock()
            session.infer(patches)
            if number >= _WARM_UP:
                times.append((clock() - start) * 1e3)
    return Trial(*(float(np.median(times)) for times in samples))


def trial_record(options: dict[str, str], trial: Trial, batch: int) -> dict[str, Any]:
    """What an engine's record says of a trial."""
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    times = f"{trial.with_ms:.2f} ms a call of {batch}, {trial.plain_ms:.2f} ms without it"
    return {
        OPTIONS_KEY: options if trial.is_faster else {},
        "trial_ms": trial._asdict(),
        "notes": [f"{named} is {'used' if trial.is_faster else 'not used'}: {times}"],
    }


def untried_record(options: dict[str, str], why: str) -> dict[str, Any]:
    """What an engine's record says where the options do not work."""
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    return {OPTIONS_KEY: {}, "notes": [f"{named} is not used: {why}"]}


def options_of(build: dict[str, Any]) -> dict[str, str]:
    """The options that a record says were kept; none where it says nothing that can be used."""
    found = build.get(OPTIONS_KEY)
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}
