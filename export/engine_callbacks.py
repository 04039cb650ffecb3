"""What a library calls while it builds an engine: messages and progress."""

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


def build_log(trt: Any) -> Any:
    """An `ILogger` that prints nothing; it must outlive all that is made with it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.reads_uint8_as_int8 = False
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._errors.append((msg.strip() or "no text").splitlines()[0])
            elif severity == trt.ILogger.Severity.WARNING:
                self.reads_uint8_as_int8 |= "UINT8" in msg and "INT8 instead" in msg

        def reason(self) -> str:
            """The errors since the last call, which this forgets; the latest three."""
            errors, self._errors = self._errors[-3:], []
            return "; ".join(dict.fromkeys(errors)) or "no reason given"

    return Log()
