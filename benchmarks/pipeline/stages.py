"""What a run's own accounts say of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sshr_deploy.benchmarks.pipeline.runs import TimedRun

STAGES = {
    "plan": "opening the slide and finding its tissue",
    "read": "reading tiles or fields",
    "infer": "the engine, and label maps of tiles",
    "keep": "keeping what the engine says until the slide is done",
    "labels": "label maps from what was kept",
    "write": "the picture of the slide, and all files",
    "rest": "the list of inputs, and documents of slides and of the run",
}
"""Of a run, in the words of its `effort`; "rest" is what the engine's thread did besides."""
_THREAD_OF = {
    "plan": "plan",
    "read": "read",
    "infer": "engine",
    "keep": "engine",
    "labels": "finish",
    "write": "finish",
    "rest": "engine",
}


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    busy_s: float
    """Of all its threads together, by the clock: waiting for a core counts."""
    threads: int
    thread: str
    """Which: plan, read, engine or finish; each does its stages one after the other."""
    held_up_s: float
    """That the engine's thread spent on it or waited for it: all stages' are the run's time."""

    @property
    def engine_waited_s(self) -> float | None:
        """That the engine's thread waited for it; None where it does the stage itself."""
        return None if self.thread == "engine" else self.held_up_s


def stages_of(run: TimedRun) -> dict[str, Stage]:
    """By name, in the order in which a slide goes through them.

    The engine's thread is the one that takes a slide through, so its time is divided: its own work,
    what it waited for, and the rest. It waits for whole slides to be finished ("write"): these
    seconds are divided between labels and files as the work on them is.
    """
    busy, waited = run.effort.busy_s, run.effort.engine_waited_s
    finishing = busy.get("labels", 0.0) + busy.get("write", 0.0)
    for_labels = waited.get("write", 0.0) * busy.get("labels", 0.0) / (finishing or 1.0)
    held_up = {
        "plan": waited.get("plan", 0.0),
        "read": waited.get("read", 0.0),
        "infer": busy.get("infer", 0.0),
        "keep": busy.get("keep", 0.0),
        "labels": for_labels,
        "write": waited.get("write", 0.0) - for_labels,
    }
    rest = max(0.0, run.seconds - sum(held_up.values()))
    held_up["rest"] = rest
    return {
        name: Stage(
            name,
            rest if name == "rest" else busy.get(name, 0.0),
            run.effort.readers if name == "read" else 1,
            _THREAD_OF[name],
            held_up[name],
        )
        for name in STAGES
    }


def shares_of(runs: Sequence[TimedRun]) -> dict[str, float]:
    """What went to each stage of the time of a run, as medians of the runs."""
    found = [(stages_of(run), run.seconds) for run in runs]
    return {
        name: float(np.median([stages[name].held_up_s / seconds for stages, seconds in found]))
        for name in STAGES
    }


def limit_of(runs: Sequence[TimedRun]) -> str:
    """The stage that most of the time went to: its own work, or waiting for it."""
    shares = shares_of(runs)
    return max(shares, key=shares.__getitem__)
