"""Timings when an engine is qualified, and their entries in its record.

Options of a provider that change only the speed are kept where they make this machine faster. An
engine that runs another's graphs is compared with that one, so that "auto" takes it only where it
is faster here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from sshr_deploy.runtime.contract import Session

MARGIN = 0.05
"""Share of the time that has to be saved: what is less may be the machine's noise."""
ROUNDS = 15
RIVAL_ROUNDS = 5
"""A call of a processor takes seconds at full width: 3.5 s for 8 patches with FP32."""
_WARM_UP = 3

OPTIONS_KEY = "provider_options"
"""In the record of an engine: the options that were kept."""
RIVALS_KEY = "rivals"
"""In the record of an engine: those that it was timed against, by engine and precision."""


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
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """Time calls of `batch` inputs of noise, the two sessions in turn.

    Raises:
        SessionError: an engine fails.
    """
    shape = (batch, *plain.geometry.input_shape())
    patches = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(_WARM_UP + rounds):
        # Who comes first changes, as the second call may find a warmer card.
        pairs = list(zip((plain, other), samples, strict=True))
        for session, times in pairs if number % 2 else reversed(pairs):
            start = clock()
            session.infer(patches)
            if number >= _WARM_UP:
                times.append((clock() - start) * 1e3)
    return Trial(*(float(np.median(times)) for times in samples))


def trial_record(options: dict[str, str], trial: Trial, batch: int) -> dict[str, Any]:
    """Entry of an engine's record for a trial of options."""
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    times = f"{trial.with_ms:.2f} ms a call of {batch}, {trial.plain_ms:.2f} ms without it"
    return {
        OPTIONS_KEY: options if trial.is_faster else {},
        "trial_ms": trial._asdict(),
        "notes": [f"{named} is {'used' if trial.is_faster else 'not used'}: {times}"],
    }


def untried_record(options: dict[str, str], why: str) -> dict[str, Any]:
    """Entry of an engine's record where the options do not work."""
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    return {OPTIONS_KEY: {}, "notes": [f"{named} is not used: {why}"]}


def options_of(build: dict[str, Any]) -> dict[str, str]:
    """The options that a record says were kept; none where it says nothing that can be used."""
    found = build.get(OPTIONS_KEY)
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def rivals_record(trials: dict[str, Trial], batch: int) -> dict[str, Any]:
    """Entry of an engine's record for the engines that it was timed against."""
    times = {
        name: {
            "ms": trial.with_ms,
            "rival_ms": trial.plain_ms,
            "batch": batch,
            "is_faster": trial.is_faster,
        }
        for name, trial in trials.items()
    }
    notes = [
        f"{trial.with_ms:.2f} ms a call of {batch}, {trial.plain_ms:.2f} ms with {name}"
        for name, trial in trials.items()
    ]
    return {RIVALS_KEY: times, "notes": notes}


def not_faster(build: dict[str, Any], rivals: Collection[str]) -> str | None:
    """Why an engine is not faster here than `rivals`; None where its record does not show that."""
    found = build.get(RIVALS_KEY)
    for name, times in found.items() if isinstance(found, dict) else ():
        if name in rivals and not times["is_faster"]:
            return (
                f"not faster here than {name}: {times['ms']:.2f} ms a call of {times['batch']}, "
                f"{times['rival_ms']:.2f} ms with that"
            )
    return None
