"""Callbacks of a library while it builds an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Progress = Callable[[str, float], None]
"""Gets what is being done, in the library's words, and the share of all that is done, 0 to 1."""


def build_monitor(trt: Any, on_progress: Progress) -> Any:
    """An `IProgressMonitor`; what is raised in it, Ctrl-C too, ends the build and is kept."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = _Phase(parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # The library would print an exception and go on.
            try:
                phase = self._phases[phase_name]
                self._phases[phase_name] = phase._replace(done=step + 1)
                self._share = max(self._share, _share(self._phases, phase_name))
                on_progress(phase_name, self._share)
            except BaseException as error:
                self.error = error
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()


class _Phase(NamedTuple):
    parent: str | None
    steps: int
    done: int


def _share(phases: Mapping[str, _Phase], name: str | None) -> float:
    """Share of the whole build that is done, from the steps of a phase and of those around it."""
    share = 0.0
    while name is not None and (phase := phases.get(name)) is not None:
        share = min((phase.done + share) / max(phase.steps, 1), 1.0)
        name = phase.parent
    return share
